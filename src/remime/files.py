"""Files that are either complete or absent."""

from __future__ import annotations

import glob
import hashlib
import os
import shutil
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# The umask can only be read by setting it, which is not safe with several threads; so once, at import.
_UMASK = os.umask(0)
os.umask(_UMASK)


# Processes are told apart by their number, and that only on the machine on which they run.
_MACHINE = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:6]


def beside(path: Path) -> Path:
    """A temporary path in the folder of ``path``, hidden, unique, with its suffix.

    What processes of this machine that were killed left there for the same ``path`` is removed.
    """
    stem = f".{path.stem[:40]}.{_MACHINE}-"
    for left in path.parent.glob(f"{glob.escape(stem)}*.tmp{glob.escape(path.suffix)}"):
        number = left.name.removeprefix(stem).partition("-")[0]
        if number.isdecimal() and not _runs(int(number)):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)
    return path.parent / f"{stem}{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp{path.suffix}"


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's
    return True


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Name this file in errors of the file system that name none, such as a disk full while writing."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; on success sync it and rename it to ``path``.

    The temporary name is unique, so that a job that was cut off and its retry never write the same file,
    and keeps the suffix, because writers choose a format by it. On failure nothing is left behind; what a
    killed process left is removed by the next one that writes the same file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = beside(path)
    try:
        with naming(path):
            yield temporary
            with temporary.open("rb") as handle:
                os.fsync(handle.fileno())
            # Some writers create files that only their owner may read; results are shared like any other.
            temporary.chmod(0o666 & ~_UMASK)
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sha256(path: str | Path) -> str:
    """The hex sha256 of a file, read in pieces."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
