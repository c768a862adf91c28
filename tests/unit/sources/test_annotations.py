"""What the parsers of published metadata share."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path, PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remime.sources.annotations import (
    Annotation,
    Name,
    checked_box,
    checked_times,
    local_clips,
    number,
    read_lines,
    whole,
)
from tests.unit.sources.published import kinds, touch


@given(st.text())
def test_any_text_is_a_finite_number_or_refused(text: str) -> None:
    for parse in (number, whole):
        with contextlib.suppress(ValueError):
            assert math.isfinite(parse(text))


@given(st.integers(-(10**12), 10**12), st.integers(0, 999))
def test_plain_decimals_are_numbers(integer: int, thousandths: int) -> None:
    assert number(f"{integer}.{thousandths:03d}") == float(f"{integer}.{thousandths:03d}")
    assert whole(str(abs(integer))) == abs(integer)


@pytest.mark.parametrize("text", ["", "1_0", "nan", "inf", "1e3", " 1", "0x1", "٣", "1" * 20, "--1"])
def test_what_only_python_takes_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a"):
        number(text)
    with pytest.raises(ValueError, match="is not a"):
        whole(text)


def test_boxes_and_times_enclose_something() -> None:
    assert checked_box(-1, 2, 3, 4) == (-1, 2, 3, 4)
    assert checked_times(0, 0.5) == (0, 0.5)
    for box in ((0, 0, 0, 1), (0, 0, 1, -1), (0, 0, 1, math.inf), (math.nan, 0, 1, 1)):
        with pytest.raises(ValueError, match="encloses nothing"):
            checked_box(*box)
    for times in ((1, 1), (2, 1), (-1, 1), (0, math.inf), (math.nan, 1)):
        with pytest.raises(ValueError, match="enclose nothing"):
            checked_times(*times)


def test_lines_of_any_file(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes(b"\xef\xbb\xbfa\r\nb\xff\n\nc")
    assert list(read_lines(path)) == [(1, "a\n"), (2, "b\ufffd\n"), (3, "\n"), (4, "c")]
    path.write_bytes(b"x" * 2_500_000)
    assert [len(text) for _, text in read_lines(path)] == [1_000_000, 1_000_000, 500_000]


def identify(path: PurePath) -> Name | None:
    return Name(path.stem, "video", "person")


def annotation(clip: str) -> Annotation:
    return Annotation(Name(clip, "video", "person"), "youtube", 0, 1)


def unread(path):
    raise AssertionError("there is no metadata")


def test_an_annotation_that_comes_twice_counts_once(tmp_path: Path) -> None:
    root = touch(tmp_path, "a.mp4", "b.mp4")
    found = local_clips(
        {"path": root, "metadata": "list"}, identify, lambda path: map(annotation, "aba"), "any"
    )
    assert [clip.clip for clip in found] == ["a", "b"]
    assert kinds(found.problems) == {"repeated": 1}


def test_hidden_files_and_other_kinds_are_not_looked_at(tmp_path: Path) -> None:
    root = touch(tmp_path, "a.mp4", ".b.mp4", ".cache/c.mp4", "d.txt", "e.wav")
    found = local_clips({"path": root}, identify, unread, "any")
    assert ([clip.clip for clip in found], found.problems) == (["a"], [])


def test_a_name_that_is_no_text_is_told(tmp_path: Path) -> None:
    root = touch(tmp_path / "clips", "a.mp4")
    folder = bytes(root) + b"/\xff"
    Path(folder.decode(errors="surrogateescape")).mkdir()
    touch(Path(folder.decode(errors="surrogateescape")), "b.mp4")
    found = local_clips({"path": root}, identify, unread, "any")
    assert [clip.clip for clip in found] == ["a"]
    assert kinds(found.problems) == {"unknown_name": 1}


def test_a_changed_file_changes_its_stamp(tmp_path: Path) -> None:
    root = touch(tmp_path, "a.mp4")
    (before,) = local_clips({"path": root}, identify, unread, "any")
    (root / "a.mp4").write_bytes(b"other bytes")
    (after,) = local_clips({"path": root}, identify, unread, "any")
    assert before.stamp != after.stamp
