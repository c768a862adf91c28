"""Networks that map images to W+ latents."""

from __future__ import annotations

from typing import Any

from torch import nn

from remime.errors import InputError

KINDS = ("psp", "e4e", "restyle-psp", "restyle-e4e")
PRESETS = ("paper", "small")


def build_encoder(kind: str, preset: str, rows: int, **options: Any) -> nn.Module:
    """An encoder with random weights: [B, C, size, size] in [-1, 1] → W+ offsets [B, rows, 512].

    C is 6 (image ⊕ current reconstruction) for the `restyle-` kinds and 3 for the others.

    Args:
        kind: one of `KINDS`.
        preset: "paper" (IR-SE50 as published, size 256) or "small" (`remime.encoders.small`).
        rows: rows of W+, `generator.rows`.
        options: only for "small"; "paper" has none.

    Raises:
        InputError: unknown kind or preset, or an option that the preset does not have.
    """
    if kind not in KINDS:
        raise InputError("encoder kind", f"got {kind!r}", f"allowed: {', '.join(KINDS)}")
    if preset == "small":
        from remime.encoders.small import build

        return build(kind, rows, **options)
    if preset != "paper":
        raise InputError("encoder preset", f"got {preset!r}", f"allowed: {', '.join(PRESETS)}")
    if options:
        raise InputError("encoder options", f"preset 'paper' has none, got {sorted(options)}", "remove them")
    from remime.encoders.restyle import PUBLISHED

    return PUBLISHED[kind](rows, 6 if kind.startswith("restyle-") else 3)
