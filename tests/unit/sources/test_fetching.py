"""yt-dlp itself, against a server on this machine with bad manners; no test reaches the internet."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from remime.errors import InputError
from remime.sources import fetching
from remime.sources.fetching import Fetcher, FetchError, Transport, classify, slot
from remime.sources.parts import Part
from remime.sources.remote import PIECE
from remime.tables import DOWNLOAD_STATUSES, STATUSES
from remime.video import VideoError, read
from tests import clips
from tests.server import Handler, VideoServer, first, serving

pytest.importorskip("yt_dlp")
VIDEO, SMALL = "AAAAAAAAAAA", "SMALLSMALL1"
RANGES = [(2.0, 3.0), (30.0, 31.0)]
FRAMES = 1000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of 40 s and many pieces, and a small one."""
    root = tmp_path_factory.mktemp("served")
    frames = clips.numbered(250) * (FRAMES // 250)
    heavy = ("-c:v", "mpeg4", "-g", 25, "-b:v", "2M", "-minrate", "2M", "-maxrate", "2M", "-bufsize", "1M")
    clips.encode(root / f"{VIDEO}.mp4", frames, 25, ("-vf", "noise=alls=10", *heavy))
    clips.encode(root / f"{SMALL}.webm", frames[:50], 25, ("-c:v", "libvpx", "-b:v", "1M"))
    assert (root / f"{VIDEO}.mp4").stat().st_size > 10 * PIECE
    return root


@pytest.fixture
def server(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[VideoServer]:
    monkeypatch.setattr(fetching.tempfile, "gettempdir", lambda: str(tmp_path))
    with serving(folder) as running:
        yield running


def fetch(server: VideoServer, tmp_path: Path, video: str = VIDEO, **change: Any) -> list[Part]:
    options = {"url": server.url, "pause": 0.01, "retries": 2, "timeout": 60.0, **change}
    least = options.pop("min_height", 0)
    return Fetcher(Transport(**options), 1080, least).fetch(video, RANGES, tmp_path / video)


def lost(server: VideoServer, tmp_path: Path, video: str = VIDEO, **change: Any) -> FetchError:
    with pytest.raises(FetchError) as caught:
        fetch(server, tmp_path, video, **change)
    assert caught.value.status in STATUSES
    return caught.value


def check(parts: list[Part]) -> None:
    """The parts hold the frames of their ranges."""
    for part, (start, end) in zip(parts, RANGES, strict=True):
        frames = read(part.path, start - part.offset, end - part.offset)
        found = [clips.read_number(frame.image) for frame in frames]
        assert found == [n % 250 for n in range(int(start * 25), int(end * 25))]


def test_only_the_ranges_are_fetched(server: VideoServer, folder: Path, tmp_path: Path) -> None:
    check(fetch(server, tmp_path))
    size = (folder / f"{VIDEO}.mp4").stat().st_size
    # Two seconds of forty, the file's beginning and its index at the end, each rounded up to pieces.
    assert server.sent[VIDEO] < min(size / 2, 7 * PIECE)


def test_what_is_there_is_not_fetched_again(server: VideoServer, tmp_path: Path) -> None:
    parts = fetch(server, tmp_path)
    asked = server.asked[VIDEO]
    assert fetch(server, tmp_path) == parts
    assert server.asked[VIDEO] == asked


def test_a_server_without_ranges_sends_all(server: VideoServer, tmp_path: Path) -> None:
    server.ranges = False
    check(fetch(server, tmp_path))


def missing(handler: Handler, _: str) -> bool:
    return handler.fail(404)


def test_a_missing_video_is_asked_for_once(server: VideoServer, tmp_path: Path) -> None:
    server.manners[VIDEO] = missing
    assert lost(server, tmp_path).status == "removed"
    assert server.asked[VIDEO] == 1


@pytest.mark.parametrize(
    ("code", "status"),
    [(403, "forbidden"), (429, "rate_limited"), (500, "network"), (503, "network"), (408, "timeout")],
)
def test_what_may_pass_is_tried_again(server: VideoServer, tmp_path: Path, code: int, status: str) -> None:
    server.manners[VIDEO] = lambda handler, _: handler.fail(code)
    error = lost(server, tmp_path)
    assert (error.status, error.temporary, server.asked[VIDEO]) == (status, True, 3)
    server.manners[VIDEO] = first(2, lambda handler, _: handler.fail(code))
    check(fetch(server, tmp_path))


def test_pauses_double_and_retry_after_goes_before(
    server: VideoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(fetching.time, "sleep", pauses.append)
    server.manners[VIDEO] = lambda handler, _: handler.fail(503)
    lost(server, tmp_path, retries=4, pause=3.0)
    assert pauses == [3, 6, 12, 24]
    pauses.clear()
    server.manners[VIDEO] = lambda handler, _: handler.fail(429, Retry_After="17")
    lost(server, tmp_path, retries=2, pause=3.0)
    assert pauses == [17, 17]
    pauses.clear()
    server.manners[VIDEO] = lambda handler, _: handler.fail(429, Retry_After="86400")
    assert "Too Many Requests" in str(lost(server, tmp_path))
    assert pauses == [], "nobody waits for a day"


def test_retry_after_can_be_a_date(server: VideoServer, tmp_path: Path) -> None:
    server.manners[VIDEO] = lambda h, _: h.fail(429, Retry_After="Wed, 21 Oct 2999 07:28:00 GMT")
    assert lost(server, tmp_path).pause > 1e9
    server.manners[VIDEO] = lambda h, _: h.fail(429, Retry_After="soon")
    assert lost(server, tmp_path).pause == 0


def only_parts(manner: Any) -> Any:
    """A manner for parts alone: the page is given, the video is not."""
    return lambda handler, name: "Range" in handler.headers and manner(handler, name)


@pytest.mark.parametrize(("code", "status"), [(403, "forbidden"), (429, "rate_limited"), (404, "removed")])
def test_failures_of_the_file_itself(server: VideoServer, tmp_path: Path, code: int, status: str) -> None:
    """An address that runs out after it was told; what was fetched before stays."""
    server.manners[VIDEO] = only_parts(lambda handler, _: handler.fail(code))
    assert lost(server, tmp_path).status == status


def test_answers_that_break_off_are_taken_up(server: VideoServer, tmp_path: Path) -> None:
    answers = iter(range(1000))

    def moody(handler: Handler, name: str) -> bool:
        return next(answers) % 3 == 2 and handler.serve(name, keep=0.4)

    server.manners[VIDEO] = only_parts(moody)
    # Answers break off more often than there are attempts; but each attempt gets a piece further.
    check(fetch(server, tmp_path, retries=1))


def test_answers_that_always_break_off(server: VideoServer, tmp_path: Path) -> None:
    server.manners[VIDEO] = only_parts(lambda handler, name: handler.serve(name, keep=0.5))
    error = lost(server, tmp_path)
    assert (error.status, error.temporary) == ("incomplete", True)


def test_a_slow_server_times_out(server: VideoServer, tmp_path: Path) -> None:
    server.manners[VIDEO] = only_parts(lambda handler, name: handler.serve(name, delay=0.5))
    error = lost(server, tmp_path, timeout=1.0, retries=1)
    assert error.status == "timeout"
    assert "took more than 1 s" in str(error)


def test_a_silent_server_times_out(server: VideoServer, tmp_path: Path) -> None:
    server.manners[VIDEO] = lambda *_: time.sleep(30) or True
    assert lost(server, tmp_path, timeout=0.5, retries=0).status == "timeout"


def test_a_server_that_is_not_there(server: VideoServer, tmp_path: Path) -> None:
    server.server_close()
    assert lost(server, tmp_path).status == "network"


def test_a_page_is_no_video(server: VideoServer, tmp_path: Path) -> None:
    def page(handler: Handler, _: str) -> bool:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/html")
        handler.send_header("Content-Length", "27")
        handler.end_headers()
        handler.wfile.write(b"<html><p>nothing</p></html>")
        return True

    server.manners[VIDEO] = page
    error = lost(server, tmp_path)
    assert (error.status, error.temporary) == ("unsupported", False)


def test_bytes_that_are_no_video(server: VideoServer, folder: Path, tmp_path: Path) -> None:
    (folder / "BROKENBROKE.mp4").write_bytes(b"not a video" * 1000)
    with pytest.raises(VideoError, match="cannot be read"):
        fetch(server, tmp_path, "BROKENBROKE")


def test_a_video_with_too_few_lines_is_not_fetched(server: VideoServer, tmp_path: Path) -> None:
    error = lost(server, tmp_path, min_height=240)
    assert (error.status, error.temporary) == ("too_small", False)
    assert "has 64 lines" in str(error)
    assert not list((tmp_path / VIDEO).glob("part-*"))


def test_the_rate_is_limited(server: VideoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(fetching.time, "sleep", waited.append)
    monkeypatch.setattr(fetching.time, "monotonic", lambda: 0.0)
    fetch(server, tmp_path, rate=2.0)
    # Without a clock that moves, the last wait is for all bytes at 2 MB per second.
    assert max(waited) == pytest.approx((server.sent[VIDEO] - 1) / 2e6)


def test_cookies_are_sent_and_their_file_stays(server: VideoServer, tmp_path: Path) -> None:
    file = tmp_path / "cookies.txt"
    text = "# Netscape HTTP Cookie File\n127.0.0.1\tFALSE\t/\tFALSE\t2147483647\twho\tme\n"
    file.write_text(text)
    fetch(server, tmp_path, SMALL, cookies=str(file))
    assert all("who=me" in headers.get("Cookie", "") for headers in server.headers)
    assert file.read_text() == text
    with pytest.raises(InputError, match=r"download\.cookies: /none"):
        fetch(server, tmp_path, cookies="/none")


def test_at_most_so_many_at_once(server: VideoServer, tmp_path: Path) -> None:
    inside, most, lock = [0], [0], threading.Lock()

    def work() -> None:
        with slot(2):
            with lock:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
            time.sleep(0.05)
            with lock:
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 2


def test_the_format_is_the_best_up_to_the_limit(tmp_path: Path) -> None:
    """Of formats as YouTube has them, chosen by yt-dlp itself, offline."""
    from yt_dlp import YoutubeDL

    def video(name: str, height: int, **more: Any) -> dict[str, Any]:
        own = {"format_id": name, "url": f"https://example.org/{name}", "height": height, "ext": "mp4"}
        return {
            **own,
            "width": height * 16 // 9,
            "vcodec": "avc1",
            "acodec": "none",
            "protocol": "https",
        } | more

    formats = [
        {"format_id": "audio", "url": "https://example.org/a", "vcodec": "none", "acodec": "opus"},
        video("360-sound", 360, acodec="mp4a"),
        video("720", 720),
        video("1080-hls", 1080, protocol="m3u8_native"),
        video("1080-hdr", 1080, dynamic_range="HDR10"),
        video("1080", 1080, dynamic_range="SDR"),
        video("2160", 2160),
    ]

    def chosen(height: int, formats: list[dict[str, Any]]) -> str:
        with YoutubeDL(Fetcher(Transport(), height).options(tmp_path)) as ydl:  # type: ignore[arg-type]
            info = {"id": VIDEO, "title": "t", "extractor": "youtube", "formats": [dict(f) for f in formats]}
            return str(ydl.process_ie_result(info, download=False)["format_id"])

    assert chosen(1080, formats) == "1080"
    assert chosen(1000, formats) == "720"
    assert chosen(400, formats[1:]) == "720", "one without sound goes before"
    assert chosen(720, [formats[-1]]) == "2160"
    assert chosen(720, formats[:2]) == "360-sound"


# What yt-dlp 2026.10 and YouTube say, from its source and its issues.
SAID = {
    "[youtube] x: Private video. Sign in if you've been granted access to this video": "private",
    "This video is private": "private",
    "[youtube] x: Video unavailable. This video is private": "private",
    "Video unavailable. This video has been removed by the uploader": "removed",
    "This video has been removed for violating YouTube's Terms of Service": "removed",
    "Video unavailable. This video is no longer available because the YouTube account associated with this "
    "video has been terminated.": "removed",
    "Video unavailable. This video is no longer available due to a copyright claim by X": "removed",
    "Video unavailable": "removed",
    "[youtube] x: Video unavailable. This content isn’t available.": "removed",
    "This video is not available": "removed",
    "[generic] x: Unable to download webpage: HTTP Error 410: Gone": "removed",
    "Video unavailable. The uploader has not made this video available in your country": "geo_blocked",
    "Video unavailable. This video contains content from 'ZDFE', who has blocked it in your country on "
    "copyright grounds": "geo_blocked",
    "This video is not available from your location due to geo restriction": "geo_blocked",
    "Sign in to confirm your age. This video may be inappropriate for some users.": "login_required",
    "Join this channel to get access to members-only content like this video": "login_required",
    "This video is only available to Music Premium members": "login_required",
    "Sign in to confirm you’re not a bot. Use --cookies-from-browser": "rate_limited",
    "Video unavailable. This content isn't available, try again later. The current session has been "
    "rate-limited by YouTube for up to an hour.": "rate_limited",
    "Unable to download webpage: HTTP Error 429: Too Many Requests": "rate_limited",
    "X. YouTube is requiring a captcha challenge before playback": "rate_limited",
    "This live event will begin in 3 hours.": "live",
    "Premieres in 12 hours": "live",
    "This video is DRM protected": "unsupported",
    "No video formats found!": "unsupported",
    "Requested format is not available. Use --list-formats for a list of available formats": "unsupported",
    "Unsupported URL: https://example.org/": "unsupported",
    "Unable to download webpage: The read operation timed out": "timeout",
    "something nobody has seen before": "download_failed",
}


@pytest.mark.parametrize(("said", "status"), SAID.items())
def test_what_yt_dlp_says_has_a_status(said: str, status: str) -> None:
    from yt_dlp.utils import DownloadError

    error = classify(
        DownloadError(f"\x1b[0;31mERROR:\x1b[0m {said}; please report this issue on https://…"), "x"
    )
    assert error.status == status
    assert "report this" not in str(error)
    assert "\x1b" not in str(error)


def test_every_status_is_of_the_table() -> None:
    known = {*DOWNLOAD_STATUSES, "download_failed"}
    assert {status for _, status in fetching.MESSAGES} | set(fetching._HTTP.values()) <= known
    assert set(SAID.values()) <= known
    assert known <= set(STATUSES)
    assert known >= fetching.TEMPORARY


def test_geo_restriction_is_known_by_its_class() -> None:
    from yt_dlp.utils import DownloadError, GeoRestrictedError

    try:
        raise GeoRestrictedError("Not in Ruritania")
    except GeoRestrictedError as error:
        wrapped = DownloadError(f"ERROR: {error}", (type(error), error, None))
    assert classify(wrapped, "x").status == "geo_blocked"


def test_a_full_disk_is_not_the_videos_fault(
    server: VideoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("remime.sources.remote.os.pwrite", full)
    with pytest.raises(OSError, match="No space left"):
        fetch(server, tmp_path)


def test_defaults_are_those_of_the_configuration() -> None:
    from remime.layout import _TRANSPORT
    from remime.schema import load_schema
    from remime.sources.download import DEFAULTS

    keys = load_schema()["$defs"]["download"]["properties"]
    known = {key: part["default"] for key, part in keys.items()}
    assert known == vars(Transport()) | DEFAULTS
    assert set(vars(Transport())) == set(_TRANSPORT)


def test_the_network_can_be_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REMIME_OFFLINE", "1")
    with pytest.raises(InputError, match="REMIME_OFFLINE"):
        Fetcher(Transport(), 720)


def test_unknown_keys_are_refused() -> None:
    with pytest.raises(InputError, match="download: rates"):
        Transport.parse({"rates": 1})
