"""Reenactment methods behind one interface."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from remime.catalogue import EMBEDDED
from remime.errors import InputError
from remime.generators.base import Generator
from remime.generators.stylegan2 import is_same
from remime.layout import APART, taken_apart
from remime.methods.base import Driving, Identity, Method
from remime.models import Model

__all__ = ["METHODS", "Driving", "Identity", "Method", "build_method", "imported_method", "load_method"]

METHODS = ("linear", "mapping")
# Parameters that stay when expressions are scaled: by these, people differ little (docs/experiments.md).
_KEPT = ("yaw", "pitch", "eyeBlinkLeft", "eyeBlinkRight")


def build_method(options: dict[str, Any], generator: Generator) -> Method:
    """A method with untrained weights.

    Args:
        options: ``method`` and what it has: ``strength``; of a mapping also ``expression_strength``,
            ``relative_expression``, ``preset``, ``width``, ``components``, ``correction``.
        generator: for the number of rows.

    Raises:
        InputError: there is no such method or preset.
    """
    name, strength = options["method"], float(options.get("strength", 1.0))
    if name == "linear":
        from remime.methods.linear import Linear

        return Linear(strength)
    if name == "mapping":
        from remime.methods.mapping import Mapping, MeshMotionEncoder

        sizes = {k: int(options[k]) for k in ("width", "components", "correction") if k in options}
        method = Mapping(
            generator.rows,
            options.get("preset", "paper"),
            strength=strength,
            expression_strength=float(options.get("expression_strength", 1.0)),
            relative_expression=float(options.get("relative_expression", 0.0)),
            **sizes,
        )
        if isinstance(method.motion_encoder, MeshMotionEncoder):
            from remime.faces.mesh import load_mesh

            method.motion_encoder.attach(load_mesh().requires_grad_(False))
        return method
    raise InputError("method", f"unknown method {name!r}", f"allowed: {', '.join(METHODS)}")


def load_method(
    options: dict[str, Any],
    path: str | Path | None,
    generator: Generator,
    device: str | torch.device = "cpu",
) -> Method:
    """A method ready to drive.

    Args:
        options: as for ``build_method``; those in the model file come first.
        path: its model file; None for methods without one.
        generator: the variant ``gen`` has one in its file, whose weights replace these in place.
        device: where to put the method.

    Raises:
        InputError: the file cannot be read, or is not a method's of this version, or nobody knows what turns
            a head of its generator.
    """
    if path is None:
        return build_method(options, generator).eval().requires_grad_(False).to(device)
    from remime.models import load_model

    model = load_model(path, "method")
    method = build_method({**options, **model.meta["options"]}, generator)
    own = {k.removeprefix("method."): v for k, v in model.tensors.items() if k.startswith("method.")}
    try:
        method.load_state_dict(own)
    except RuntimeError as error:
        raise InputError(
            path,
            "its tensors do not fit this version's networks",
            "train it again with this version, or take the one that this version ships",
        ) from error
    tuned = {
        k.removeprefix("generator."): v
        for k, v in model.tensors.items()
        # Previews, in files of earlier versions, were not trained along.
        if k.startswith("generator.") and not k.startswith("generator.previews.")
    }
    if tuned:
        generator.drop_previews()
        generator.load_state_dict({**generator.state_dict(), **tuned})
    # By the generator that shows the targets, too.
    _take_apart(method, model.meta.get("generator", EMBEDDED), generator)
    return method.eval().requires_grad_(False).to(device)


def _take_apart(method: Method, name: str, generator: Generator) -> None:
    """Tell turns of the head, expressions and what a face rests at apart, where options ask for it."""
    from remime.methods.mapping import SIZE, DirectionMap, Mapping

    if not isinstance(method, Mapping):
        return
    strength, relative = method.expression_strength, method.relative_expression
    asked = taken_apart({"expression_strength": strength, "relative_expression": relative})
    if not asked:
        return
    from remime.methods.resting import RESTS
    from remime.sources.directions import load_directions

    key, value = next(iter(asked.items()))
    fix = f"leave it at {APART[key]}; strength scales all of the motion"
    if name != EMBEDDED:
        raise InputError(
            key,
            f"is {value:g}, but what turns a head is known of {EMBEDDED!r} alone, not of {name!r}",
            fix,
        )
    assert isinstance(method.map, DirectionMap)
    if method.map.correction is not None:
        raise InputError(key, f"is {value:g}, but a mapping with a correction cannot be taken apart", fix)
    directions = load_directions()
    kept = [directions.column(parameter) for parameter in _KEPT]
    rests = {directions.column(parameter): rest for parameter, rest in RESTS.items()} if relative else {}
    method.map.take_apart(torch.from_numpy(directions.steps), kept, strength, rests)
    if method.map.resting is not None:
        # The generator's mean face rests as faces usually do.
        mean = generator.broadcast(generator.mean_latent[None])
        size = generator.decode_resolution(SIZE)
        with torch.no_grad():
            face = generator.synthesize(mean, resolution=size).clamp(-1, 1).cpu()
            method.map.resting.usual = method.observe(face)[0]


def imported_method(
    name: str, directory: str | Path | None, generator: Generator, generator_name: str
) -> Model:
    """P1's published checkpoint as a model of this project.

    The generator in the file is left out where it is the given one, and kept where it was trained along (the
    variant ``gen``).

    Args:
        name: what it was called by ``remime weights import``.
        directory: the folder of weights.
        generator: the one that it will be used with.
        generator_name: what that is called.

    Raises:
        InputError: it is another kind of file, or one for another size of W+.
        WeightsError: it is not there, or damaged.
    """
    from remime import weights

    held = weights.load(name, directory)
    if held.meta.get("kind") != "mapping":
        raise InputError("init", f"{name!r} is {held.meta.get('kind', 'not imported')}", "needed: mapping")
    decoder = {k.removeprefix("decoder."): v for k, v in held.tensors.items() if k.startswith("decoder.")}
    own = {k: v.shape for k, v in generator.state_dict().items() if k != "mean_latent"}
    if {k: v.shape for k, v in decoder.items()} != own:
        raise InputError(
            "init",
            f"{name!r} was trained for another generator than {generator_name!r}",
            "name the generator of its authors, or train a mapping for this one",
        )
    tensors = {f"method.{k}": v for k, v in held.tensors.items() if not k.startswith("decoder.")}
    tuned = not is_same(decoder, generator)
    if tuned:
        tensors |= {f"generator.{k}": v for k, v in decoder.items()}
    variant = "gen" if tuned else "ours"
    described = {
        "kind": "method",
        "method": "mapping",
        "preset": "paper",
        "generator": generator_name,
        "options": {"method": "mapping", "preset": "paper", "variant": variant},
        "imported": {"files": held.meta["sha256"], "terms": held.meta["terms"]["weights"]},
        "training": [],
    }
    return Model(tensors, described)
