"""Training of the inverters: generator samples with known latents, and real frames."""

from __future__ import annotations

import copy
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from remime.encoders.discriminator import LatentAdversary
from remime.encoders.e4e import delta_regularisation, stage_at
from remime.encoders.inverter import build_inverter
from remime.encoders.small import SmallEncoder
from remime.generators.base import Generator
from remime.images import fit
from remime.shards import stable_hash
from remime.training.data import Frames
from remime.training.generated import GeneratedPool, degrade, sample_latents, vary
from remime.training.loop import Task, Updater
from remime.training.losses import ImageLosses
from remime.training.optimizers import Ranger
from remime.training.processes import Processes

DEFAULTS: dict[str, Any] = {
    "batch": 8,
    "validate_batches": 8,  # of two generated faces and at most two real frames
    "learning_rate": 1e-4,
    "refinements": 5,
    "identity": "dlib-resnet-id",
    "truncation": 1.0,  # samples of the generator have psi ~ U[0.4, this]
    "mixing": 0.5,
    "real": 0.5,  # share of real frames in a batch, when there are any
    "varied": 0.0,  # share of the images that are seen with another camera and in other light
    "pool": 0,  # cached generator samples for the latent loss of the first step (small only)
    "pool_batch": 64,
    "pool_mixing": 0.3,
    "image_every": 1,  # steps between batches with image losses; 0: never
    "decode_resolution": 0,  # for these losses; 0: as in use
    "progressive_start": 20_000,  # e4e's progressive schedule
    "progressive_every": 2_000,
    "losses": {"latent": 0.0, "l2": 1.0, "lpips": 0.8, "id": 0.1, "delta": 2e-4, "adversarial": 0.1},
}


class _Trained(torch.nn.Module):
    def __init__(self, encoder: torch.nn.Module, adversary: LatentAdversary | None) -> None:
        super().__init__()
        self.encoder = encoder
        if adversary is not None:
            self.adversary = adversary


