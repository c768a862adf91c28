"""Checkpoints of pSp, e4e and ReStyle: which of the encoders they hold, and whether it fits our network."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from remime.weights import stylegan2
from remime.weights.kinds import KINDS, PSP_FAMILY, Recognised, counted, options_of, state_of


def psp_family(content: Mapping[str, Any], wanted: str | None) -> Recognised:
    options = options_of(content.get("opts"))["options"]
    state = state_of({k: v for k, v in content["state_dict"].items() if isinstance(v, Tensor)})
    kind = KINDS[_encoder_kind(state, options, wanted)]
    decoder = {k.removeprefix("decoder."): v for k, v in state.items() if k.startswith("decoder.")}
    average = content.get("latent_avg")
    if isinstance(average, Tensor):
        decoder["latent_avg"] = average
    # ReStyle always starts from the mean; pSp and e4e say whether they do.
    if not kind.name.startswith("restyle-") and options.get("start_from_latent_avg") is False:
        raise ValueError(
            "its opts say start_from_latent_avg: false; only offsets from the mean are supported"
        )
    generator, notes = stylegan2.complete(decoder)
    encoder = {k.removeprefix("encoder."): v for k, v in state.items() if k.startswith("encoder.")}
    fingerprint = stylegan2.fingerprint(generator)
    encoder = check_encoder(kind.name, encoder, rows_of(generator))
    mean = generator.pop("mean_latent")
    tensors = {f"encoder.{k}": v for k, v in encoder.items()} | {
        f"decoder.{k}": v for k, v in generator.items()
    }
    meta = {"notes": notes, "options": options, "fingerprint": fingerprint}
    return Recognised(kind, tensors | {"latent_avg": mean}, meta)


def rows_of(generator: Mapping[str, Tensor]) -> int:
    """Rows of W+ of a complete generator."""
    return 2 * len([k for k in generator if re.fullmatch(r"to_rgbs\.\d+\.bias", k)]) + 2


def _encoder_kind(state: Mapping[str, Tensor], options: Mapping[str, Any], wanted: str | None) -> str:
    """Which of the four it is: two and two have the same names, so the options or the user must tell."""
    if "encoder.latlayer1.weight" in state:
        candidates = ("psp", "e4e")
    elif "encoder.input_layer.0.weight" in state:
        candidates = ("restyle-psp", "restyle-e4e")
    else:
        told = options.get("encoder_type", "unknown")
        raise ValueError(f"its encoder ({told}) has no IR-SE50 trunk, which the encoders of faces have")
    encoder = options.get("encoder_type")
    if encoder is not None and encoder not in PSP_FAMILY:
        raise ValueError(f"its encoder_type is {encoder!r}; supported are {', '.join(PSP_FAMILY)}")
    found = wanted or (PSP_FAMILY[encoder] if encoder is not None else None)
    if found is None:
        raise ValueError(
            f"it is a checkpoint of {' or '.join(candidates)}, but has no opts that tell which: "
            f"add --kind {candidates[0]} or --kind {candidates[1]}"
        )
    if found not in candidates:
        raise ValueError(f"it has the names of {' or '.join(candidates)}, not of {found}")
    return found


def check_encoder(kind: str, encoder: Mapping[str, Tensor], rows: int) -> dict[str, Tensor]:
    from remime.encoders import build_encoder

    with torch.device("meta"):
        expected = build_encoder(kind, "paper", rows).state_dict()
    if problems := stylegan2.misfits(expected, encoder):
        raise ValueError(f"its encoder is not that of {kind} for {rows} rows: {stylegan2.listed(problems)}")
    return counted(expected, encoder)
