"""Progress says how far, how fast and how long."""

from __future__ import annotations

import pytest

from remime.progress import Progress, track


class Clock:
    """A clock that only moves when it is told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("remime.progress.time.monotonic", clock)
    return clock


def test_a_log_gets_one_line_a_minute(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(1200, "align 0001-of-0002", "frames")
    for _ in range(100):
        clock.now += 1
        progress.update(2)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["align 0001-of-0002: 120/1200 frames, 2.0/s, ETA 09:00"]


def test_the_end_says_how_long_it_took(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(None, "invert", "frames") as progress:
        clock.now += 3725
        progress.update(10, note="batch 1")
    assert capsys.readouterr().err.splitlines()[-1].endswith("batch 1, took 1:02:05")


def test_what_was_done_before_does_not_count_in_the_rate(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = Progress(100, "score", "pairs", done=50)
    clock.now += 60
    progress.update(30)
    assert capsys.readouterr().err == "score: 80/100 pairs, 0.5/s, ETA 00:40\n"
    progress.close()
    assert capsys.readouterr().err == "score: 80/100 pairs, 0.5/s, ETA 00:40, took 01:00 for 30 of them\n"


def test_a_terminal_gets_a_live_line(
    clock: Clock, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    progress = Progress(4, "x")
    for _ in range(4):
        clock.now += 0.3
        progress.update()
    text = capsys.readouterr().err
    assert text.count("\r") == 4
    assert "\n" not in text


def test_track_counts_what_it_passes_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track([1, 2, 3], "copy", unit="files")) == [1, 2, 3]
    assert "copy: 3/3 files" in capsys.readouterr().err
