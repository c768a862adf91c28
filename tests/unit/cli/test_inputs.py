"""Checks of arguments before anything is computed."""

import os

import pytest
import torch

from remime.cli import inputs
from remime.errors import InputError


@pytest.mark.parametrize(
    ("text", "seed"), [("random:7", 7), ("random:-3", -3), ("random.png", None), ("a b", None)]
)
def test_seed_of_a_random_target(text, seed):
    assert inputs.random_seed(text) == seed


@pytest.mark.parametrize("text", ["random:abc", "random:", "random:1.5", "random:²", "random: 7"])
def test_a_seed_is_a_whole_number(text):
    with pytest.raises(InputError, match="random:SEED"):
        inputs.random_seed(text)


def test_a_file_of_that_name_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "random:abc").write_bytes(b"x")
    assert inputs.random_seed("random:abc") is None


def test_output_in_a_folder_that_does_not_exist_yet(tmp_path):
    inputs.check_output(tmp_path / "a b" / "ü" / "out.mp4", ".mp4", [])
    assert list(tmp_path.iterdir()) == []


def test_suffix_of_the_output(tmp_path):
    inputs.check_output(tmp_path / "OUT.MP4", ".mp4", [])
    with pytest.raises(InputError, match=r"out\.avi.*\.mp4"):
        inputs.check_output(tmp_path / "out.avi", ".mp4", [])


def test_output_that_is_a_folder(tmp_path):
    (tmp_path / "out.mp4").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        inputs.check_output(tmp_path / "out.mp4", ".mp4", [])


def test_output_never_overwrites_an_input(tmp_path):
    source = tmp_path / "in.mp4"
    source.write_bytes(b"x")
    (tmp_path / "link.mp4").symlink_to(source)
    with pytest.raises(InputError, match="one of the inputs"):
        inputs.check_output(tmp_path / "link.mp4", ".mp4", [source])


def test_output_below_a_file(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(InputError, match="cannot be written to"):
        inputs.check_output(tmp_path / "file" / "out.mp4", ".mp4", [])


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_output_in_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="cannot be written to"):
        inputs.check_output(tmp_path / "out.mp4", ".mp4", [])


def test_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert inputs.device_of("auto") == inputs.device_of("cpu") == "cpu"
    with pytest.raises(InputError, match="cuda cannot be used"):
        inputs.device_of("cuda")
    with pytest.raises(InputError, match="'tpu' is unknown"):
        inputs.device_of("tpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert inputs.device_of("auto") == inputs.device_of("cuda") == "cuda"
