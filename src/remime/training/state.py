"""The resumable state of a training run: one atomic file, loaded without unpickling code."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from remime.files import atomic

_NAME = "checkpoint.pt"
_MOMENTS = ("mean", "square", "exp_avg", "exp_avg_sq")  # of Ranger and of Adam


def digest_of(*parts: Any) -> str:
    """A short digest of JSON-able values: what a state must agree on to be continued."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def save_state(directory: Path, digest: str, state: dict[str, Any]) -> None:
    """Write the state of a run; the previous one is replaced only once the new one is complete."""
    # Given a path, torch writes by itself, and does not tell a full disk from other failures.
    with atomic(directory / _NAME) as temporary, temporary.open("wb") as handle:
        torch.save({"digest": digest, **state}, handle)


def load_state(directory: Path, digest: str) -> dict[str, Any] | None:
    """The state of a run with this digest; None when it is absent, damaged, or another run's."""
    path = directory / _NAME
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    # The restricted unpickler fails on damage in ways as many as the damage.
    except Exception as error:
        print(f"{path}: cannot be read ({error}); training starts again", file=sys.stderr)
        return None
    if not isinstance(state, dict) or state.get("digest") != digest:
        print(f"{path}: belongs to other options or data; training starts again", file=sys.stderr)
        return None
    return state


def rounded_moments(optimizers: Mapping[str, Any]) -> dict[str, Any]:
    """States of optimisers with their moments in bfloat16."""
    return _moments(optimizers, torch.bfloat16)


def full_moments(optimizers: Mapping[str, Any]) -> dict[str, Any]:
    """What ``rounded_moments`` made, in float32 again; other states as they are."""
    return _moments(optimizers, torch.float32)


def _moments(optimizers: Mapping[str, Any], kind: torch.dtype) -> dict[str, Any]:
    def of_parameter(state: Mapping[str, Any]) -> dict[str, Any]:
        return {k: v.to(kind) if k in _MOMENTS else v for k, v in state.items()}

    return {
        name: {**saved, "state": {i: of_parameter(state) for i, state in saved["state"].items()}}
        for name, saved in optimizers.items()
    }
