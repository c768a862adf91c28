"""The Makefile: the environment is made when it is missing, and what is missing for it is said."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.workflow.project import ROOT

FILES = ("Makefile", "pyproject.toml", "constraints.txt")
# An interpreter whose first argument fails where it contains a word.
FAKE = '#!/bin/sh\necho "$@" >> calls\ncase "$*" in *{word}*) exit 1;; esac\n'


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    return subprocess.run(
        ["make", *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The Makefile and what it reads, without an environment."""
    if shutil.which("make") is None:
        pytest.skip("no make")
    for name in FILES:
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def fake(folder: Path, word: str) -> str:
    path = folder / "python-fake"
    path.write_text(FAKE.format(word=word))
    path.chmod(0o755)
    return f"PYTHON={path}"


@pytest.mark.parametrize(
    ("word", "message"),
    [("version_info", "Python 3.11 or 3.12 is needed"), ("ensurepip", "on Debian: apt install python3-venv")],
)
def test_what_is_missing_is_said(folder: Path, word: str, message: str) -> None:
    done = make(folder, "environment", fake(folder, word))
    assert done.returncode != 0
    assert message in done.stderr
    assert not (folder / ".venv").exists()


def test_torch_is_installed_first_and_only_once(folder: Path) -> None:
    interpreter = folder / ".venv" / "bin" / "python"
    interpreter.parent.mkdir(parents=True)
    interpreter.write_text(FAKE.format(word="nothing"))
    interpreter.chmod(0o755)
    for _ in range(2):
        assert make(folder, "environment", fake(folder, "nothing")).returncode == 0
    installs = [line for line in (folder / "calls").read_text().splitlines() if "pip install" in line]
    assert [line.split()[-1] for line in installs] == ["torch", ".[dev,slurm,download]"]
    with (folder / "pyproject.toml").open("a") as handle:
        handle.write("\n")
    assert make(folder, "environment", fake(folder, "nothing")).returncode == 0
    assert (folder / "calls").read_text().count("pip install") == 4


@pytest.mark.parametrize(
    "target", ["run", "report", "test", "test-slurm", "test-chaos", "lint", "train-models", "unlock", "clean"]
)
def test_every_target_can_be_planned(folder: Path, target: str) -> None:
    done = make(folder, "--dry-run", target, "ARGS=--own-argument")
    assert done.returncode == 0, done.stderr
    assert ("--own-argument" in done.stdout) == (
        target in ("run", "report", "test", "test-slurm", "test-chaos")
    )


def test_ci_runs_linters_and_tests() -> None:
    text = (ROOT / ".ci/run").read_text()
    assert os.access(ROOT / ".ci/run", os.X_OK)
    assert text.index("make lint") < text.index("make test")
