"""Reading one member of a foreign archive."""

import bz2
import errno
import gzip
import io
import lzma
import tarfile
import zipfile

import pytest

from remime.weights import members
from remime.weights.members import decompressed, extract

from .conftest import tar_bytes


def zip_bytes(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return stream.getvalue()


@pytest.mark.parametrize("make", [zip_bytes, tar_bytes])
def test_the_named_member_only(tmp_path, make):
    (tmp_path / "archive").write_bytes(make({"p/a": b"first", "../p/b": b"evil", "p/b": b"second"}))
    extract(tmp_path / "archive", "p/b", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"second"
    assert {path.name for path in tmp_path.iterdir()} == {"archive", "out"}


@pytest.mark.parametrize("make", [zip_bytes, tar_bytes])
def test_a_zip_within_the_archive(tmp_path, make):
    (tmp_path / "archive").write_bytes(make({"p/a.task": zip_bytes({"x/net.bin": b"inner"})}))
    extract(tmp_path / "archive", "p/a.task!x/net.bin", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"inner"
    assert {path.name for path in tmp_path.iterdir()} == {"archive", "out"}


@pytest.mark.parametrize("member", ["../evil", "/etc/passwd", "a/../../evil", "a\\..\\evil", "a!../evil", ""])
def test_paths_that_leave_the_archive(tmp_path, member):
    (tmp_path / "archive").write_bytes(tar_bytes({member or "x": b"evil"}))
    with pytest.raises(ValueError, match="not a plain relative path"):
        extract(tmp_path / "archive", member, tmp_path / "out")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_a_member_that_is_no_file(tmp_path, kind):
    (tmp_path / "secret").write_bytes(b"secret")
    with tarfile.open(tmp_path / "archive", "w") as archive:
        info = tarfile.TarInfo("net.bin")
        info.type, info.linkname = kind, str(tmp_path / "secret")
        archive.addfile(info)
    with pytest.raises(ValueError, match="not a regular file"):
        extract(tmp_path / "archive", "net.bin", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_missing_and_repeated_members(tmp_path):
    (tmp_path / "archive").write_bytes(tar_bytes({"a": b"1"}))
    with pytest.raises(ValueError, match="has 0 members 'b'"):
        extract(tmp_path / "archive", "b", tmp_path / "out")
    with tarfile.open(tmp_path / "twice", "w") as archive:
        for _ in range(2):
            archive.addfile(tarfile.TarInfo("a"))
    with pytest.raises(ValueError, match="has 2 members 'a'"):
        extract(tmp_path / "twice", "a", tmp_path / "out")


@pytest.mark.parametrize("make", [zip_bytes, tar_bytes])
def test_damaged_archives(tmp_path, make):
    data = make({"a": bytes(range(256)) * 100})
    (tmp_path / "cut").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"damaged|neither|has 0 members"):
        extract(tmp_path / "cut", "a", tmp_path / "out")
    (tmp_path / "text").write_bytes(b"<html>no such page</html>" * 100)
    with pytest.raises(ValueError, match="neither a zip nor a tar"):
        extract(tmp_path / "text", "a", tmp_path / "out")


@pytest.mark.parametrize("make", [zip_bytes, tar_bytes])
def test_an_archive_bomb_ends_early(tmp_path, make, monkeypatch):
    monkeypatch.setattr(members.copy_limited, "__defaults__", (1000,))
    (tmp_path / "archive").write_bytes(make({"a": bytes(1 << 22)}))
    with pytest.raises(ValueError, match="larger than 1000 bytes"):
        extract(tmp_path / "archive", "a", tmp_path / "out")
    assert (tmp_path / "out").stat().st_size <= 1000


@pytest.mark.parametrize(
    ("suffix", "compress"), [(".bz2", bz2.compress), (".gz", gzip.compress), (".xz", lzma.compress)]
)
def test_compressed_files(tmp_path, suffix, compress):
    path = tmp_path / "download"
    path.write_bytes(compress(b"network" * 1000))
    with decompressed(path, "net.dat" + suffix) as plain:
        assert plain.read_bytes() == b"network" * 1000
    assert list(tmp_path.iterdir()) == [path]
    path.write_bytes(compress(b"network" * 1000)[:-8])
    with pytest.raises(ValueError, match="is damaged"), decompressed(path, "net.dat" + suffix):
        pass
    with decompressed(path, "net.dat") as plain:
        assert plain == path


def test_a_full_disk_is_not_a_damaged_archive(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "archive").write_bytes(tar_bytes({"a": b"1"}))
    monkeypatch.setattr(members, "copy_limited", full)
    with pytest.raises(OSError, match="No space left"):
        extract(tmp_path / "archive", "a", tmp_path / "out")
