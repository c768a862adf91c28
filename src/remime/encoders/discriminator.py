"""The latent discriminator of e4e, which keeps encoded rows near the distribution of W (Tov et al. 2021)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH = 512


class LatentDiscriminator(nn.Module):
    """MLP 512 → 512 → 512 → 512 → 1 with leaky ReLU 0.2: latents [..., 512] → logits [...]."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(3):
            layers += [nn.Linear(WIDTH, WIDTH), nn.LeakyReLU(0.2)]
        self.mlp = nn.Sequential(*layers, nn.Linear(WIDTH, 1))

    def forward(self, w: Tensor) -> Tensor:
        return self.mlp(w).squeeze(-1)


class LatentPool(nn.Module):
    """A history of latents: half of what is asked for comes from it, swapped for the new ones.

    Draws come from the global CPU generator of torch, so that a run that restores it repeats exactly.
    The contents are buffers and part of the state dict.
    """

    latents: Tensor
    count: Tensor

    def __init__(self, size: int = 50):
        super().__init__()
        self.register_buffer("latents", torch.zeros(size, WIDTH))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def query(self, w: Tensor) -> Tensor:
        """Put w [B, 512] in and get [B, 512]: each latent as it is, or, when the pool is full, half of
        the time the stored one whose place it takes."""
        out = w.detach().clone()
        size, filled = len(self.latents), int(self.count)
        for i in range(len(out)):
            if filled < size:
                self.latents[filled] = out[i]
                filled += 1
            elif torch.rand(()) > 0.5:
                slot = int(torch.randint(size, ()))
                out[i], self.latents[slot] = self.latents[slot].clone(), out[i].clone()
        self.count.fill_(filled)
        return out


class LatentAdversary(nn.Module):
    """The discriminator with its pools: the adversarial term of the encoder and the discriminator's own loss.

    Its optimiser in e4e is Adam with lr 2e-5 on `discriminator.parameters()`.

    Args:
        pool: latents that each pool keeps.
        r1_gamma: weight γ of R1 (Mescheder et al. 2018).
        r1_every: steps between R1 terms, which are multiplied by it in turn.
    """

    def __init__(self, pool: int = 50, r1_gamma: float = 10.0, r1_every: int = 16):
        super().__init__()
        self.discriminator = LatentDiscriminator()
        self.real_pool, self.fake_pool = LatentPool(pool), LatentPool(pool)
        self.r1_gamma, self.r1_every = r1_gamma, r1_every

    def encoder_term(self, w_plus: Tensor, stage: int) -> Tensor:
        """Mean softplus(-D) over the active rows 0 … stage of encoded W+ [B, rows, 512]."""
        return F.softplus(-self.discriminator(w_plus[:, : stage + 1])).mean()

    def discriminator_terms(
        self, real: Tensor, fake: Tensor, stage: int, step: int, rows: slice = slice(None)
    ) -> dict[str, Tensor]:
        """Losses whose sum the discriminator minimises: `adversarial`, and on every r1_every-th step `r1`.

        Args:
            real: samples of W [B, 512] from the mapping network.
            fake: encoded W+ [B, rows, 512]; one active row of each is used.
            stage: last active row.
            step: training step, from 0.
            rows: of the batch, to compute the losses of; all of it goes through the pools.
        """
        row = torch.randint(stage + 1, (len(fake),)).to(fake.device)
        fake = self.fake_pool.query(fake[torch.arange(len(fake), device=fake.device), row])
        real, fake = self.real_pool.query(real)[rows], fake[rows]
        terms = {
            "adversarial": F.softplus(-self.discriminator(real)).mean()
            + F.softplus(self.discriminator(fake)).mean()
        }
        if step % self.r1_every == 0:
            terms["r1"] = self.r1_gamma / 2 * self.r1_every * r1_penalty(self.discriminator, real)
        return terms


def r1_penalty(discriminator: nn.Module, real: Tensor) -> Tensor:
    """Mean over the batch of ‖∇D(w)‖² at real latents [B, 512], differentiable in the discriminator."""
    real = real.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(discriminator(real).sum(), real, create_graph=True)
    return gradient.square().sum(1).mean()
