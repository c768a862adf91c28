"""What was read of a remote file is never asked for again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from remime.sources.remote import PIECE, Pieces, RemoteFile

DATA = np.random.default_rng(0).integers(0, 256, 3 * PIECE + 1234, np.uint8).tobytes()


class Server:
    """Gives bytes of ``DATA`` and notes which; it fails for the piece ``bad``."""

    def __init__(self, bad: int = -1) -> None:
        self.asked: list[tuple[int, int]] = []
        self.bad = bad

    def get(self, begin: int, end: int) -> bytes:
        self.asked.append((begin, end))
        if begin // PIECE == self.bad:
            raise ConnectionError("broken")
        return DATA[begin:end]


def remote(folder: Path, server: Server, identity: str = "a") -> RemoteFile:
    return RemoteFile(server.get, len(DATA), Pieces(folder / "pieces", identity))


def test_bytes_are_those_of_the_file(tmp_path: Path) -> None:
    server = Server()
    with remote(tmp_path, server) as file:
        assert b"".join(iter(lambda: file.read(100_000), b"")) == DATA
        assert len(server.asked) == 4
        for offset, whence in ((PIECE - 10, 0), (-1234, 2), (5, 1)):
            begin = file.seek(offset, whence)
            assert file.read(20) == DATA[begin : begin + 20][: len(DATA) - begin][:20] or begin == PIECE - 10
        assert len(server.asked) == 4
        assert file.seek(len(DATA) + 5) == len(DATA) + 5
        assert file.read() == b""


def test_a_read_ends_with_its_piece(tmp_path: Path) -> None:
    with remote(tmp_path, Server()) as file:
        file.seek(PIECE - 10)
        assert file.read(20) == DATA[PIECE - 10 : PIECE]
        assert file.read(20) == DATA[PIECE : PIECE + 20]


def test_what_is_there_is_not_asked_for_again(tmp_path: Path) -> None:
    with remote(tmp_path, Server()) as file:
        file.seek(2 * PIECE)
        file.read(10)
    server = Server()
    with remote(tmp_path, server) as file:
        file.seek(2 * PIECE + 7)
        assert file.read(10) == DATA[2 * PIECE + 7 :][:10]
        assert server.asked == []
        file.seek(0)
        file.read(1)
    assert server.asked == [(0, PIECE)]


@pytest.mark.parametrize("cut", ["1", "", "3\nx\n", "-1\n"])
def test_an_index_that_was_cut_off_loses_its_last_line_at_most(tmp_path: Path, cut: str) -> None:
    with remote(tmp_path, Server()) as file:
        file.read(1)
    index = tmp_path / "pieces.index"
    # Of the number 1 or of 12 only the first digit came; a number that is no piece's is of no use either.
    index.write_text(index.read_text() + cut)
    server = Server()
    with remote(tmp_path, server) as file:
        assert file.read(10) == DATA[:10]
        file.seek(PIECE)
        assert file.read(10) == DATA[PIECE:][:10]
    assert server.asked == [(PIECE, 2 * PIECE)]


def test_pieces_of_another_file_are_dropped(tmp_path: Path) -> None:
    with remote(tmp_path, Server()) as file:
        file.read(1)
    server = Server()
    with remote(tmp_path, server, identity="b") as file:
        file.read(1)
    assert server.asked == [(0, PIECE)]


def test_the_first_failure_is_kept(tmp_path: Path) -> None:
    server = Server(bad=1)
    with remote(tmp_path, server) as file:
        file.seek(PIECE)
        with pytest.raises(ConnectionError):
            file.read(1)
        assert isinstance(file.error, ConnectionError)
        server.bad = -1
        with pytest.raises(OSError, match="before this one"):
            file.read(1)
        assert server.asked == [(PIECE, 2 * PIECE)]
    with remote(tmp_path, Server()) as file:
        file.seek(PIECE)
        assert file.read(5) == DATA[PIECE:][:5]


def test_an_interrupt_is_kept_for_whoever_reads(tmp_path: Path) -> None:
    """A demuxer's callback would print it and go on."""

    def interrupted(*_: int) -> bytes:
        raise KeyboardInterrupt

    with RemoteFile(interrupted, 10, Pieces(tmp_path / "pieces", "a")) as file:
        with pytest.raises(OSError, match="interrupted"):
            file.read()
        assert isinstance(file.error, KeyboardInterrupt)
