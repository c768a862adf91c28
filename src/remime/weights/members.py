"""Reading one named file out of a foreign archive, and nothing else."""

from __future__ import annotations

import bz2
import contextlib
import errno
import gzip
import lzma
import re
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

LIMIT = 1 << 30
"""Most bytes of one file. A longer one is not a network of the table but an archive bomb."""

_DISK_FAILURES = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG, errno.EMFILE)
_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError, RuntimeError)


def is_disk_failure(error: BaseException) -> bool:
    """Whether an error is about this machine's disk, not about what was read."""
    return isinstance(error, OSError) and error.errno in _DISK_FAILURES


def check_path(member: str) -> None:
    """ValueError for a path that leaves the archive."""
    parts = re.split(r"[/!]", member)
    if any(part in ("", ".", "..") for part in parts) or "\\" in member or "\0" in member:
        raise ValueError(f"member {member!r} is not a plain relative path")


def copy_limited(source: IO[bytes], path: Path, limit: int = LIMIT) -> int:
    """Copy a stream to a file and return its size; ValueError beyond ``limit`` bytes."""
    size = 0
    with path.open("wb") as target:
        while chunk := source.read(1 << 20):
            size += len(chunk)
            if size > limit:
                raise ValueError(f"is larger than {limit} bytes")
            target.write(chunk)
    return size


def _from_zip(archive: Path, member: str, path: Path) -> None:
    with zipfile.ZipFile(archive) as handle:
        found = [info for info in handle.infolist() if info.filename == member]
        if len(found) != 1:
            raise ValueError(f"has {len(found)} members {member!r}")
        with handle.open(found[0]) as source:
            copy_limited(source, path)


def _from_tar(archive: Path, member: str, path: Path) -> None:
    found = 0
    with tarfile.open(archive) as handle:
        for info in handle:
            if info.name != member:
                continue
            found += 1
            # A link could name any file of this machine.
            if not info.isreg():
                raise ValueError(f"its member {member!r} is not a regular file")
            source = handle.extractfile(info)
            assert source is not None
            copy_limited(source, path)
    if found != 1:
        raise ValueError(f"has {found} members {member!r}")


def _extract_one(archive: Path, member: str, path: Path) -> None:
    try:
        if zipfile.is_zipfile(archive):
            _from_zip(archive, member, path)
        elif tarfile.is_tarfile(archive):
            _from_tar(archive, member, path)
        else:
            raise ValueError("is neither a zip nor a tar archive")
    except _DAMAGED as error:
        if is_disk_failure(error):
            raise
        raise ValueError(f"is a damaged archive ({error})") from None


def extract(archive: Path, member: str, path: Path) -> None:
    """Copy one member of a zip or tar archive to ``path``.

    Args:
        archive: the package file.
        member: the member's full name; ``outer.zip!inner`` reads a zip within the archive.
        path: the file to write.

    Raises:
        ValueError: the archive is damaged; the member is missing, repeated, a link, outside of the archive,
            or larger than ``LIMIT``.
        OSError: this machine's disk failed.
    """
    check_path(member)
    outer, _, inner = member.partition("!")
    if not inner:
        _extract_one(archive, outer, path)
        return
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as folder:
        between = Path(folder) / "outer"
        _extract_one(archive, outer, between)
        extract(between, inner, path)


_OPENERS: dict[str, Callable[[Path], Any]] = {".bz2": bz2.open, ".gz": gzip.open, ".xz": lzma.open}


@contextlib.contextmanager
def decompressed(path: Path, name: str) -> Iterator[Path]:
    """Yield ``path``, or a decompressed copy of it where ``name`` ends with .bz2, .gz or .xz.

    Raises:
        ValueError: the file is damaged.
    """
    opener = _OPENERS.get(Path(name).suffix)
    if opener is None:
        yield path
        return
    copy = path.with_name(path.name + ".plain")
    try:
        try:
            with opener(path) as source:
                copy_limited(source, copy)
        except _DAMAGED as error:
            if is_disk_failure(error):
                raise
            raise ValueError(f"is damaged ({error})") from None
        yield copy
    finally:
        copy.unlink(missing_ok=True)
