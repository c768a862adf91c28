"""Models that the papers' authors published: P1's mapping, P2's directions and inversion encoder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from remime.generators.stylegan2 import LATENT
from remime.weights import stylegan2
from remime.weights.kinds import KINDS, Recognised, counted, options_of, state_of
from remime.weights.psp import check_encoder, rows_of


def mapping(content: Mapping[str, Any]) -> Recognised:
    """P1's published model: E_m (``encoder.``), M (``mapping_net.``) and the generator behind them."""
    from remime.encoders.motion import MotionEncoder

    state = state_of({k: v for k, v in content["state_dict"].items() if isinstance(v, Tensor)})
    parts = {
        part: {k.removeprefix(part): v for k, v in state.items() if k.startswith(part)}
        for part in ("encoder.", "mapping_net.", "decoder.")
    }
    # A mapping has no use for the mean latent; without one it would be estimated.
    generator, notes = stylegan2.complete(parts["decoder."] | {"latent_avg": torch.zeros(LATENT)})
    del generator["mean_latent"]
    rows = rows_of(generator)
    with torch.device("meta"):
        expected = MotionEncoder(rows).state_dict()
        size = rows * LATENT
        linear = {
            "linear_relu.0.weight": torch.empty(size, 2 * size),
            "linear_relu.0.bias": torch.empty(size),
        }
    problems = [f"encoder.{problem}" for problem in stylegan2.misfits(expected, parts["encoder."])]
    problems += [f"mapping_net.{problem}" for problem in stylegan2.misfits(linear, parts["mapping_net."])]
    problems += [f"{k} is unknown" for k in state if not k.startswith(tuple(parts))]
    if problems:
        raise ValueError(f"it is not P1's mapping for {rows} rows: {stylegan2.listed(problems)}")
    encoder = counted(expected, parts["encoder."])
    tensors = {f"motion_encoder.{k}": v for k, v in encoder.items()}
    tensors |= {f"map.{k}": v.float() for k, v in parts["mapping_net."].items()}
    tensors |= {f"decoder.{k}": v for k, v in generator.items()}
    meta = {"notes": notes, "fingerprint": stylegan2.fingerprint(generator)} | options_of(content.get("opts"))
    return Recognised(KINDS["mapping"], tensors, meta)


_ANGLES = ("yaw", "pitch", "roll", "jaw")


def directions(content: Mapping[str, Any]) -> Recognised:
    """P2's ``A_matrix.pt``: one linear layer from the change of pose and expression to offsets of W+."""
    state = state_of(content["A_matrix"])
    plain = options_of(content)["options"]
    count, rows = plain.get("learned_directions"), plain.get("num_layers_shift")
    if not isinstance(count, int) or not isinstance(rows, int) or plain.get("w_plus") is not True:
        raise ValueError(
            "it is a direction matrix without learned_directions, num_layers_shift and w_plus: true"
        )
    if not len(_ANGLES) <= count <= 512 or not 1 <= rows <= 18 or plain.get("shift_dim", LATENT) != LATENT:
        raise ValueError(f"it is a direction matrix of {count} directions and {rows} rows, which is not P2's")
    with torch.device("meta"):
        expected = torch.nn.Linear(count, rows * LATENT).state_dict(prefix="linear.")
    if problems := stylegan2.misfits(expected, state):
        raise ValueError(f"it is not P2's direction matrix: {stylegan2.listed(problems)}")
    names = [*_ANGLES, *(f"expression-{i}" for i in range(count - len(_ANGLES)))]
    tensors = {
        "directions": state["linear.weight"].float().T.unflatten(1, (rows, LATENT)),
        "bias": state["linear.bias"].float().unflatten(0, (rows, LATENT)),
    }
    return Recognised(KINDS["directions"], tensors, {"notes": [], "options": plain, "parameters": names})


def directions_encoder(encoder: Mapping[str, Any]) -> Recognised:
    """P2's inversion encoder, which comes without a generator and a mean latent: w = E(image)."""
    state = state_of(encoder)
    rows = 1 + max(
        (int(m.group(1)) for k in state if (m := re.fullmatch(r"styles\.(\d{1,3})\.linear\.bias", k))),
        default=-1,
    )
    state = check_encoder("e4e", state, rows)
    note = "it gives W+ itself, not an offset from the mean latent"
    return Recognised(
        KINDS["directions-e4e"], {f"encoder.{k}": v for k, v in state.items()}, {"notes": [note]}
    )
