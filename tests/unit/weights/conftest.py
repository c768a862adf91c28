"""Tables, servers and packages for tests that need no network."""

from __future__ import annotations

import hashlib
import http.server
import io
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from remime.weights import fetch, registry
from remime.weights.registry import COLUMNS, Entry, Member


def digest(data: bytes) -> str:
    """The hex sha256."""
    return hashlib.sha256(data).hexdigest()


def make_entry(*members: Member, name: str = "net", mirror: str = "", package: bytes = b"", **other) -> Entry:
    """A row of the table."""
    values = {
        "role": "test",
        "version": "1",
        "converter": "fake",
        "package_terms": "MIT",
        "weights_terms": "CC0",
        "terms": "permissive",
    }
    mirror_sha256 = digest(package) if mirror else ""
    return Entry(name=name, mirror=mirror, mirror_sha256=mirror_sha256, members=members, **(values | other))


def tar_bytes(files: dict[str, bytes]) -> bytes:
    """A gzipped tar archive."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def write_table(path: Path, *rows: dict[str, str]) -> Path:
    """A table of weights; missing columns are empty."""
    lines = [COLUMNS, *([row.get(column, "") for column in COLUMNS] for row in rows)]
    path.write_text("\n".join("\t".join(line) for line in lines) + "\n", encoding="utf-8")
    return path


@dataclass
class Server:
    """A web server whose answers a test sets."""

    url: str
    answers: dict[str, tuple[int, dict[str, str], bytes]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def serve(self, path: str, body: bytes, status: int = 200, **headers: str) -> str:
        """Answer a path; returns its URL."""
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answers[path] = (status, {"Content-Length": str(len(body))} | fields, body)
        return self.url + path


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A local server; nothing else may be reached through a proxy."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    state = Server("")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append(self.path)
            status, headers, body = state.answers.get(self.path, (404, {}, b""))
            self.send_response(status)
            for item in headers.items():
                self.send_header(*item)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{httpd.server_port}"
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield state
    httpd.shutdown()
    httpd.server_close()


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test begins online and with no host given up."""
    monkeypatch.delenv("REMIME_OFFLINE", raising=False)
    monkeypatch.setattr(fetch, "_dead_hosts", {})


@pytest.fixture
def use_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Path]:
    """``use_table(row, ...)`` puts a table in the place of the project's."""

    def use(*rows: dict[str, str]) -> Path:
        path = write_table(tmp_path / "weights.tsv", *rows)
        monkeypatch.setattr(registry, "default_table", lambda: path)
        return path

    return use