class InverterTask(Task):
    """ReStyle-pSp, ReStyle-e4e, pSp or e4e (methods.md, Sec. 0).

    Backward runs after every refinement on detached reconstructions, with one optimiser step per batch. With
    a ``pool``, the first refinement also learns from cached generator samples whose latents are known, which
    costs no decode.

    Args:
        options: the flat options of stage ``train``; see ``DEFAULTS``. With ``init`` a model is loaded next,
            whose e4e ``stage`` (default: all heads) is the least.
        generator: frozen.
        train: real frames, or None.
        validation: real frames of other identities, or None.
        state: the training's own directory; the pool lies beside it, for other trainings of the same options.
        device: where to train.
        processes: those that train together.

    Raises:
        InputError: the processes cannot share a batch evenly.
    """

    def __init__(
        self,
        options: dict[str, Any],
        generator: Generator,
        train: Frames | None,
        validation: Frames | None,
        state: Path,
        device: torch.device,
        processes: Processes | None = None,
    ) -> None:
        self.o = {**DEFAULTS, **options, "losses": {**DEFAULTS["losses"], **options.get("losses", {})}}
        self.processes = processes or Processes()
        for key in ("batch", "pool_batch") if self.o["pool"] else ("batch",):
            self.processes.check(key, self.o[key])
        self.generator, self.device = generator, device
        self.inverter = build_inverter(self.o, generator).to(device)
        # The same networks; what the losses, and the next refinement, see has a resolution of its own.
        self.judged = copy.copy(self.inverter)
        if self.o["decode_resolution"]:
            self.judged.decode_resolution = generator.decode_resolution(self.o["decode_resolution"])
        self.e4e = options["method"].endswith("e4e")
        # Heads that the model to start from uses stay in use, whatever the schedule of this run says.
        self.first_stage = int(options.get("stage", generator.rows - 1)) if options.get("init") else 0
        self.losses = ImageLosses(self.o["identity"]).to(device)
        adversary = LatentAdversary().to(device) if self.e4e and self.o["losses"]["adversarial"] else None
        self.module = _Trained(self.inverter.encoder, adversary)
        learned = [p for n, p in self.inverter.encoder.named_parameters() if not n.startswith("trunk.")]
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "main": Ranger(learned, lr=self.o["learning_rate"])
        }
        if adversary is not None:
            self.optimizers["adversary"] = torch.optim.Adam(adversary.discriminator.parameters(), 2e-5)
        self.train_frames = train if train is not None and len(train) else None
        self.validation_frames = validation if validation is not None and len(validation) else None
        self.seed = int(options["seed"])
        # Only data: a thread that decodes beside a step would take its cores, which a GPU has not.
        self.ahead = device.type == "cuda" or not self.o["image_every"]
        # Latent errors are measured in units of W's own spread.
        self.spread = sample_latents(generator, 256, self.seed)[:, 0].std(0).mean().item()
        if self.o["pool"] and not isinstance(self.inverter.encoder, SmallEncoder):
            raise ValueError("option pool: only the preset 'small' has features that can be cached")
        self._folder = state.parent / "pool"

    @cached_property
    def pool(self) -> GeneratedPool | None:
        """The cached samples, made when a step first needs them: a finished training needs none."""
        if not self.o["pool"]:
            return None
        assert isinstance(self.inverter.encoder, SmallEncoder)
        return GeneratedPool(
            self._folder,
            self.generator,
            self.inverter.encoder.trunk,
            int(self.o["pool"]),
            self.seed,
            self.inverter.size,
            self.inverter.decode_resolution,
            self.processes,
            self.o["pool_mixing"],
        )

    @cached_property
    def pool_latents(self) -> Tensor:
        """Of the pool, half precision [count,rows,512]."""
        assert self.pool is not None
        return self.pool.all_latents()

    @cached_property
    def average(self) -> Tensor:
        """Features of the average face, from which the first refinement starts."""
        assert isinstance(self.inverter.encoder, SmallEncoder)
        with torch.no_grad():
            return self.inverter.encoder.trunk(self.inverter.average_image)

    def prepare(self) -> None:
        """Make the pool and read its latents."""
        if self.pool is not None:
            _ = self.pool_latents

    def batch(self, step: int) -> dict[str, Tensor]:
        """Pool samples for every step; images (generated and real) for every ``image_every``-th."""
        source = torch.Generator().manual_seed(stable_hash(f"{self.seed}:{step}") % 2**62)
        out: dict[str, Tensor] = {}
        if self.pool is not None:
            rows = torch.randint(self.pool.count, (self.o["pool_batch"],), generator=source)
            rows = rows[self.processes.rows()]
            out["pool_latents"] = self.pool_latents[rows].float()
            out["pool_features"] = torch.from_numpy(self.pool.features[rows.numpy()]).float()
        if self.o["image_every"] and step % self.o["image_every"] == 0:
            seed = int(torch.randint(2**40, (), generator=source))
            out |= self._generated(self._count()[0], seed, self.o["varied"], self.processes)
            if self._count()[1]:
                out["real"] = self._real(self._count()[1], seed + 1, source)
        return {k: v.to(self.device) for k, v in out.items()}

    def _count(self) -> tuple[int, int]:
        """Generated faces and real frames in a batch, of all processes; generated ones come first."""
        real = round(self.o["batch"] * self.o["real"]) if self.train_frames is not None else 0
        return self.o["batch"] - real, real

    @torch.no_grad()
    def _generated(
        self, count: int, seed: int, varied: float = 0.0, processes: Processes | None = None
    ) -> dict[str, Tensor]:
        """Samples, images and degraded images; varied ones come first, and have no latent."""
        if count == 0:
            return {}
        processes = processes or Processes()
        rows, changed = processes.rows(), round(varied * count)
        w_plus = sample_latents(self.generator, count, seed, self.o["mixing"], (0.4, self.o["truncation"]))
        side = self.inverter.size
        decoded = [self.inverter.decode(w) for w in w_plus[rows].split(1) if len(w)]
        images = torch.cat(decoded or [w_plus.new_empty(0, 3, side, side)]).clamp(-1, 1)
        if changed:
            first = len(range(changed)[rows])
            images = torch.cat([vary(images[:first], seed, changed, rows), images[first:]])
        latents = w_plus[changed:][processes.rows(changed)]
        return {"latents": latents, "images": images, "degraded": degrade(images, seed, count, rows)}

    def _real(self, count: int, seed: int, source: torch.Generator) -> Tensor:
        """Real frames, half of them mirrored."""
        assert self.train_frames is not None
        rows = self.processes.rows(self._count()[0])
        chosen = torch.randint(len(self.train_frames), (count,), generator=source)[rows].tolist()
        flip = (torch.rand(count, generator=source) < 0.5)[rows]
        changed = (torch.rand(count, generator=source) < self.o["varied"])[rows]
        if not chosen:
            return torch.empty(0, 3, self.inverter.size, self.inverter.size)
        images = fit(self.train_frames.images(chosen), self.inverter.size)
        images = torch.where(flip[:, None, None, None], images.flip(3), images)
        return torch.where(changed[:, None, None, None], vary(images, seed, count, rows), images)

    def _squared(self, w_plus: Tensor, wanted: Tensor) -> Tensor:
        return ((w_plus - wanted) / self.spread).square()

    def _stage(self, step: int) -> int:
        if not self.e4e:
            return self.generator.rows - 1
        scheduled = stage_at(
            step, self.generator.rows, self.o["progressive_start"], self.o["progressive_every"]
        )
        return max(self.first_stage, scheduled)

    def _set_stage(self, step: int) -> int:
        stage = self._stage(step)
        if self.e4e:
            self.inverter.encoder.stage = stage  # type: ignore[assignment]
        return stage

    def training_step(self, batch: dict[str, Tensor], step: int, updater: Updater) -> dict[str, Any]:
        stage = self._set_stage(step)
        figures: dict[str, Any] = {"loss": 0.0}
        if "pool_features" in batch:
            encoder = self.inverter.encoder
            assert isinstance(encoder, SmallEncoder)
            start = self.average.expand(len(batch["pool_features"]), -1, -1, -1)
            w_plus = self.inverter.latent_avg + encoder.head(batch["pool_features"], start)
            loss = self._squared(w_plus, batch["pool_latents"]).mean() * self.o["losses"]["latent"]
            if self.e4e:
                loss = loss + self.o["losses"]["delta"] * delta_regularisation(w_plus, stage)
            updater.backward(loss)
            figures["loss"] += float(loss.detach())
            figures["pool_latent"] = float(loss.detach())
        if "images" in batch or "real" in batch:
            self._image_step(batch, stage, step, figures, updater)
        figures["norm"] = updater.step()
        return figures

    def _image_step(
        self, batch: dict[str, Tensor], stage: int, step: int, figures: dict[str, Any], updater: Updater
    ) -> None:
        weights = self.o["losses"]
        generated = self._count()[0]
        known = generated - round(self.o["varied"] * generated)
        last = len(batch["images"]) if "images" in batch else 0
        first = last - len(batch["latents"]) if "latents" in batch else 0
        inputs = torch.cat([batch[k] for k in ("degraded", "real") if k in batch])
        wanted = torch.cat([batch[k] for k in ("images", "real") if k in batch])
        w_plus = inputs
        for w_plus, estimate in self.judged.iterate(inputs):
            terms = {
                "l2": self.losses.l2(estimate, wanted),
                "lpips": self.losses.perceptual(estimate, wanted),
                "id": self.losses.same_person(estimate, wanted),
            }
            if known and weights["latent"]:
                error = self._squared(w_plus[first:last], batch["latents"])
                terms["latent"] = self.processes.mean(error, known)
            if self.e4e:
                terms["delta"] = delta_regularisation(w_plus, stage)
                if weights["adversarial"]:
                    terms["adversarial"] = self.module.adversary.encoder_term(w_plus, stage)  # type: ignore[union-attr,operator]
            loss = sum((weights[k] * v for k, v in terms.items()), torch.zeros((), device=self.device))
            updater.backward(loss)
            figures |= {k: float(v.detach()) for k, v in terms.items()}
            figures["image_loss"] = float(loss.detach())
        figures["loss"] += figures["image_loss"]
        if self.e4e and weights["adversarial"]:
            self._adversary_step(w_plus.detach(), stage, step, figures, updater)

    def _adversary_step(
        self, fake: Tensor, stage: int, step: int, figures: dict[str, Any], updater: Updater
    ) -> None:
        adversary = self.module.adversary
        assert isinstance(adversary, LatentAdversary)
        for parameter in adversary.discriminator.parameters():
            parameter.grad = None  # what the encoder's term left behind
        fake = self.processes.gather(fake, self.o["batch"])
        real = self.generator.mapping(torch.randn(len(fake), 512, device=self.device))
        terms = adversary.discriminator_terms(real, fake, stage, step, self.processes.rows())
        updater.backward(sum(terms.values(), torch.zeros((), device=self.device)))
        updater.step("adversary")
        figures |= {f"discriminator_{k}": float(v.detach()) for k, v in terms.items()}

    def validate(self) -> dict[str, float]:
        """LPIPS, L2 and identity of reconstructions; latent error of generated faces. Score: mean LPIPS."""
        count = 2 * self.o["validate_batches"]
        generated = self._generated(count, 9_000_000)
        sets = {"generated": generated["images"]}
        if self.validation_frames is not None:
            last = len(self.validation_frames) - 1
            spaced = torch.linspace(0, last, count).round().long().unique().tolist()
            sets["real"] = fit(self.validation_frames.images(spaced), self.inverter.size).to(self.device)
        figures: dict[str, float] = {}
        for name, images in sets.items():
            w_plus = self.inverter.invert(images, batch_size=4)
            if name == "generated":
                figures["latent_generated"] = float(self._squared(w_plus, generated["latents"]).mean())
            for w, image in zip(w_plus.split(4), images.split(4), strict=True):
                estimate, share = self.inverter.decode(w), len(image) / len(images)
                for key, value in {
                    "lpips": self.losses.perceptual(estimate, image),
                    "l2": self.losses.l2(estimate, image),
                    "id": self.losses.same_person(estimate, image),
                }.items():
                    figures[f"{key}_{name}"] = figures.get(f"{key}_{name}", 0.0) + float(value) * share
        scores = [v for k, v in figures.items() if k.startswith("lpips_")]
        return {"score": sum(scores) / len(scores), **figures}

    def structure(self, step: int) -> dict[str, Any]:
        """e4e's progressive stage: heads beyond it are untrained, and must stay unused."""
        return {"stage": self._stage(max(step - 1, 0))} if self.e4e else {}

    def restore(self, step: int) -> None:
        """Set e4e's progressive stage."""
        self._set_stage(max(step - 1, 0))

    def tensors(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """What the model file holds: the encoder and the latent it starts from."""
        trunk = "encoder.trunk."
        encoder = {k: v for k, v in state.items() if k.startswith("encoder.") and not k.startswith(trunk)}
        return {**encoder, "latent_avg": self.inverter.latent_avg.detach().cpu()}
