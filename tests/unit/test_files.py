"""Files are complete or absent."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from remime.files import atomic, sha256, write_text


def test_a_file_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "file.bin"
    with atomic(path) as temporary:
        temporary.write_bytes(b"data")
        assert not path.exists()
        assert temporary.parent == path.parent
        assert temporary.suffix == ".bin"
    assert path.read_bytes() == b"data"
    assert list(path.parent.iterdir()) == [path]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail() -> None:
        with atomic(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("cut off")

    with pytest.raises(RuntimeError, match="cut off"):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failing_disk_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"No space left on device: '.*/file'"), atomic(tmp_path / "file"):
        Path("/dev/full").write_bytes(b"data")


def test_two_writers_never_share_a_temporary_file(tmp_path: Path) -> None:
    with atomic(tmp_path / "file") as first, atomic(tmp_path / "file") as second:
        assert first != second
        first.write_text("1")
        second.write_text("2")
    assert (tmp_path / "file").read_text() == "1"


def test_what_a_killed_writer_left_is_removed_and_a_living_ones_is_not(tmp_path: Path) -> None:
    path = tmp_path / "file [1].txt"
    script = (
        "import os, signal, sys; from remime.files import atomic\n"
        "with atomic(sys.argv[1]) as t: t.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    for _ in range(2):
        subprocess.run([sys.executable, "-c", script, str(path)], check=False)
        assert len(list(tmp_path.iterdir())) == 1
    other = tmp_path / "file [1].csv"
    with atomic(path) as living:
        living.write_text("mine")
        assert list(tmp_path.iterdir()) == [living]
        write_text(path, "new")
        write_text(other, "another file")
    assert path.read_text() == "mine"
    assert sorted(tmp_path.iterdir()) == [other, path]


def test_long_names_fit(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 200 + ".parquet")
    write_text(path, "ä")
    assert path.read_bytes() == "ä".encode()


def test_sha256_is_that_of_the_bytes(tmp_path: Path) -> None:
    data = bytes(range(256)) * 10000
    (tmp_path / "file").write_bytes(data)
    assert sha256(tmp_path / "file") == hashlib.sha256(data).hexdigest()
