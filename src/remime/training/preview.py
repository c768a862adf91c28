"""Fast low-resolution decodes of the mobile generator, for training and previews.

The exported network has one output, at 1024². A preview head reads the features of half its own resolution
and predicts the wavelet coefficients of the downsampled full image. It is trained against the full output
itself, so it needs no data.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from remime.generators.mobile import BLOCKS, MobileGenerator, PreviewHead
from remime.training.generated import sample_latents
from remime.training.loop import Task, Updater
from remime.training.processes import Processes

VALIDATION_IMAGES = 16
VALIDATION_SEED = 7_000_000


class PreviewTask(Task):
    """Fit preview heads to the downsampled full output: L1 plus L1 of the image at a quarter of its size."""

    def __init__(
        self,
        generator: MobileGenerator,
        resolutions: list[int],
        batch: int,
        lr: float,
        seed: int,
        processes: Processes | None = None,
    ) -> None:
        self.processes = processes or Processes()
        self.processes.check("batch", batch)
        self.generator = generator
        self.heads = {r: PreviewHead.for_resolution(r) for r in resolutions}
        self.module = nn.ModuleDict({str(r): head for r, head in self.heads.items()})
        self.module.to(generator.mean_latent.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizers = {"main": torch.optim.Adam(self.module.parameters(), lr)}
        self.size, self.seed = batch, seed

    def batch(self, step: int) -> Tensor:
        """Latents [B,rows,512]."""
        latents = sample_latents(self.generator, self.size, self.seed + step, mixing=0.3)
        return latents[self.processes.rows()]

    @torch.no_grad()
    def _targets(self, w_plus: Tensor) -> tuple[dict[int, tuple[Tensor, Tensor]], Tensor]:
        """Features and head styles' row for every resolution, and full images [B,3,1024,1024]."""
        styles = self.generator.styles(w_plus)
        x = self.generator.start(styles)
        inputs = {}
        for k in range(BLOCKS):
            x = self.generator.block(k, x, styles)
            resolution = 16 << k
            if resolution in self.heads:
                inputs[resolution] = (x, w_plus[:, 2 * k + 2])
        return inputs, self.generator.to_img(x, styles[-1]).clamp(-1, 1)

    def _errors(self, w_plus: Tensor) -> dict[int, tuple[Tensor, Tensor]]:
        inputs, full = self._targets(w_plus)
        return {
            r: (self.heads[r](x, row), F.avg_pool2d(full, full.shape[-1] // r))
            for r, (x, row) in inputs.items()
        }

    def training_step(self, batch: Tensor, step: int, updater: Updater) -> dict[str, Any]:
        figures: dict[str, Any] = {}
        for image in batch.split(1):
            for r, (out, target) in self._errors(image).items():
                difference = out - target
                loss = difference.abs().mean() + F.avg_pool2d(difference, 4).abs().mean()
                updater.backward(loss / len(batch))
                figures[f"l1_{r}"] = figures.get(f"l1_{r}", 0.0) + float(
                    difference.detach().abs().mean()
                ) / len(batch)
        updater.step()
        return {"loss": sum(figures.values()), **figures}

    def validate(self) -> dict[str, float]:
        """PSNR in dB of each preview against the downsampled full output, both clamped to [-1, 1]."""
        squared: dict[int, list[float]] = {}
        for w_plus in sample_latents(self.generator, VALIDATION_IMAGES, VALIDATION_SEED).split(1):
            for r, (out, target) in self._errors(w_plus).items():
                squared.setdefault(r, []).append(float((out.clamp(-1, 1) - target).square().mean()))
        mse = {r: sum(v) / len(v) for r, v in squared.items()}
        psnr = {f"psnr_{r}": 10 * float(torch.log10(torch.tensor(4 / v))) for r, v in mse.items()}
        return {"score": sum(mse.values()), **psnr}
