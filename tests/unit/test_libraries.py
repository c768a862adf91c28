"""Jobs that run with other libraries than their workflow was started with."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from remime.errors import RemimeError
from remime.libraries import ALLOWED, FILE, check, forget, libraries, record


def other(path: Path, **versions: str) -> None:
    """Pretend that the workflow was started elsewhere with other versions."""
    noted = json.loads(path.read_text())
    noted["libraries"] |= versions
    path.write_text(json.dumps(noted | {"host": "login"}))


def test_versions_are_those_that_are_imported() -> None:
    found = libraries()
    assert found["numpy"] == np.__version__
    assert found["python"] == "{}.{}".format(*sys.version_info)
    assert {"torch", "h5py", "snakemake", "remime"} <= set(found)
    assert not {"pytest", "ruff"} & set(found), "tools of developers change no result"
    assert not any("+" in version for version in found.values())


def test_the_same_libraries_pass_and_others_are_named(tmp_path: Path) -> None:
    path = tmp_path / "results/libraries.json"
    check(path, {})
    record(path)
    check(path, {})
    other(path, torch="1.0", h5py="2.0")
    with pytest.raises(RemimeError) as caught:
        check(path, {})
    for part in ("instead of 1.0", "instead of 2.0", "torch", "h5py", "login", ALLOWED):
        assert part in str(caught.value)
    check(path, {ALLOWED: "1"})
    forget(path)
    check(path, {})


def test_what_is_missing_here_is_left_to_its_import(tmp_path: Path) -> None:
    record(tmp_path / "noted.json")
    other(tmp_path / "noted.json", **{"a-package-of-no-name": "1.0"})
    check(tmp_path / "noted.json", {})


def test_a_stage_refuses_before_it_does_anything(tmp_path: Path) -> None:
    record(tmp_path / FILE)
    other(tmp_path / FILE, numpy="1.0")
    done = subprocess.run(
        [sys.executable, "-m", "remime.stages.split", "--no-such-option"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert f"numpy {np.__version__} instead of 1.0" in done.stderr
    assert "usage" not in done.stderr
