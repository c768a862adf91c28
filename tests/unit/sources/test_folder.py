"""A folder of videos and images, with names as users have them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remime.errors import InputError
from remime.shards import split_of
from remime.sources import Clip
from remime.sources.folder import clips, safe_name

NAME = re.compile(r"[A-Za-z0-9_-]+")
List = Callable[..., list[Clip]]


@pytest.fixture
def list_clips(tmp_path: Path) -> List:
    """``list_clips(files, **options)`` makes the files and lists them."""

    def make(files: list[str], **options: Any) -> list[Clip]:
        root = tmp_path / "my clips"
        root.mkdir(exist_ok=True)
        for name in files:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(name.encode())
        return clips("mine", {"path": str(root), "seed": 1, **options}, None)

    return make


def test_the_sub_folder_is_the_identity(list_clips: List) -> None:
    found = {c.video: c for c in list_clips(["ann/1.mp4", "ann/deep/2.MOV", "bob/1.mp4", "top.png"])}
    assert {video: c.identity for video, c in found.items()} == {
        "ann/1.mp4": "ann",
        "ann/deep/2.MOV": "ann",
        "bob/1.mp4": "bob",
        "top.png": "top",
    }
    assert {video: c.kind for video, c in found.items()}["top.png"] == "image"
    assert found["ann/1.mp4"].split == split_of("ann", 1)
    assert Path(found["ann/1.mp4"].path).read_bytes() == b"ann/1.mp4"


def test_every_file_can_be_an_identity(list_clips: List) -> None:
    found = list_clips(["ann/1.mp4", "ann/2.mp4"], identity="file")
    assert len({clip.identity for clip in found}) == 2


def test_names_are_unique_and_safe(list_clips: List) -> None:
    files = [
        "a/x.mp4",
        "b/x.mp4",
        "a-b/x.mp4",
        "a/b-x.mp4",
        "ü/ü 1.mp4",
        "u/u 1.mp4",
        "李/视频.mp4",
        "李/视 频.mp4",
    ]
    files += [
        "c/y.mp4",
        "c/y.png",
        "C/Y.mp4",
        "d/#?*.mp4",
        "d/'; rm -rf $HOME.mp4",
        "e/" + "z" * 200 + ".mp4",
    ]
    found = list_clips(files)
    assert {clip.video for clip in found} == set(files)
    for names in ([c.clip for c in found], sorted({c.identity for c in found})):
        assert len({name.lower() for name in names}) == len(names)
        assert all(NAME.fullmatch(name) and len(name) <= 100 for name in names)
    assert next(clip.clip for clip in found if clip.video == "b/x.mp4") == "b-x"


def test_an_added_file_renames_nobody(list_clips: List) -> None:
    before = {c.video: c for c in list_clips(["a/x.mp4", "ü/x.mp4"])}
    after = {c.video: c for c in list_clips(["a/y.mp4", "b/x.mp4", "é/x.mp4"])}
    assert {video: after[video] for video in before} == before


@given(st.text(max_size=300))
def test_any_text_becomes_a_safe_name(text: str) -> None:
    assert NAME.fullmatch(safe_name(text))
    assert len(safe_name(text)) <= 80


def test_a_changed_file_changes_its_stamp(list_clips: List) -> None:
    (before,) = list_clips(["a/x.mp4"])
    Path(before.path).write_bytes(b"other bytes")
    (after,) = list_clips([])
    assert after.stamp != before.stamp


def test_only_known_files_are_taken_and_hidden_ones_are_not(list_clips: List) -> None:
    files = ["a/x.mp4", "a/notes.txt", ".cache/y.mp4", "a/.z.mp4", "a/x.JPG"]
    assert sorted(clip.video for clip in list_clips(files)) == ["a/x.JPG", "a/x.mp4"]
    assert [clip.video for clip in list_clips([], suffixes=[".jpg"])] == ["a/x.JPG"]


def test_names_that_are_no_text_are_left_out_aloud(
    list_clips: List, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    list_clips(["a/x.mp4"])
    with open(os.fsencode(tmp_path / "my clips" / "a") + b"/\xff.mp4", "wb"):  # noqa: PTH123
        pass
    assert [clip.video for clip in list_clips([])] == ["a/x.mp4"]
    assert "not UTF-8" in caplog.text


def test_an_empty_folder_is_a_clear_error(list_clips: List, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no video or image is in it \(found: nothing\)"):
        list_clips([])
    with pytest.raises(InputError, match=r"found: 1 × \.txt"):
        list_clips(["a/notes.txt"])
    with pytest.raises(InputError, match="is not a folder"):
        clips("mine", {"path": str(tmp_path / "none")}, None)


class TestTable:
    """Identities from a CSV file."""

    @staticmethod
    def write(tmp_path: Path, text: str) -> str:
        path = tmp_path / "people.csv"
        path.write_text(text, encoding="utf-8-sig")
        return str(path)

    def test_it_decides_files_identities_splits_and_cuts(self, list_clips: List, tmp_path: Path) -> None:
        table = self.write(
            tmp_path,
            "path,identity,split,start,end\n"
            "a/x.mp4,Ann Ä.,test,,\nb/y.mp4,Bob,train,0,2.5\nb/y.mp4,Bob,train,2.5,\n",
        )
        found = list_clips(["a/x.mp4", "b/y.mp4", "c/z.mp4"], table=table)
        assert [(c.video, c.split, c.start, c.end) for c in found] == [
            ("a/x.mp4", "test", None, None),
            ("b/y.mp4", "train", 0.0, 2.5),
            ("b/y.mp4", "train", 2.5, None),
        ]
        assert found[1].clip == "b-y-0ms-2500ms"
        assert len({clip.identity for clip in found}) == 2

    def test_without_splits_they_follow_the_identity(self, list_clips: List, tmp_path: Path) -> None:
        (clip,) = list_clips(["a/x.mp4"], table=self.write(tmp_path, "path,identity\na/x.mp4,Ann\n"))
        assert clip.split == split_of("Ann", 1)

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("path,person\na/x.mp4,Ann\n", "has the columns path, person"),
            ("path,identity,note\na/x.mp4,Ann,x\n", "allowed: path, identity, split, start, end"),
            ("path,identity\n", "has no rows"),
            ("path,identity\na/x.mp4,Ann\nno.mp4,Bob\n", "line 3: 'no.mp4' is not a file"),
            ("path,identity\na/x.mp4,\n", "line 2: the identity is empty"),
            ("path,identity\na/x.mp4\n", "line 2: has another number of columns"),
            ("path,identity,split\na/x.mp4,Ann,dev\n", "split 'dev' is not one of train, val, test"),
            ("path,identity,start\na/x.mp4,Ann,soon\n", "start 'soon' is not a number of seconds"),
            ("path,identity,start,end\na/x.mp4,Ann,3,2\n", "start 3 and end 2 do not enclose"),
            ("path,identity\na/x.mp4,Ann\na/x.mp4,Bob\n", "lists twice"),
            (
                "path,identity,split\na/x.mp4,Ann,test\na/y.mp4,Ann,train\n",
                "identities in several splits: Ann",
            ),
        ],
    )
    def test_what_is_wrong_is_told_by_line(
        self, list_clips: List, tmp_path: Path, text: str, problem: str
    ) -> None:
        list_clips(["a/x.mp4", "a/y.mp4"])
        with pytest.raises(InputError) as caught:
            list_clips([], table=self.write(tmp_path, text))
        assert problem in str(caught.value)

    def test_a_binary_file_is_refused(self, list_clips: List, tmp_path: Path) -> None:
        path = tmp_path / "people.csv"
        path.write_bytes(b"\xff\xfe\x00path")
        with pytest.raises(InputError, match="cannot be read"):
            list_clips(["a/x.mp4"], table=str(path))
