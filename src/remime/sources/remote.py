"""A file on a server, read by ranges, with every piece that was fetched kept on this disk.

A clip of ten seconds lies in a video of ten minutes; reading only where the clip is saves most of it. For a
part alone, yt-dlp itself hands the address to ffmpeg, which cannot take up a broken download, knows no limit
of its rate and does not tell what the server answered. So here a demuxer reads through :class:`RemoteFile`;
all requests still go through yt-dlp.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from remime.files import write_text

PIECE = 1 << 19


class Pieces:
    """The pieces of one remote file that are on this disk; a killed process loses none that it finished.

    Args:
        path: the file of the pieces, each at its place; beside it, ``.index`` tells which are there.
        identity: which remote file it is. Pieces of another one, or of another version, are dropped.
    """

    def __init__(self, path: Path, identity: str) -> None:
        self._index = path.with_name(path.name + ".index")
        header = json.dumps({"identity": identity, "piece": PIECE})
        lines = self._read_index()
        known = path.is_file() and lines[:1] == [header]
        self.held = {int(line) for line in lines[1:] if line.isdecimal()} if known else set[int]()
        self._data = path.open("r+b" if known else "w+b", buffering=0)
        write_text(self._index, "".join(f"{line}\n" for line in (header, *sorted(self.held))))
        self._log = self._index.open("a", encoding="ascii")

    def _read_index(self) -> list[str]:
        try:
            text = self._index.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError):
            return []
        # A line without its end was cut off, and may be the beginning of a longer number.
        return text.split("\n")[:-1]

    def read(self, piece: int, size: int) -> bytes:
        """The first ``size`` bytes of a piece that is held."""
        return os.pread(self._data.fileno(), size, piece * PIECE)

    def write(self, piece: int, data: bytes) -> None:
        """Keep a piece; its number is noted only after its bytes are in the file."""
        done = 0
        while done < len(data):
            done += os.pwrite(self._data.fileno(), data[done:], piece * PIECE + done)
        self._log.write(f"{piece}\n")
        self._log.flush()
        self.held.add(piece)

    def close(self) -> None:
        """Close the files; they stay."""
        self._data.close()
        self._log.close()


class RemoteFile(io.RawIOBase):
    """A remote file that can be read and searched like one that is here.

    The first failure is kept in ``error``, because a demuxer makes another one of it or none; every read that
    follows fails, because a demuxer goes on reading.

    Args:
        get: the bytes from a first one to before a last one.
        size: of the file in bytes.
        pieces: where what was fetched is kept.
    """

    def __init__(self, get: Callable[[int, int], bytes], size: int, pieces: Pieces) -> None:
        self._get, self._size, self._pieces = get, size, pieces
        self._position = 0
        self.error: BaseException | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def read(self, size: int = -1) -> bytes:
        """At most ``size`` bytes from here, never more than to the end of a piece; none at the end."""
        piece, skip = divmod(self._position, PIECE)
        begin, end = piece * PIECE, min((piece + 1) * PIECE, self._size)
        if begin + skip >= end:
            return b""
        if self.error is not None:
            raise OSError("a read before this one failed") from self.error
        try:
            if piece not in self._pieces.held:
                self._pieces.write(piece, self._get(begin, end))
            data = self._pieces.read(piece, end - begin)[skip:]
        except BaseException as error:
            self.error = error
            if isinstance(error, Exception):
                raise
            # PyAV prints interrupts and goes on; who reads raises what is kept.
            raise OSError("interrupted") from error
        data = data if size < 0 else data[:size]
        self._position += len(data)
        return data

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        self._pieces.close()
