"""Running the command line inside of the tests, and files that only tell what they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from remime.cli import execute
from remime.models import save_model


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def remime(capfd: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """``remime("reenact", "--driving", ...)``; fails on a traceback."""

    def run(*arguments: object) -> Ended:
        capfd.readouterr()
        code = execute([str(argument) for argument in arguments])
        ended = Ended(code, *capfd.readouterr())
        assert "Traceback" not in ended.err
        return ended

    return run


def describe(path: Path, kind: str, method: str, generator: str = "mobile-ffhq") -> Path:
    """A model file that says what it is, and holds nothing."""
    meta = {"kind": kind, "method": method, "preset": "small", "generator": generator}
    save_model(path, {"nothing": torch.zeros(1)}, {**meta, "options": {"method": method, "preset": "small"}})
    return path


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of shipped models that are only described."""
    folder = tmp_path / "models"
    describe(folder / "restyle-psp-small.safetensors", "inverter", "restyle-psp")
    describe(folder / "mapping-small.safetensors", "method", "mapping")
    monkeypatch.setenv("REMIME_MODELS", str(folder))
    return folder
