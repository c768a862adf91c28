"""VoxCeleb 1 and 2: utterances, FOMM's table, and the layouts in which videos lie on disks."""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remime.errors import InputError
from remime.shards import split_of
from remime.sources import Listing, Problem, voxceleb1, voxceleb2
from remime.sources.annotations import Name
from remime.sources.voxceleb import Row, identify, read_metadata, read_rows
from tests.unit.sources.published import kinds, parted, touch

# As published: tabs, a blank before each tab of the table, numbers with leading zeros.
HEADER = (
    "Identity  : \tid10270\nReference : \t5r0dWxy17C8\nOffset    : \t-2\n"
    "FV Conf   : \t18.865\t(1)\nASD Conf  : \t5.046\n\nFRAME \tX \tY \tW \tH \n"
)
ABSOLUTE = HEADER + "004300 \t257 \t059 \t160 \t160 \n004301 \t250 \t061 \t162 \t162 \n"
NORMALISED = HEADER + "000245 \t0.359 \t0.162 \t0.146 \t0.259 \n000246 \t0.361 \t0.160 \t0.146 \t0.259 \n"
TABLE = (
    "video_id,start,end,bbox,fps,width,height,partition,person_id\n"
    "WMh3ye5tBsE,3657,3994,624-48-1018-553,25,1280,720,train,id10005\n"
    "5r0dWxy17C8,100,200,10-20-110-220,25,640,360,test,id10270\n"
)


