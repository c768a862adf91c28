"""The papers' optimiser."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class Ranger(Optimizer):
    """RAdam (Liu et al. 2020) + Lookahead (Zhang et al. 2019) + gradient centralisation (Yong et al. 2020).

    Every parameter counts its own steps from its first gradient on, so that heads which join late (e4e's
    progressive stages) are bias-corrected like the others. While the second moment cannot be rectified (the
    first 5 steps at β₂ = 0.999) the step is momentum alone, as in RAdam's Algorithm 2. The state dict holds
    all state: a restored run repeats exactly.

    Args:
        params: parameters or parameter groups.
        lr: step size.
        betas: decay of the first and the second moment.
        eps: added to the root of the second moment.
        alpha: how far the slow weights move to the fast ones (Lookahead).
        k: steps between such moves.
        weight_decay: decoupled weight decay.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.95, 0.999),
        eps: float = 1e-5,
        alpha: float = 0.5,
        k: int = 6,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "alpha": alpha,
            "k": k,
            "weight_decay": weight_decay,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; returns the closure's loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)
        return loss

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = 0
            state["mean"] = torch.zeros_like(parameter)
            state["square"] = torch.zeros_like(parameter)
            state["slow"] = parameter.clone()
        state["step"] += 1
        beta1, beta2 = group["betas"]
        if gradient.ndim > 1:
            gradient = gradient - gradient.mean(tuple(range(1, gradient.ndim)), keepdim=True)
        state["mean"].mul_(beta1).add_(gradient, alpha=1 - beta1)
        state["square"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)

        if group["weight_decay"]:
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
        size = group["lr"] / (1 - beta1 ** state["step"])
        rectification = rectify(state["step"], beta2)
        if rectification is None:
            parameter.add_(state["mean"], alpha=-size)
        else:
            root = state["square"].sqrt().add_(group["eps"])
            parameter.addcdiv_(state["mean"], root, value=-size * rectification)
        if state["step"] % group["k"] == 0:
            state["slow"].lerp_(parameter, group["alpha"])
            parameter.copy_(state["slow"])


def rectify(step: int, beta2: float) -> float | None:
    """RAdam's factor with the second moment's bias correction; None while the variance is intractable.

    Liu et al. 2020, Algorithm 2, with the threshold 5 of the authors' code instead of 4.
    """
    limit = 2 / (1 - beta2) - 1
    decay = beta2**step
    length = limit - 2 * step * decay / (1 - decay)
    if length <= 5:
        return None
    ratio = (length - 4) * (length - 2) * limit / ((limit - 4) * (limit - 2) * length)
    return math.sqrt((1 - decay) * ratio)
