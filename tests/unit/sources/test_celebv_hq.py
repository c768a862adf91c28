"""CelebV-HQ: the JSON file, read piece by piece, and the names of clips."""

from __future__ import annotations

import io
import json
from pathlib import Path, PurePath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remime.errors import InputError
from remime.shards import split_of
from remime.sources import Problem, celebv_hq
from remime.sources.annotations import Annotation
from remime.sources.celebv_hq import clips, identify, read_entry, read_metadata
from tests.unit.sources.published import kinds, parted, touch

# The example of the published description, without its comments.
PUBLISHED = """{
"meta_info":
    {"appearance_mapping": ["Blurry", "Male", "Young"], "action_mapping": ["blow", "chew", "close_eyes"]},
"clips":
{
    "M2Ohb0FAaJU_1":
    {
        "ytb_id": "M2Ohb0FAaJU",
        "duration": {"start_sec": 81.62, "end_sec": 86.17},
        "bbox": {"top": 0.0, "bottom": 0.8815, "left": 0.1964, "right": 0.6922},
        "attributes": {"appearance": [0, 0, 1], "emotion": {"sep_flag": false, "labels": "neutral"}},
        "version": "v0.1"
    },
    "_0tf2n3rlJU_0":
    {
        "ytb_id": "_0tf2n3rlJU",
        "duration": {"start_sec": 52.72, "end_sec": 56.1},
        "bbox": {"top": 0.0, "bottom": 0.8407, "left": 0.5271, "right": 1.0},
        "version": "v0.1"
    }
}
}
"""
ENTRY: dict[str, Any] = json.loads(PUBLISHED)["clips"]["M2Ohb0FAaJU_1"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def write(folder: Path, text: str) -> Path:
    path = folder / "celebvhq_info.json"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose file every example writes anew."""
    return tmp_path_factory.mktemp("examples")


def test_a_clip_has_address_times_and_box(tmp_path: Path) -> None:
    found, problems = parted(read_metadata(write(tmp_path, PUBLISHED)))
    assert (list(found), problems) == (["M2Ohb0FAaJU_1", "_0tf2n3rlJU_0"], [])
    clip = found["M2Ohb0FAaJU_1"]
    assert (clip.youtube, clip.name.identity, clip.name.video) == 3 * ("M2Ohb0FAaJU",)
    assert (clip.start, clip.end, clip.lines) == (81.62, 86.17, 0)
    assert clip.box == pytest.approx((0.1964, 0.0, 0.4958, 0.8815))


class Slow(io.StringIO):
    """A text of which every reading gives a few characters only."""

    def __init__(self, text: str, size: int) -> None:
        super().__init__(text)
        self.size = size

    def read(self, count: int | None = -1, /) -> str:
        return super().read(self.size)


@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_pieces_of_any_size_give_the_same(size: int) -> None:
    read = dict(celebv_hq._entries(celebv_hq._Json(Slow(PUBLISHED, size))))
    assert read == json.loads(PUBLISHED)["clips"]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"ytb_id": None}, "ytb_id 'None' is not an id on YouTube"),
        ({"ytb_id": "x; rm -rf"}, "is not an id on YouTube"),
        ({"duration": {"start_sec": 1}}, "it has no end_sec"),
        ({"duration": [1, 2]}, "it has no start_sec"),
        ({"duration": {"start_sec": 2, "end_sec": 1}}, "the times 2 s and 1 s enclose nothing"),
        ({"duration": {"start_sec": 0, "end_sec": float("nan")}}, "enclose nothing"),
        ({"duration": {"start_sec": 0, "end_sec": 10**400}}, "end_sec is too large"),
        ({"duration": {"start_sec": "0", "end_sec": True}}, "start_sec '0' is not a number"),
        ({"duration": {"start_sec": 0, "end_sec": True}}, "end_sec 'True' is not a number"),
        ({"bbox": {"top": 0, "bottom": 2, "left": 0, "right": 1}}, "is not within 0 and 1"),
        ({"bbox": {"top": 0.5, "bottom": 0.5, "left": 0, "right": 1}}, "encloses nothing"),
        ({"bbox": None}, "it has no top"),
    ],
)
def test_a_malformed_entry_is_told_by_name(change: dict[str, Any], what: str) -> None:
    problem = read_entry("info.json: M2Ohb0FAaJU_1", "M2Ohb0FAaJU_1", ENTRY | change)
    assert isinstance(problem, Problem)
    assert (problem.kind, problem.where) == ("malformed", "info.json: M2Ohb0FAaJU_1")
    assert what in problem.what


@given(st.text(), JSON)
def test_any_entry_is_an_annotation_or_a_problem(key: str, value: Any) -> None:
    assert isinstance(read_entry("x", key, value), Problem)
    assert isinstance(read_entry("x", "M2Ohb0FAaJU_1", ENTRY | {"attributes": value}), Annotation)
    for part in ENTRY.keys() - {"attributes", "version"}:
        assert isinstance(read_entry("x", "M2Ohb0FAaJU_1", ENTRY | {part: value}), Annotation | Problem)


@given(st.dictionaries(st.text(), JSON, max_size=5))
def test_every_entry_is_counted(folder: Path, entries: dict[str, Any]) -> None:
    listed = {**entries, "M2Ohb0FAaJU_1": ENTRY}
    path = write(folder, json.dumps({"clips": listed, "other": entries}))
    found, problems = parted(read_metadata(path))
    assert "M2Ohb0FAaJU_1" in found
    assert len(found) + len(problems) == len(listed)


@given(st.integers(0, len(PUBLISHED) - 1), st.text(max_size=5))
def test_a_broken_file_keeps_what_came_before(folder: Path, cut: int, junk: str) -> None:
    path = write(folder, PUBLISHED[:cut] + junk)
    found, problems = parted(read_metadata(path))
    assert ("M2Ohb0FAaJU_1" in found) or '"_0tf2n3rlJU_0"' not in PUBLISHED[:cut]
    assert found or problems


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("", 1, "'its end' instead of '{'"),
        ("[]", 1, "'[' instead of '{'"),
        ("{}", 1, "it has no clips"),
        ('{"clips": []}', 1, "'[' instead of '{'"),
        ('{"clips":\n\n{"a" 1}}', 3, "'1' instead of ':'"),
        ('{"clips":\n{1: 2}}', 2, "'1' is not a key"),
        ('{"clips": {"a": ' + "[" * 100_000 + "}}", 1, "is not the expected JSON"),
        ('{"clips": {"a": ' + "9" * 5000 + "}}", 1, "is not the expected JSON"),
    ],
)
def test_what_is_not_json_is_told_with_its_line(tmp_path: Path, text: str, where: int, what: str) -> None:
    path = write(tmp_path, text)
    found, (problem,) = parted(read_metadata(path))
    assert (found, problem.where) == ({}, f"{path}:{where}")
    assert what in problem.what


def test_an_error_in_the_midst_is_not_searched_to_the_end(tmp_path: Path) -> None:
    """Three pieces of text follow the error; they are not read into memory first."""
    text = PUBLISHED.replace('_0tf2n3rlJU_0":', '_0tf2n3rlJU_0": oops') + " " * (5 << 20)
    path = write(tmp_path, text)
    with path.open() as handle:
        reader = celebv_hq._Json(handle)
        with pytest.raises(ValueError, match="Expecting value"):
            list(celebv_hq._entries(reader))
        assert len(reader._buffer) < 3 << 20


def test_a_missing_file_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is not a file\n  name celebvhq_info\.json"):
        read_metadata(tmp_path)


@pytest.mark.parametrize(
    ("path", "video"),
    [
        ("35666/M2Ohb0FAaJU_1.mp4", "M2Ohb0FAaJU"),
        ("_0tf2n3rlJU_0.mp4", "_0tf2n3rlJU"),
        ("_LEFBFu2xpE_112_0.mp4", "_LEFBFu2xpE"),
        ("abcdefgh_12_3.mp4", "abcdefgh_12"),
        ("raw/M2Ohb0FAaJU.mp4", None),
        ("clip_1.mp4", None),
    ],
)
def test_names_of_files(path: str, video: str | None) -> None:
    name = identify(PurePath(path))
    assert (name.video if name else None) == video
    assert name is None or name.clip == PurePath(path).stem


def test_clips_on_a_disk(tmp_path: Path) -> None:
    root = touch(tmp_path / "clips", "M2Ohb0FAaJU_1.mp4", "M2Ohb0FAaJU_2.mp4", "raw/M2Ohb0FAaJU.mp4")
    options = {"path": str(root), "metadata": None, "seed": 5}
    found = clips("celebv", options, None)
    assert [(c.clip, c.identity) for c in found] == [(f"M2Ohb0FAaJU_{i}", "M2Ohb0FAaJU") for i in (1, 2)]
    assert {clip.split for clip in found} == {split_of("M2Ohb0FAaJU", 5)}
    assert kinds(found.problems) == {"unknown_name": 1}
    metadata = write(tmp_path, PUBLISHED)
    found = clips("celebv", {**options, "metadata": str(metadata)}, None)
    assert [clip.clip for clip in found] == ["M2Ohb0FAaJU_1"]
    assert kinds(found.problems) == {"unknown_name": 1, "no_file": 1, "no_metadata": 1}


def test_the_identity_of_the_metadata_counts(tmp_path: Path) -> None:
    root = touch(tmp_path / "clips", "M2Ohb0FAaJU_1.mp4")
    metadata = write(tmp_path, json.dumps({"clips": {"M2Ohb0FAaJU_1": ENTRY | {"ytb_id": "_0tf2n3rlJU"}}}))
    (clip,) = clips("celebv", {"path": str(root), "metadata": str(metadata), "seed": 5}, None)
    assert (clip.identity, clip.video, clip.split) == (
        "_0tf2n3rlJU",
        "_0tf2n3rlJU",
        split_of("_0tf2n3rlJU", 5),
    )