def utterance(root: Path, text: str, name: str = "id10270/5r0dWxy17C8/00001.txt") -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose files every example writes anew."""
    return tmp_path_factory.mktemp("examples")


class TestUtterances:
    """The official txt files."""

    def test_voxceleb_1_in_pixels_of_360_lines(self, tmp_path: Path) -> None:
        found, problems = parted(read_metadata(utterance(tmp_path, ABSOLUTE), lines=360))
        annotation = found["id10270-5r0dWxy17C8-00001"]
        assert problems == []
        assert annotation.name == Name("id10270-5r0dWxy17C8-00001", "5r0dWxy17C8", "id10270")
        assert (annotation.youtube, annotation.lines) == ("5r0dWxy17C8", 360)
        # 4300 / 25 s; the last frame, 4301, ends at 4302 / 25 s.
        assert (annotation.start, annotation.end) == (172.0, 172.08)
        # x 250..417, y 59..223
        assert annotation.box == (250, 59, 167, 164)

    def test_voxceleb_2_in_fractions(self, tmp_path: Path) -> None:
        found, _ = parted(read_metadata(utterance(tmp_path, NORMALISED), lines=0))
        (annotation,) = found.values()
        assert annotation.lines == 0
        assert annotation.box == pytest.approx((0.359, 0.160, 0.148, 0.261))

    @pytest.mark.parametrize("end", ["\r\n", "\r", "\n"])
    def test_any_end_of_line(self, tmp_path: Path, end: str) -> None:
        found, problems = parted(read_metadata(utterance(tmp_path, ABSOLUTE.replace("\n", end)), lines=360))
        assert (len(found), problems) == (1, [])

    @pytest.mark.parametrize(
        ("row", "what"),
        [
            ("004302 \t257 \t059 \t160", "'004302 \\t257 \\t059 \\t160' is not frame, x, y, width, height"),
            ("004302 \t257 \t059 \t160 \t160 \t1", "is not frame, x, y, width, height in plain numbers"),
            ("frame \t257 \t059 \t160 \t160", "is not frame"),
            ("-1 \t257 \t059 \t160 \t160", "is not frame"),
            ("004302 \tnan \t059 \t160 \t160", "is not frame"),
            ("004302 \t1e400 \t059 \t160 \t160", "is not frame"),
            ("004302 \t257 \t059 \t0 \t160", "encloses nothing"),
            ("\u0664 \t257 \t059 \t160 \t160", "is not frame"),
        ],
    )
    def test_a_malformed_row_is_told_with_its_line(self, tmp_path: Path, row: str, what: str) -> None:
        text = ABSOLUTE.replace("004301", row + "\n004301")
        found, (problem,) = parted(read_metadata(utterance(tmp_path, text), lines=360))
        assert (found["id10270-5r0dWxy17C8-00001"].end, problem.kind) == (172.08, "malformed")
        assert problem.where == f"{tmp_path}/id10270/5r0dWxy17C8/00001.txt:9"
        assert what in problem.what

    @pytest.mark.parametrize("text", ["", HEADER, "004300 \t257 \t059 \t160 \t160\n", "\x00\x01\n"])
    def test_a_file_without_frames_is_one_problem(self, tmp_path: Path, text: str) -> None:
        found, (problem,) = parted(read_metadata(utterance(tmp_path, text), lines=360))
        assert (found, problem.what) == ({}, "has no row of a frame below FRAME X Y W H")

    def test_other_text_files_are_told(self, tmp_path: Path) -> None:
        utterance(tmp_path, "hello", "README.txt")
        _, (problem,) = parted(read_metadata(utterance(tmp_path, ABSOLUTE), lines=360))
        assert problem.what == "is not named idNNNNN/YOUTUBEID/NNNNN.txt"

    @given(st.lists(st.text(st.characters(exclude_characters="\r\n"), max_size=40), max_size=20))
    def test_any_lines_are_rows_or_problems(self, folder: Path, lines: list[str]) -> None:
        text = HEADER + "".join(f"{line}\n" for line in lines)
        utterance(folder, text.encode("utf-8", "replace").decode())
        entries = list(read_rows(folder / "id10270/5r0dWxy17C8/00001.txt"))
        assert len(entries) == sum(bool(line.split()) for line in lines)
        assert all(isinstance(entry, Row | Problem) for entry in entries)

    @given(st.lists(st.tuples(st.integers(0, 10**6), *4 * [st.integers(1, 4000)]), min_size=1, max_size=9))
    def test_the_box_covers_all_rows(self, folder: Path, rows: list[tuple[int, int, int, int, int]]) -> None:
        text = HEADER + "".join("".join(f"{value} \t" for value in row) + "\n" for row in rows)
        found, _ = parted(read_metadata(utterance(folder, text), lines=360))
        ((x, y, width, height),) = [annotation.box for annotation in found.values()]
        inside = [x <= r[1] and r[1] + r[3] <= x + width for r in rows]
        inside += [y <= r[2] and r[2] + r[4] <= y + height for r in rows]
        assert all(inside)

    @given(st.binary(max_size=400))
    def test_any_bytes_are_read(self, folder: Path, data: bytes) -> None:
        utterance(folder, "")
        (folder / "id10270/5r0dWxy17C8/00001.txt").write_bytes(HEADER.encode() + data)
        found, problems = parted(read_metadata(folder, lines=0))
        assert found or problems


class TestTable:
    """FOMM's vox-metadata.csv."""

    def test_the_published_form(self, tmp_path: Path) -> None:
        path = tmp_path / "vox-metadata.csv"
        path.write_text(TABLE)
        found, problems = parted(read_metadata(path, lines=0))
        annotation = found["id10005-WMh3ye5tBsE-003657-003994"]
        assert problems == []
        assert (annotation.name.identity, annotation.youtube) == ("id10005", "WMh3ye5tBsE")
        assert (annotation.start, annotation.end) == (3657 / 25, 3994 / 25)
        assert (annotation.box, annotation.lines) == ((624, 48, 394, 505), 720)

    def test_the_form_that_its_preprocessing_writes(self, tmp_path: Path) -> None:
        path = tmp_path / "own.csv"
        path.write_text(
            "bbox,start,end,fps,video_id,height,width,partition\n"
            "1-2-11-22,0,64,25,WMh3ye5tBsE#id10005,720,1280,train\n"
        )
        found, _ = parted(read_metadata(path, lines=0))
        assert found["id10005-WMh3ye5tBsE-000000-000064"].box == (1, 2, 10, 20)

    @pytest.mark.parametrize(
        ("row", "what"),
        [
            ("WMh3ye5tBsE,3657,3994,624-48-1018-553,25,1280,720,train", "8 values instead of 9"),
            ("short,1,2,1-2-3-4,25,1280,720,train,id10005", "'short' is not an id on YouTube"),
            ("WMh3ye5tBsE,1,2,1-2-3-4,25,1280,720,train,Ann", "the person 'Ann' is not idNNNNN"),
            ("WMh3ye5tBsE,2,2,1-2-3-4,25,1280,720,train,id10005", "enclose nothing"),
            ("WMh3ye5tBsE,1,2,1-2-3,25,1280,720,train,id10005", "'1-2-3' is not left-top-right-bottom"),
            ("WMh3ye5tBsE,1,2,3-2-1-4,25,1280,720,train,id10005", "encloses nothing"),
            ("WMh3ye5tBsE,1,2,1-2-3-4,0,1280,720,train,id10005", "fps 0 is not above 0"),
            ("WMh3ye5tBsE,1,2,1-2-3-4,25,1280,0,train,id10005", "width and height are not above 0"),
            ("WMh3ye5tBsE,soon,2,1-2-3-4,25,1280,720,train,id10005", "'soon' is not a whole number"),
        ],
    )
    def test_a_malformed_row_is_told_with_its_line(self, tmp_path: Path, row: str, what: str) -> None:
        path = tmp_path / "vox.csv"
        path.write_text(TABLE + "\n" + row + "\n")
        found, (problem,) = parted(read_metadata(path, lines=0))
        assert (len(found), problem.where) == (2, f"{path}:5")
        assert what in problem.what

    def test_another_table_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "vox.csv"
        path.write_text("video_id,start,end\n")
        with pytest.raises(InputError, match="lacks the columns bbox, fps, width, height"):
            list(read_metadata(path, lines=0))
        with pytest.raises(InputError, match="is neither a folder nor a file"):
            read_metadata(tmp_path / "none", lines=0)

    @given(st.lists(st.text(st.characters(exclude_characters="\r\n"), max_size=60), max_size=20))
    def test_any_lines_are_annotations_or_problems(self, folder: Path, lines: list[str]) -> None:
        path = folder / "vox.csv"
        text = TABLE + "".join(f"{line}\n" for line in lines)
        path.write_bytes(text.encode("utf-8", "replace"))
        found, problems = parted(read_metadata(path, lines=0))
        assert (len(found), len(problems)) == (2, sum(bool(line.strip()) for line in lines))


