"""Parts of limited size: exact, or refused with the name of the file at fault."""

from __future__ import annotations

import errno
import json
import math
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from remime.errors import InputError, VersionError
from remime.files import sha256
from remime.training import parts
from remime.training.parts import describe, read_parts, write_parts

ROOT = Path(__file__).resolve().parents[3]
LIMIT = 2**17


def tree(seed=0):
    source = torch.Generator().manual_seed(seed)
    large = torch.randn(300, 301, generator=source)
    half = torch.randn(5, generator=source).bfloat16()
    return {
        "module": {"large": large, "half": half, "empty": torch.empty(0, 3)},
        "optimizers": {"main": {"state": {0: {"step": 7, "mean": large.clone()}}, "betas": (0.9, 0.999)}},
        "count": torch.tensor(3),
        "flags": [True, None, "text", math.inf, 0.1 + 0.2],
    }  # fmt: skip


def assert_equal(a, b):
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            assert_equal(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_equal(x, y)
    else:
        assert a == b


@pytest.fixture
def written(tmp_path):
    return write_parts(tmp_path, "x", tree(), {"kind": "test"}, LIMIT)


def test_round_trip(written, tmp_path):
    assert len(written.files) > 2
    assert all(file.stat().st_size <= LIMIT for file in written.files)
    assert written.bytes == sum(file.stat().st_size for file in written.files)
    assert describe(tmp_path, "x") == written
    assert written.about == {"kind": "test"}
    assert_equal(read_parts(tmp_path, "x"), tree())


def test_nan_comes_back(tmp_path):
    write_parts(tmp_path, "x", [math.nan], {})
    (value,) = read_parts(tmp_path, "x")
    assert math.isnan(value)


def test_equal_tensors_are_stored_once_and_come_back_apart(written, tmp_path):
    one = tree()["module"]["large"]
    assert written.bytes < 1.5 * one.numel() * one.itemsize
    back = read_parts(tmp_path, "x")
    back["module"]["large"].zero_()
    assert torch.equal(back["optimizers"]["main"]["state"][0]["mean"], one)


def test_the_same_contents_make_the_same_files(written, tmp_path):
    again = write_parts(tmp_path / "again", "x", tree(), {"kind": "test"}, LIMIT)
    assert [f.name for f in again.files] == [f.name for f in written.files]
    assert [f.read_bytes() for f in again.files] == [f.read_bytes() for f in written.files]


def test_many_small_tensors(tmp_path):
    values = {f"a-rather-long-name-of-a-tensor-{i}": torch.tensor([float(i)]) for i in range(2000)}
    made = write_parts(tmp_path, "x", values, {}, LIMIT)
    assert all(file.stat().st_size <= LIMIT for file in made.files)
    assert_equal(read_parts(tmp_path, "x"), values)


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_a_part_cut_off_anywhere_is_named(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("parts")
    made = write_parts(folder, "x", tree(), {}, LIMIT)
    file = data.draw(st.sampled_from(made.files))
    whole = file.read_bytes()
    file.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(InputError, match=file.name):
        read_parts(folder, "x")


def test_missing_changed_and_mixed_up_parts_are_named(written, tmp_path):
    first, second = written.files[:2]
    kept = first.read_bytes(), second.read_bytes()
    first.unlink()
    with pytest.raises(InputError, match=rf"{first.name}: is missing\n  fetch all"):
        read_parts(tmp_path, "x")
    first.write_bytes(kept[0][:-1] + bytes([kept[0][-1] ^ 1]))
    with pytest.raises(InputError, match=rf"{first.name}: is damaged"):
        read_parts(tmp_path, "x")
    first.write_bytes(kept[1])
    with pytest.raises(InputError, match=first.name):
        read_parts(tmp_path, "x")


def test_a_part_of_another_set_is_refused(written, tmp_path):
    other = write_parts(tmp_path / "other", "x", tree(1), {}, LIMIT)
    shutil.copy(other.files[0], written.files[0])
    with pytest.raises(InputError, match=rf"{written.files[0].name}: is damaged, or a part of another set"):
        read_parts(tmp_path, "x")


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"format": 1, "parts": [{}]}'])
def test_a_damaged_manifest_is_refused(written, tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError, match=r"x\.json: is not the manifest"):
        read_parts(tmp_path, "x")


def test_without_a_manifest(tmp_path):
    with pytest.raises(InputError, match=r"x\.json: is missing"):
        describe(tmp_path, "x")


def change(tmp_path, edit):
    manifest = json.loads((tmp_path / "x.json").read_text())
    edit(manifest)
    (tmp_path / "x.json").write_text(json.dumps(manifest))


def test_a_later_format_is_not_guessed(written, tmp_path):
    change(tmp_path, lambda m: m.update(format=2))
    with pytest.raises(VersionError, match="format 2"):
        read_parts(tmp_path, "x")


def test_a_manifest_cannot_name_files_elsewhere(written, tmp_path):
    change(tmp_path, lambda m: m["parts"][0].update(file="../x-0.000.safetensors"))
    with pytest.raises(InputError, match="outside its folder"):
        read_parts(tmp_path, "x")


@pytest.mark.parametrize(
    "edit",
    [
        lambda m: m["parts"].pop(),
        lambda m: m["tensors"].update({"0": ["float32", [2**40]]}),
        lambda m: m["tensors"].update({"0": ["float32", [300, 300]]}),
        lambda m: m["tensors"].update({"0": ["complex64", [300, 301]]}),
        lambda m: m["tensors"].pop("note"),
    ],
    ids=["part left out", "larger than memory", "other shape", "other type", "no structure"],
)
def test_a_manifest_of_something_else_is_refused(written, tmp_path, edit):
    change(tmp_path, edit)
    with pytest.raises(InputError, match=r"x\.json: does not describe its parts"):
        read_parts(tmp_path, "x")


def test_a_consistent_set_without_all_values_is_refused(written, tmp_path):
    content = load_file(written.files[0])
    content.pop(next(iter(content)))
    save_file(content, written.files[0])
    whole = [f.read_bytes() for f in written.files]

    def agree(manifest):
        manifest["parts"][0].update(bytes=len(whole[0]), sha256=sha256(written.files[0]))
        manifest["sha256"] = parts.hashlib.sha256(b"".join(whole)).hexdigest()

    change(tmp_path, agree)
    with pytest.raises(InputError, match="does not describe its parts"):
        read_parts(tmp_path, "x")


def test_a_full_disk_leaves_the_earlier_set_whole(written, tmp_path, monkeypatch):
    write, calls = Path.write_bytes, []

    def fail_second(self, data):
        calls.append(self)
        if len(calls) == 2:
            write(self, data[:100])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", fail_second)
    with pytest.raises(OSError, match=r"No space left on device: '.*\.001\.safetensors'"):
        write_parts(tmp_path, "x", tree(1), {}, LIMIT)
    monkeypatch.undo()
    assert_equal(read_parts(tmp_path, "x"), tree())
    # The next one clears up.
    made = write_parts(tmp_path, "x", tree(2), {}, LIMIT)
    assert_equal(read_parts(tmp_path, "x"), tree(2))
    assert sorted(tmp_path.iterdir()) == sorted([*made.files, tmp_path / "x.json"])


def test_killed_while_writing_the_earlier_set_is_whole(written, tmp_path):
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from remime.training import parts\n"
        "from tests.unit.training.test_parts import LIMIT, tree\n"
        "def kill(*_): os.kill(os.getpid(), signal.SIGKILL)\n"
        "parts.write_text = kill\n"
        "parts.write_parts(Path(sys.argv[1]), 'x', tree(1), {}, LIMIT)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path], cwd=ROOT, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(list(tmp_path.iterdir())) > len(written.files) + 1
    assert_equal(read_parts(tmp_path, "x"), tree())


def test_another_name_is_left_alone(written, tmp_path):
    write_parts(tmp_path, "x-y", tree(1), {}, LIMIT)
    write_parts(tmp_path, "x", tree(2), {}, LIMIT)
    assert_equal(read_parts(tmp_path, "x-y"), tree(1))


def test_what_cannot_be_stored(tmp_path):
    with pytest.raises(TypeError, match="set cannot be"):
        write_parts(tmp_path, "x", {"a": {1, 2}}, {})
    with pytest.raises(InputError, match="limit of a part: got 100 bytes"):
        write_parts(tmp_path, "x", [], {}, 100)
    assert list(tmp_path.iterdir()) == []
