"""Lists of clips, and finding a clip in a tar."""

from __future__ import annotations

import io
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remime.errors import InputError
from remime.sources import Clip, load_source, member_of, read_clips, write_clips

TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1)
CLIP = Clip("a", "v", "i", "train", "video", "x y/ä.mp4", 0.5, None, (1.0, 2.0, 3.0, 4.5), "MIT", "12-34")


def test_lists_are_read_back_without_split_and_terms(tmp_path: Path) -> None:
    other = Clip("b", "v", "i", "test", "image", "b.png")
    write_clips(tmp_path / "clips.tsv", [CLIP, other])
    first, second = read_clips(tmp_path / "clips.tsv")
    assert first == Clip(
        "a", "v", "i", "", "video", "x y/ä.mp4", 0.5, None, (1.0, 2.0, 3.0, 4.5), "", "12-34"
    )
    assert (second.start, second.end, second.box) == (None, None, ())


def test_a_new_split_leaves_a_list_as_it_is(tmp_path: Path) -> None:
    write_clips(tmp_path / "a", [CLIP])
    write_clips(tmp_path / "b", [replace(CLIP, split="test", terms="other")])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@given(TEXT, st.floats(0, 1e6))
def test_any_path_survives(tmp_path_factory: pytest.TempPathFactory, path: str, start: float) -> None:
    file = tmp_path_factory.mktemp("clips") / "clips.tsv"
    write_clips(file, [Clip("a", "v", "i", "", "video", path + '\t"\n' + path, start)])
    (clip,) = read_clips(file)
    assert (clip.path, clip.start) == (path + '\t"\n' + path, start)


@pytest.mark.parametrize("text", ["", "clip\tvideo\n", "no table at all", "clip\tvideo\tidentity\n1\t2\t3\n"])
def test_what_is_no_list_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "clips.tsv").write_text(text)
    with pytest.raises(InputError, match="run the stage split again"):
        read_clips(tmp_path / "clips.tsv")
    with pytest.raises(InputError, match="missing"):
        read_clips(tmp_path / "missing.tsv")


def test_a_manifest_row_makes_the_clip_again() -> None:
    assert Clip.from_row(CLIP.row()) == CLIP


def test_members_are_plain_files_at_the_top(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("a.npz", "sub/a.mp4", "a.b.mp4", "a.mp4"):
            info = tarfile.TarInfo(name)
            info.size = 1
            tar.addfile(info, io.BytesIO(b"x"))
        link = tarfile.TarInfo("c.mp4")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with tarfile.open(path) as tar:
        found = {clip: member_of(tar, clip) for clip in ("a", "a.b", "b", "c", "sub/a", "../a")}
    assert {clip: member.name for clip, member in found.items() if member} == {"a": "a.mp4", "a.b": "a.b.mp4"}


def test_an_unknown_source_is_refused() -> None:
    with pytest.raises(InputError, match="there is no source 'nothing'"):
        load_source("nothing")
