"""An inverter from its model file: encoder, iteration and generator put together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from remime.encoders import build_encoder
from remime.encoders.restyle import ReStyle
from remime.errors import InputError
from remime.generators import load_generator
from remime.generators.base import Generator
from remime.models import load_model

STEPS = 5  # refinements, in training and test (methods.md, Sec. 0)


def decode_resolution(generator: Generator, size: int) -> int:
    """The cheapest resolution of a generator that is not smaller than ``size``."""
    return next((r for r in generator.resolutions if r >= size), generator.resolution)


def build_inverter(options: dict[str, Any], generator: Generator) -> ReStyle:
    """An inverter with untrained weights (a ``small`` encoder's trunk has LPIPS' AlexNet).

    Args:
        options: ``method`` (restyle-psp, restyle-e4e), ``preset`` (paper, small) and, if not the defaults,
            ``refinements``, ``size`` (of the encoder's input), ``stage`` (e4e: the last active head) and
            ``width`` (``small`` only).
        generator: decodes between the steps.
    """
    preset, size = options["preset"], int(options.get("size", 256))
    extra = {k: options[k] for k in ("width", "spread", "rank") if preset == "small" and k in options}
    encoder = build_encoder(options["method"], preset, generator.rows, **extra)
    if "stage" in options:
        encoder.stage = int(options["stage"])  # type: ignore[assignment]
    if preset == "small":
        from remime import weights

        trunk = {k: v for k, v in weights.load("lpips-alex").tensors.items() if k.startswith("convolutions.")}
        encoder.trunk.net.load_state_dict(trunk)  # type: ignore[union-attr]
    return ReStyle(
        encoder,
        generator,
        steps=int(options.get("refinements", STEPS)),
        size=size,
        decode_resolution=decode_resolution(generator, size),
    )


def load_inverter(
    path: str | Path, generator: Generator | None = None, device: str | torch.device = "cpu"
) -> ReStyle:
    """A trained inverter, frozen, in evaluation mode.

    Args:
        path: its model file.
        generator: used instead of loading the one that the file names.
        device: where to put it.

    Raises:
        InputError: the file is not an inverter's, or not one for this generator.
    """
    model = load_model(path, "inverter")
    generator = generator or load_generator(model.meta["generator"])
    inverter = build_inverter(model.meta["options"], generator)
    # The generator has its own file, and so has the trunk of a `small` encoder.
    elsewhere = {
        k: v for k, v in inverter.state_dict().items() if k.startswith(("generator.", "encoder.trunk."))
    }
    try:
        inverter.load_state_dict({**elsewhere, **model.tensors})
    except RuntimeError as error:
        raise InputError(path, f"does not fit its own description ({error})", "train it again") from None
    return inverter.eval().requires_grad_(False).to(device)
