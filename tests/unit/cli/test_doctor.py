"""``remime doctor`` and the frame around all commands."""

import json
import subprocess
import sys

import imageio_ffmpeg
import pytest

from remime import cli
from remime.cli import doctor, networks
from remime.cli import weights as cli_weights
from remime.cli.weights import Found
from remime.versions import __version__
from tests.unit.cli.conftest import describe


@pytest.fixture
def healthy(models, monkeypatch):
    """A machine on which everything is there."""
    for name in doctor.MODELS:
        describe(models / f"{name}.safetensors", "inverter", "x")
    found = [
        Found(name, "role", "verified", "", ["reenact"], "permissive", "MIT", "MIT") for name in ("a", "b")
    ]
    found.append(Found("c", "role", "missing", "", [], "unknown", "none stated", ""))
    monkeypatch.setattr(cli_weights, "inspect_all", lambda names, deep: found)


def test_a_healthy_machine(remime, healthy):
    code, out, err = remime("doctor", "--json")
    report = json.loads(out)
    assert (code, report["ok"], report["problems"], err) == (0, True, [], "")
    assert report["versions"]["remime"] == __version__
    assert report["ffmpeg"]["libx264"] is True
    assert report["devices"]["threads"] >= 1
    assert [row["state"] for row in report["models"]] == ["present"] * len(doctor.MODELS)
    assert {row["name"]: row["terms"] for row in report["weights"]["networks"]}["c"] == "unknown"
    assert report["disk"]["here"]["free_gib"] > 0
    code, out, _ = remime("doctor")
    assert code == 0
    assert "a default run can work" in out


def test_what_is_missing_comes_with_what_to_do(remime, tmp_path, monkeypatch):
    monkeypatch.setenv("REMIME_WEIGHTS", str(tmp_path))
    monkeypatch.setattr("remime.models.shipped", _no_model)
    code, out, _ = remime("doctor", "--json")
    assert code == 1
    report = json.loads(out)
    fixes = {each["fix"] for each in report["problems"]}
    assert {f"remime weights fetch {name}" for name in networks.defaults()} <= fixes
    assert not any("lpips-vgg" in fix for fix in fixes)
    assert any("mapping-small" in each["problem"] for each in report["problems"])
    code, out, err = remime("doctor")
    assert code == 1
    assert "cannot work yet" in out
    assert "remime weights fetch mobile-ffhq" in err


def _no_model(name):
    from remime.errors import InputError

    raise InputError(name, "is nowhere", "look elsewhere")


def test_an_ffmpeg_that_does_not_run(remime, healthy, monkeypatch, tmp_path):
    def absent():
        raise RuntimeError("no ffmpeg exe could be found")

    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", absent)
    code, _, err = remime("doctor")
    assert code == 1
    assert "ffmpeg cannot be run" in err
    assert "IMAGEIO_FFMPEG_EXE" in err


def test_an_ffmpeg_without_h264(remime, healthy, monkeypatch):
    monkeypatch.setattr(doctor, "_said", lambda *arguments: "ffmpeg version 1\n")
    code, _, err = remime("doctor")
    assert code == 1
    assert "libx264" in err


def test_too_little_disk(remime, healthy, monkeypatch):
    monkeypatch.setattr(doctor, "LEAST_FREE", 1 << 60)
    code, _, err = remime("doctor")
    assert code == 1
    assert "GiB are needed" in err


def test_help_and_version(remime):
    for arguments in (["--help"], ["reenact", "--help"], ["weights", "verify", "--help"]):
        code, out, _ = remime(*arguments)
        assert code == 0
        assert "Usage: remime" in out
    assert remime("--version").out == f"remime {__version__}\n"
    assert remime("dance").code == 2


def test_help_loads_nothing_heavy():
    code = "import sys, remime.cli; print(*{'torch', 'numpy', 'cv2', 'av', 'pyarrow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize(
    ("error", "expected", "said"),
    [
        (KeyboardInterrupt(), 130, ""),
        (OSError(28, "No space left on device", "/full"), 1, "/full: No space left on device"),
        (PermissionError(13, "Permission denied", "/closed"), 2, "/closed: Permission denied"),
    ],
)
def test_exit_codes_of_what_happens_to_a_command(remime, monkeypatch, error, expected, said):
    def fail():
        raise error

    monkeypatch.setattr(doctor, "examine", fail)
    code, _, err = remime("doctor")
    assert code == expected
    assert said in err


def test_the_program_is_installed():
    assert cli.main.__module__ == "remime.cli"