@pytest.mark.parametrize(
    ("path", "clip"),
    [
        ("mp4/id00017/01dfn2spqyE/00001.mp4", "id00017-01dfn2spqyE-00001"),
        ("dev/mp4/id00017/01dfn2spqyE/00001.mp4", "id00017-01dfn2spqyE-00001"),
        ("id00017/-_dfn2spqyE/00012.mp4", "id00017--_dfn2spqyE-00012"),
        ("train/id10005#WMh3ye5tBsE#003657#003994.mp4", "id10005-WMh3ye5tBsE-003657-003994"),
        ("id10270/5r0dWxy17C8/chunk_videos/5r0dWxy17C8#00001#4300-4301.mp4", "id10270-5r0dWxy17C8-00001"),
        ("id10270/5r0dWxy17C8/5r0dWxy17C8.mp4", None),
        ("id10270/5r0dWxy17C8/chunk_videos/another_one#00001#4300-4301.mp4", None),
        ("id1/01dfn2spqyE/00001.mp4", None),
        ("clip.mp4", None),
    ],
)
def test_names_of_files(path: str, clip: str | None) -> None:
    name = identify(PurePath(path))
    assert (name.clip if name else None) == clip
    assert name is None or (name.identity, name.video) == (name.clip[:7], name.clip[8:19])


