"""The processes that train one model together, and all that they exchange.

Every process holds the whole model and computes its share of each batch; before a step of an optimiser the
gradients are averaged. They are averaged here and not by a wrapper around the module, because a step has
several backward passes through parts of it, and because heads may join late: a wrapper would exchange
gradients after each pass and wait for those of parts that took no part.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from remime.devices import compute_device
from remime.errors import InputError, RemimeError
from remime.runtime import end_with_parent

# What others wait for rank 0 at most: it makes pools and validates alone, which may take hours. When a
# process ends nobody waits for that long, because the launcher ends the others at once.
PATIENCE = timedelta(days=2)


class PeerLostError(RemimeError):
    """Another process of the training ended, and said why itself."""

    exit_code = 3


def launched() -> bool:
    """Whether torchrun (or ``remime.training.launch``) has started this process."""
    return dist.is_torchelastic_launched()


def join(precision: Any) -> tuple[Any, Processes]:
    """Choose the device of this process and, where it was launched as one of several, meet the others.

    Args:
        precision: as Lightning Fabric names it.

    Returns:
        a launched Fabric, and the processes.
    """
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment
    from lightning_fabric.strategies import DDPStrategy

    if not launched():
        compute_device()
        # Not what a scheduler says of its tasks: this is one process, whatever it says.
        fabric = Fabric(devices=1, precision=precision, plugins=[LightningEnvironment()])
        fabric.launch()
        return fabric, Processes()
    end_with_parent()
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    here = int(os.environ["LOCAL_WORLD_SIZE"])
    fabric = Fabric(
        strategy=DDPStrategy(timeout=PATIENCE),
        devices=here,
        num_nodes=int(os.environ["WORLD_SIZE"]) // here,
        precision=precision,
        plugins=[TorchElasticEnvironment()],
    )
    fabric.launch()
    return fabric, Processes(fabric.global_rank, fabric.world_size, fabric.device)


class Processes:
    """The processes of a training, seen from one of them; without arguments it is the only one.

    Rows of a batch are dealt out like cards, so that kinds of rows that follow each other are shared evenly.

    Args:
        rank: number of this process, from 0.
        count: how many there are.
        device: through whose memory they exchange tensors.
    """

    def __init__(self, rank: int = 0, count: int = 1, device: torch.device | None = None) -> None:
        self.rank, self.count = rank, count
        self.device = device or torch.device("cpu")

    @property
    def main(self) -> bool:
        """Whether this process is the one that writes, validates and reports."""
        return self.rank == 0

    def check(self, key: str, size: int) -> None:
        """Refuse a batch that cannot be shared evenly.

        Raises:
            InputError: ``size`` of the option ``key`` is not a multiple of the number of processes.
        """
        if size % self.count:
            raise InputError(
                key,
                f"{size} rows of a batch cannot be shared evenly by {self.count} processes",
                f"choose a multiple of {self.count}, or another number of processes"
                " (the resource `gpu` of rule `train`)",
            )

    def rows(self, first: int = 0) -> slice:
        """This process's rows among those of a batch from ``first`` on."""
        return slice((self.rank - first) % self.count, None, self.count)

    def mean(self, values: Tensor, total: int) -> Tensor:
        """A number whose average over the processes is the mean over all rows.

        Args:
            values: [n, ...] of this process's rows; n may be 0, and differ between processes.
            total: rows of all processes.
        """
        if self.count == 1:
            return values.mean()
        return values.sum() * (self.count / (total * values.shape[1:].numel()))

    @torch.no_grad()
    def gather(self, own: Tensor, total: int) -> Tensor:
        """All rows [total, ...], in their order, of which every process gives its own."""
        if self.count == 1:
            return own
        longest = -(-total // self.count)
        padded = torch.zeros(longest, *own.shape[1:], dtype=own.dtype, device=self.device)
        padded[: len(own)] = own
        parts = [torch.empty_like(padded) for _ in range(self.count)]
        with _exchange():
            dist.all_gather(parts, padded)
        out = own.new_empty(total, *own.shape[1:])
        for rank, part in enumerate(parts):
            out[rank :: self.count] = part[: len(range(rank, total, self.count))].to(own)
        return out

    def average(self, figures: Mapping[str, Any]) -> dict[str, Any]:
        """The mean over the processes of numbers that all of them have."""
        if self.count == 1:
            return dict(figures)
        names = sorted(figures)
        values = torch.tensor([float(figures[n]) for n in names], dtype=torch.float64, device=self.device)
        self._sum(values)
        means = dict(zip(names, (values / self.count).tolist(), strict=True))
        return {name: means[name] for name in figures}

    @torch.no_grad()
    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace gradients by their mean over the processes; where no process has one, there is none."""
        if self.count == 1:
            return
        parameters = list(parameters)
        present = torch.tensor([float(p.grad is not None) for p in parameters], device=self.device)
        self._sum(present)
        taking_part = [p for p, n in zip(parameters, present.tolist(), strict=True) if n]
        if not taking_part:
            return
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in taking_part]
        flat = torch.cat([g.reshape(-1) for g in gradients])
        self._sum(flat)
        flat /= self.count
        sizes = [g.numel() for g in gradients]
        for parameter, gradient, mean in zip(taking_part, gradients, flat.split(sizes), strict=True):
            parameter.grad = gradient.copy_(mean.view_as(gradient))

    @torch.no_grad()
    def begin(self, module: nn.Module) -> None:
        """Make the processes' copies of a module equal, and let it normalise over the whole batch."""
        if self.count == 1:
            return
        for value in module.state_dict().values():
            sent = value.to(self.device, copy=True, memory_format=torch.contiguous_format)
            with _exchange():
                dist.broadcast(sent, 0)
            value.copy_(sent)
        _normalise_over_all(module)

    def agree(self, what: str, number: int) -> None:
        """Make sure that all processes have the same number.

        Raises:
            RemimeError: they have not.
        """
        if self.average({what: number})[what] != number:
            raise RemimeError(
                f"the processes of this training do not agree on {what}: process {self.rank} has {number}\n"
                "  they must read the same files; results/ has to lie where all of them see it"
            )

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Let the main process do something before the others, which then find it done."""
        if not self.main:
            self.wait()
        yield
        if self.main:
            self.wait()

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.count > 1:
            self._sum(torch.zeros(1, device=self.device)).item()

    def end(self) -> None:
        """Part from the others."""
        if self.count > 1:
            dist.destroy_process_group()

    def _sum(self, values: Tensor) -> Tensor:
        with _exchange():
            dist.all_reduce(values)
        return values


@contextmanager
def _exchange() -> Iterator[None]:
    # Gloo and NCCL report the end of a peer as RuntimeErrors of many texts; nothing else can fail in here.
    try:
        yield
    except RuntimeError as error:
        # "[file:line] Reason. What may have caused it."
        reason = re.sub(r"^\[\S+\] ", "", str(error)).partition(". ")[0]
        raise PeerLostError(
            f"this process ends because another one of this training did ({reason})"
        ) from error


def _normalise_over_all(module: nn.Module) -> None:
    """Let batch normalisation take its statistics from the rows of all processes."""
    for name, child in module.named_children():
        _normalise_over_all(child)
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            on_gpu = child.running_mean is not None and child.running_mean.is_cuda
            # PyTorch's own needs a GPU.
            convert = nn.SyncBatchNorm.convert_sync_batchnorm if on_gpu else _SharedBatchNorm.of
            setattr(module, name, convert(child))


class _Sum(torch.autograd.Function):
    """The sum of a tensor over all processes; what they derive from it has a share in each one's gradient."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        with _exchange():
            dist.all_reduce(total := own.clone())
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        with _exchange():
            dist.all_reduce(total := gradient.clone())
        return total


class _SharedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation over the rows of all processes, on a CPU."""

    @classmethod
    def of(cls, other: nn.modules.batchnorm._BatchNorm) -> _SharedBatchNorm:
        """One with the very parameters and buffers of another one."""
        own = cls(other.num_features, other.eps, other.momentum, other.affine, other.track_running_stats)
        own._parameters, own._buffers, own.training = other._parameters, other._buffers, other.training
        return own

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        axes = [0, *range(2, x.ndim)]
        shape = [1, -1] + [1] * (x.ndim - 2)
        # All processes have as many rows.
        rows = x.numel() // x.shape[1] * dist.get_world_size()
        mean = _Sum.apply(x.sum(axes)) / rows
        centred = x - mean.view(shape)
        variance = _Sum.apply(centred.square().sum(axes)) / rows
        self._track(mean.detach(), variance.detach() * rows / (rows - 1))
        out = centred * (variance + self.eps).rsqrt().view(shape)
        return out if self.weight is None else out * self.weight.view(shape) + self.bias.view(shape)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        share = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)
