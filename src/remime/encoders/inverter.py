"""An inverter from its model file: encoder, iteration and generator put together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from remime.encoders import build_encoder
from remime.encoders.restyle import PUBLISHED, Inverter, ReStyle, SinglePass
from remime.errors import InputError
from remime.generators import load_generator
from remime.generators.base import Generator
from remime.generators.stylegan2 import is_same
from remime.models import Model, load_model

STEPS = 5  # refinements, in training and test (methods.md, Sec. 0)


def build_inverter(options: dict[str, Any], generator: Generator) -> Inverter:
    """An inverter with untrained weights (a ``small`` encoder's trunk has LPIPS' AlexNet).

    Args:
        options: ``method`` (restyle-psp, restyle-e4e, psp, e4e), ``preset`` (paper; small for ReStyle) and,
            if not the defaults, ``refinements``, ``size`` (of the encoder's input), ``stage`` (e4e: the last
            active head) and ``width`` (``small`` only).
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
    decode_at = generator.decode_resolution(size)
    if not options["method"].startswith("restyle-"):
        return SinglePass(encoder, generator, size=size, decode_resolution=decode_at)
    steps = int(options.get("refinements", STEPS))
    return ReStyle(encoder, generator, steps=steps, size=size, decode_resolution=decode_at)


def load_inverter(
    path: str | Path, generator: Generator | None = None, device: str | torch.device = "cpu"
) -> Inverter:
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


def imported_inverter(
    name: str, directory: str | Path | None, generator: Generator, generator_name: str
) -> Model:
    """An imported pSp, e4e or ReStyle checkpoint as a model of this project; its generator is left out.

    Args:
        name: what it was called by ``remime weights import``.
        directory: the folder of weights.
        generator: the one that it will be used with.
        generator_name: what that is called.

    Raises:
        InputError: it is no inverter, or one for another generator.
        WeightsError: it is not there, or damaged.
    """
    from remime import weights

    held = weights.load(name, directory)
    kind = held.meta.get("kind")
    if kind not in PUBLISHED:
        raise InputError(
            "init", f"{name!r} is {kind or 'no imported inverter'}", f"needed: {', '.join(PUBLISHED)}"
        )
    decoder = {k.removeprefix("decoder."): v for k, v in held.tensors.items() if k.startswith("decoder.")}
    if not is_same(decoder, generator):
        raise InputError(
            "init",
            f"{name!r} was trained for another generator than {generator_name!r}",
            "name the generator of its authors, or train an inverter for this one",
        )
    tensors = {k: v for k, v in held.tensors.items() if k.startswith("encoder.")}
    average = held.tensors["latent_avg"].expand(generator.rows, -1).clone()
    options = {"method": kind, "preset": "paper"}
    described = {
        "kind": "inverter",
        "method": kind,
        "preset": "paper",
        "generator": generator_name,
        "options": options,
        "imported": {"files": held.meta["sha256"], "terms": held.meta["terms"]["weights"]},
        "training": [],
    }
    return Model(tensors | {"latent_avg": average}, described)
