"""A server of videos on this machine, with the bad manners of real ones, that counts what is asked of it."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

Manner = Callable[["Handler", str], bool]


class VideoServer(ThreadingHTTPServer):
    """Serves ``/ID`` from ``{folder}/ID.*``, in whole or by ranges.

    Attributes:
        manners: what is done instead for an id; a manner returns whether it answered.
        asked: how many requests there were for each id.
        sent: bytes of parts of videos that were sent, by id.
        most: the most requests that were answered at the same time.
        ranges: whether parts are given.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.manners: dict[str, Manner] = {}
        self.asked: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self.headers: list[dict[str, str]] = []
        self.most = self.open = 0
        self.ranges = True
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        """The address of a video, in the form of the configuration's key."""
        return f"http://127.0.0.1:{self.server_port}/{{video}}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are no fault."""


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    protocol_version = "HTTP/1.1"
    server: VideoServer

    def do_GET(self) -> None:
        name = self.path.strip("/").partition(".")[0]
        server = self.server
        with server.lock:
            server.asked[name] += 1
            server.headers.append(dict(self.headers))
            server.open += 1
            server.most = max(server.most, server.open)
        try:
            manner = server.manners.get(name)
            if manner is None or not manner(self, name):
                self.serve(name)
        finally:
            with server.lock:
                server.open -= 1

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass

    def fail(self, code: int, **headers: str) -> bool:
        """Answer with a status alone."""
        self.send_response(code)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.send_header("Content-Length", "0")
        self.end_headers()
        return True

    def serve(self, name: str, keep: float = 1.0, delay: float = 0.0) -> bool:
        """Send a video or the part that is asked for.

        Args:
            name: its id.
            keep: the share of the announced bytes that is sent before the connection breaks off.
            delay: seconds before each kilobyte.
        """
        path = next(iter(self.server.folder.glob(f"{name}.*")), None)
        if path is None:
            return self.fail(404)
        data = path.read_bytes()
        found = re.fullmatch(r"bytes=([0-9]+)-([0-9]*)", self.headers.get("Range", ""))
        part = found is not None and self.server.ranges
        first, last = (int(found.group(1)), int(found.group(2) or len(data) - 1)) if found else (0, 0)
        body = data[first : last + 1] if part else data
        self.send_response(206 if part else 200)
        self.send_header("Content-Type", "video/webm" if path.suffix == ".webm" else "video/mp4")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{path.stat().st_mtime_ns}"')
        if part:
            self.send_header("Content-Range", f"bytes {first}-{first + len(body) - 1}/{len(data)}")
        self.end_headers()
        if self.command == "HEAD":
            return True
        for start in range(0, int(len(body) * keep), 1024):
            if delay:
                time.sleep(delay)
            piece = body[start : min(start + 1024, int(len(body) * keep))]
            self.wfile.write(piece)
            with self.server.lock:
                self.server.sent[name] += len(piece) if part else 0
        self.close_connection = keep < 1
        return True


def first(count: int, manner: Manner) -> Manner:
    """A manner for the first so many requests only."""
    left = [count]

    def answer(handler: Handler, name: str) -> bool:
        left[0] -= 1
        return left[0] >= 0 and manner(handler, name)

    return answer


@contextmanager
def serving(folder: Path) -> Iterator[VideoServer]:
    """A running server."""
    server = VideoServer(folder)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
