"""Parts of a video hold every frame of their range, at its time."""

from __future__ import annotations

from pathlib import Path

import pytest

from remime.sources.parts import copy_parts, load_parts, merged, note_parts
from remime.video import VideoError, read
from tests import clips

H264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", 12)
CODECS = {
    "b-frames.mp4": (25, (*H264, "-bf", 3, "-g", 60)),
    "fragments.mp4": (25, (*H264, "-g", 60, "-movflags", "frag_keyframe+empty_moov+default_base_moof")),
    "open-groups.mkv": (30, (*H264, "-x264-params", "open-gop=1:keyint=40")),
    "no-index.ts": (25, (*H264, "-g", 60)),
    "vp9.webm": (30000 / 1001, ("-c:v", "libvpx-vp9", "-b:v", "1M", "-g", 60, "-deadline", "realtime")),
    "vp8.webm": (25, ("-c:v", "libvpx", "-b:v", "1M", "-g", 60, "-deadline", "realtime")),
}
FRAMES = 200
RANGES = [(0.0, 0.5), (3.0, 4.0), (5.2, 5.24), (6.5, 30.0)]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, frames = tmp_path_factory.mktemp("videos"), clips.numbered(FRAMES)
    return {name: clips.encode(folder / name, frames, fps, codec) for name, (fps, codec) in CODECS.items()}


def numbers(path: Path, start: float, end: float) -> list[int]:
    return [clips.read_number(frame.image) for frame in read(path, start, end)]


@pytest.mark.parametrize("name", CODECS)
def test_a_part_has_the_frames_of_its_range(videos: dict[str, Path], name: str, tmp_path: Path) -> None:
    fps = CODECS[name][0]
    with videos[name].open("rb") as file:
        parts = copy_parts(file, RANGES, tmp_path)
    for part, (start, end) in zip(parts, RANGES, strict=True):
        found = numbers(part.path, start - part.offset, end - part.offset)
        # Frame n is shown from n / fps on; Matroska rounds times to milliseconds.
        expected = [n for n in range(FRAMES) if start - 6e-4 <= n / fps < end - 6e-4]
        assert found == expected, (name, start)
        assert part.fps == pytest.approx(fps, abs=0.01)
        assert part.finished == (end > FRAMES / fps)
    assert load_parts(tmp_path, RANGES) is None
    note_parts(tmp_path, parts)
    assert load_parts(tmp_path, RANGES) == parts


def test_a_part_begins_at_a_key_frame_near_its_range(videos: dict[str, Path], tmp_path: Path) -> None:
    with videos["b-frames.mp4"].open("rb") as file:
        (part,) = copy_parts(file, [(5.0, 5.5)], tmp_path)
    assert 0 < part.offset <= 5
    assert part.path.stat().st_size < videos["b-frames.mp4"].stat().st_size / 2


def test_parts_of_other_ranges_or_half_of_them_are_not_taken_up(
    videos: dict[str, Path], tmp_path: Path
) -> None:
    assert load_parts(tmp_path, RANGES) is None
    with videos["b-frames.mp4"].open("rb") as file:
        parts = copy_parts(file, RANGES[:2], tmp_path)
    note_parts(tmp_path, parts)
    assert load_parts(tmp_path, RANGES) is None
    parts[1].path.unlink()
    assert load_parts(tmp_path, RANGES[:2]) is None
    (tmp_path / "parts.json").write_text('{"half')
    assert load_parts(tmp_path, RANGES[:2]) is None


def test_what_is_no_video_says_so(tmp_path: Path) -> None:
    (tmp_path / "page").write_bytes(b"<html>" + bytes(5000))
    with (tmp_path / "page").open("rb") as file, pytest.raises(VideoError, match="cannot be read"):
        copy_parts(file, RANGES, tmp_path)
    clips.tone(tmp_path / "tone.m4a")
    with (tmp_path / "tone.m4a").open("rb") as file, pytest.raises(VideoError, match="no pictures"):
        copy_parts(file, RANGES, tmp_path)


def test_the_check_comes_before_anything_is_copied(videos: dict[str, Path], tmp_path: Path) -> None:
    def refuse(lines: int) -> None:
        assert lines == 64
        raise VideoError("it", "is small")

    with videos["b-frames.mp4"].open("rb") as file, pytest.raises(VideoError, match="is small"):
        copy_parts(file, RANGES, tmp_path, refuse)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        ([(30, 40), (0, 10)], [(0, 10), (30, 40)]),
        ([(0, 10), (12, 20), (19, 19.5)], [(0, 20)]),
        ([(0, 30), (5, 6), (40, 41)], [(0, 30), (40, 41)]),
    ],
)
def test_ranges_that_are_near_are_one(
    ranges: list[tuple[float, float]], expected: list[tuple[float, float]]
) -> None:
    assert merged(ranges) == expected
