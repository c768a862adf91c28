"""What a made video tells about itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from remime.files import sha256
from remime.layout import APART, taken_apart
from remime.versions import __version__


def digests(options: Mapping[str, Any], inverter: Path, model: Path | None) -> dict[str, str]:
    """The sha256 of all model files that a video depends on.

    Args:
        options: the method's, as of ``provenance``.
        inverter: the inverter's file.
        model: the method's file; None for methods without one.
    """
    found = {"inverter": sha256(inverter), "model": sha256(model) if model is not None else ""}
    if taken_apart(options):
        from remime.models import shipped

        found["directions"] = sha256(shipped("puppet-directions"))
    return found


def provenance(options: Mapping[str, Any], weights: Mapping[str, str]) -> dict[str, Any]:
    """What every video says: that it is synthetic, what made it, and how.

    Args:
        options: ``method``, ``generator``, ``optimise``, and how far the target follows.
        weights: from ``digests``.
    """
    return {
        "made_by": f"remime {__version__}",
        "synthetic": "the face in this video was generated",
        "method": options["method"],
        "generator": options["generator"],
        "optimise": options["optimise"],
        "strength": options.get("strength", 1.0),
        **{key: options.get(key, float(usual)) for key, usual in APART.items()},
        "weights": dict(weights),
    }
