"""HDTF: the five text files of a group, and the names of cut clips."""

from __future__ import annotations

from pathlib import Path, PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remime.errors import InputError
from remime.shards import split_of
from remime.sources.hdtf import clips, identify, person_of, read_metadata
from tests.unit.sources.published import kinds, parted, touch

# Lines as they are published: with a blank at the end of one, without an end of line at the end of a file.
RD = {
    "video_url": "Radio11 https://www.youtube.com/watch?v=XtySvTwIOfw\n"
    "Radio10 https://www.youtube.com/watch?v=ZoRK17RCZHY&t=6s\n",
    "resolution": "Radio10.mp4 720\nRadio11.mp4 720\n",
    "annotion_time": "Radio11.mp4 00:30-01:00 01:30-02:30 \nRadio10.mp4 00:30-02:50",
    "crop_wh": "Radio10_0.mp4 483 390 0 390\nRadio11_0.mp4 412 599 0 599\nRadio11_1.mp4 557 478 0 478\n",
    "crop_ratio": "Radio10_0.mp4 1.0\nRadio11_0.mp4 1.2\nRadio11_1.mp4 1.2\n",
}


def write_group(folder: Path, group: str, **change: str | None) -> Path:
    folder.mkdir(exist_ok=True)
    for kind, text in {**RD, **change}.items():
        path = folder / f"{group}_{kind}.txt"
        if text is None:
            path.unlink(missing_ok=True)
        else:
            path.write_bytes(text.encode("utf-8", "replace"))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose files every example writes anew."""
    return tmp_path_factory.mktemp("examples")


def test_a_clip_has_times_address_and_crop(tmp_path: Path) -> None:
    found, problems = parted(read_metadata(write_group(tmp_path, "RD")))
    assert problems == []
    assert sorted(found) == ["Radio10_0", "Radio11_0", "Radio11_1"]
    clip = found["Radio11_1"]
    assert (clip.start, clip.end, clip.youtube) == (90, 150, "XtySvTwIOfw")
    # The file says x, width, y, height.
    assert (clip.box, clip.lines) == ((557, 0, 478, 478), 720)
    assert found["Radio10_0"].youtube == "ZoRK17RCZHY"


def test_all_groups_are_read(tmp_path: Path) -> None:
    write_group(tmp_path, "RD")
    other = {kind: text.replace("Radio", "BobCasey") for kind, text in RD.items()}
    found, problems = parted(read_metadata(write_group(tmp_path, "WRA", **other)))
    assert (len(found), problems) == (6, [])


@pytest.mark.parametrize(
    ("change", "kind", "what", "count"),
    [
        ({"annotion_time": "Radio11.mp4 00:30\n"}, "malformed", "'00:30' is not mm:ss-mm:ss", 0),
        ({"annotion_time": "Radio11.mp4 01:00-00:30\n"}, "malformed", "60 s and 30 s enclose nothing", 0),
        ({"annotion_time": "Radio11.mp4 30-60\n"}, "malformed", "'30' is not mm:ss", 0),
        ({"annotion_time": "Radio11.mp4\n"}, "malformed", "is not a name with values", 0),
        ({"annotion_time": "Radio10.mp4 00:30-02:50\n" * 2}, "repeated", "Radio10 stands at", 1),
        ({"video_url": "Radio11 https://youtu.be/XtySvTwIOfw\n"}, "incomplete", "has no address", 3),
        (
            {"video_url": RD["video_url"].replace("&t=6s", "x")},
            "incomplete",
            "is not a video on YouTube",
            3,
        ),
        ({"video_url": "Radio11 https://[\nRadio10 https://[\n"}, "incomplete", "Invalid IPv6 URL", 3),
        ({"resolution": RD["resolution"].replace("Radio10.mp4 720", "Radio10.mp4 0")}, "incomplete", "0", 3),
        ({"crop_wh": RD["crop_wh"].replace("Radio10_0.mp4", "Radio12_0.mp4")}, "incomplete", "no crop", 3),
        ({"crop_wh": RD["crop_wh"].replace("0 390\n", "0\n")}, "incomplete", "3 values instead of x", 3),
        ({"crop_wh": RD["crop_wh"].replace("390 0", "-390 0")}, "incomplete", "encloses nothing", 3),
    ],
)
def test_what_is_wrong_is_told(
    tmp_path: Path, change: dict[str, str], kind: str, what: str, count: int
) -> None:
    found, problems = parted(read_metadata(write_group(tmp_path, "RD", **change)))
    assert len(found) == count
    assert {problem.kind for problem in problems} == {kind}
    assert what in problems[0].what


def test_a_missing_file_leaves_clips_without_what_it_says(tmp_path: Path) -> None:
    write_group(tmp_path, "RD", crop_wh=None)
    found, problems = parted(read_metadata(tmp_path))
    assert [(clip.box, clip.lines) for clip in found.values()] == [((), 0)] * 3
    assert kinds(problems) == {"malformed": 1, "incomplete": 3}
    assert "RD_crop_wh.txt" in problems[0].where


def test_a_malformed_line_is_told_with_its_line(tmp_path: Path) -> None:
    text = "\n#!?\n" + RD["annotion_time"]
    found, (problem,) = parted(read_metadata(write_group(tmp_path, "RD", annotion_time=text)))
    assert (len(found), problem.where) == (3, f"{tmp_path}/RD_annotion_time.txt:2")


def test_hours_are_read(tmp_path: Path) -> None:
    text = "Radio11.mp4 00:59:30-1:00:01.5\n"
    found, _ = parted(read_metadata(write_group(tmp_path, "RD", annotion_time=text)))
    assert (found["Radio11_0"].start, found["Radio11_0"].end) == (3570, 3601.5)


LINE = st.text(st.characters(exclude_characters="\r\n"), max_size=40)


@given(st.sampled_from(["video_url", "resolution", "annotion_time", "crop_wh"]), st.lists(LINE, max_size=20))
def test_any_lines_are_read(folder: Path, kind: str, lines: list[str]) -> None:
    text = RD[kind].rstrip() + "\n" + "".join(f"{line}\n" for line in lines)
    found, problems = parted(read_metadata(write_group(folder, "RD", **{kind: text})))
    assert {"Radio10_0", "Radio11_0", "Radio11_1"} <= set(found)
    others = sum(bool(line.split()) for line in lines)
    assert len(problems) <= 2 * others


@given(st.lists(LINE.filter(lambda line: not line[:1].isascii()), max_size=20))
def test_every_line_without_a_name_is_counted(folder: Path, lines: list[str]) -> None:
    text = RD["annotion_time"] + "\n" + "".join(f"{line}\n" for line in lines)
    found, problems = parted(read_metadata(write_group(folder, "RD", annotion_time=text)))
    # What str.split takes for white space may leave a plain name behind.
    assert len(found) + len(problems) >= 3 + sum(bool(line.split()) for line in lines)


def test_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no RD_, WDA_ or WRA_annotion_time\.txt"):
        read_metadata(tmp_path)
    with pytest.raises(InputError, match=r"is not a folder\n  name the folder HDTF_dataset"):
        read_metadata(tmp_path / "none")


@pytest.mark.parametrize(
    ("path", "clip"),
    [
        ("Radio11_0.mp4", "Radio11_0"),
        ("RD_Radio11_000.mp4", "Radio11_0"),
        ("clips/WDA_LucilleRoybal-Allard_012.mp4", "LucilleRoybal-Allard_12"),
        ("Radio11.mp4", None),
        ("_videos_raw/RD_Radio11.mp4", None),
        ("11_0.mp4", None),
    ],
)
def test_names_of_files(path: str, clip: str | None) -> None:
    name = identify(PurePath(path))
    assert (name.clip if name else None) == clip


@pytest.mark.parametrize(
    ("video", "person"),
    [
        ("AmyKlobuchar0", "AmyKlobuchar"),
        ("AmyKlobuchar1", "AmyKlobuchar"),
        ("ChrisCoons", "ChrisCoons"),
        ("Radio11", "Radio11"),
        ("Radio1", "Radio1"),
    ],
)
def test_videos_of_one_person_are_one_identity(video: str, person: str) -> None:
    assert person_of(video) == person


def test_clips_on_a_disk(tmp_path: Path) -> None:
    root = touch(tmp_path / "hdtf", "Radio11_0.mp4", "Radio11_1.mp4", "AmyKlobuchar0_0.mp4", "Radio11.mp4")
    options = {"path": str(root), "metadata": None, "seed": 2}
    found = clips("hdtf", options, None)
    assert [(c.clip, c.video, c.identity) for c in found] == [
        ("AmyKlobuchar0_0", "AmyKlobuchar0", "AmyKlobuchar"),
        ("Radio11_0", "Radio11", "Radio11"),
        ("Radio11_1", "Radio11", "Radio11"),
    ]
    assert (found[0].split, found[0].box) == (split_of("AmyKlobuchar", 2), ())
    assert kinds(found.problems) == {"unknown_name": 1}
    metadata = write_group(tmp_path / "HDTF_dataset", "RD")
    found = clips("hdtf", {**options, "metadata": str(metadata)}, None)
    assert [clip.clip for clip in found] == ["Radio11_0", "Radio11_1"]
    assert kinds(found.problems) == {"unknown_name": 1, "no_file": 1, "no_metadata": 1}