class TestLocal:
    """Files that are on a disk."""

    @staticmethod
    def listing(root: Path, metadata: Path | None = None, **options: Any) -> Listing:
        return voxceleb2.clips("vox", {"path": str(root), "metadata": metadata, "seed": 3, **options}, None)

    def test_the_person_is_the_identity_and_decides_the_split(self, tmp_path: Path) -> None:
        names = [f"mp4/id0001{i}/01dfn2spqyE/0000{j}.mp4" for i in range(3) for j in range(2)]
        found = self.listing(touch(tmp_path, *names), terms="CC")
        assert [clip.identity for clip in found] == [f"id0001{i}" for i in (0, 0, 1, 1, 2, 2)]
        assert all(clip.split == split_of(clip.identity, 3) for clip in found)
        assert {(c.kind, c.terms, c.start, c.end, c.box) for c in found} == {("video", "CC", None, None, ())}
        assert [Path(clip.path).read_bytes().decode() for clip in found] == names
        assert found.problems == []

    def test_files_and_metadata_are_matched_and_the_rest_is_told(self, tmp_path: Path) -> None:
        root = touch(
            tmp_path / "mp4",
            "id00017/01dfn2spqyE/00001.mp4",
            "id00017/01dfn2spqyE/00002.mp4",
            "copy/id00017/01dfn2spqyE/00001.mp4",
            "id00017/01dfn2spqyE/trailer.mp4",
            "id00017/01dfn2spqyE/00001.m4a",
        )
        txt = tmp_path / "txt"
        for name in ("00001", "00009"):
            utterance(txt, NORMALISED, f"id00017/01dfn2spqyE/{name}.txt")
        utterance(txt, HEADER + "junk\n", "id00018/01dfn2spqyE/00001.txt")
        found = self.listing(root, txt)
        assert [clip.clip for clip in found] == ["id00017-01dfn2spqyE-00001"]
        assert kinds(found.problems) == {
            "repeated": 1,
            "unknown_name": 1,
            "no_file": 1,
            "no_metadata": 1,
            "malformed": 2,
        }

    def test_fomm_cuts_fit_its_table(self, tmp_path: Path) -> None:
        (tmp_path / "vox-metadata.csv").write_text(TABLE)
        root = touch(tmp_path / "vox", "train/id10005#WMh3ye5tBsE#003657#003994.mp4")
        options = {"path": str(root), "metadata": str(tmp_path / "vox-metadata.csv"), "seed": 1}
        found = voxceleb1.clips("vox", options, None)
        assert [clip.identity for clip in found] == ["id10005"]
        assert kinds(found.problems) == {"no_file": 1}

    def test_what_cannot_be_used_at_all_is_a_clear_error(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="is not a folder"):
            self.listing(tmp_path / "none")
        root = touch(tmp_path / "wav", "id00017/01dfn2spqyE/00001.wav", "x/clip.mp4")
        with pytest.raises(InputError, match=r"no clip is in it \(found: 1 × \.wav; other videos: 1\)"):
            self.listing(root)
        root = touch(tmp_path / "mp4", "id00017/01dfn2spqyE/00001.mp4")
        (tmp_path / "txt").mkdir()
        with pytest.raises(InputError, match=r"no clip can be read from it \(it is empty\)"):
            self.listing(root, tmp_path / "txt")
        txt = utterance(tmp_path / "txt", HEADER)
        with pytest.raises(InputError, match=r"no clip can be read from it .*has no row of a frame"):
            self.listing(root, txt)
        utterance(txt, NORMALISED, "id00017/01dfn2spqyE/00002.txt")
        with pytest.raises(InputError, match=r"none of its 1 clips is among the 1 of .*id00017-01dfn2spqyE"):
            self.listing(root, txt)
