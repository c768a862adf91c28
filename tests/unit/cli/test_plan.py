"""``remime plan``: lists, exports, and what it says when there is nothing to list."""

import csv

import pytest

from remime.stages import plan
from tests.evaluation import make_dataset, read_pairs


@pytest.fixture
def results(tmp_path):
    dataset = make_dataset(tmp_path / "results" / "faces")
    for name in ("cross", "self"):
        path = tmp_path / "results" / "benchmarks" / name / "pairs.parquet"
        plan.run([dataset], path, {"protocol": name, "pairs": 3, "targets": 1})
    return tmp_path / "results"


def test_without_a_protocol_it_says_what_is_planned(remime, results):
    ended = remime("plan", "--results", results)
    assert (ended.code, ended.out) == (0, "cross\t3 pairs\nself\t3 pairs\n")


def test_the_pairs_are_lines_with_tabs(remime, results):
    ended = remime("plan", "cross", "--results", results)
    rows = list(csv.DictReader(ended.out.splitlines(), delimiter="\t"))
    pairs = read_pairs(results / "benchmarks" / "cross")
    assert [row["pair"] for row in rows] == [pair["pair"] for pair in pairs]
    assert [row["driving"] for row in rows] == [f"faces/{pair['driving_clip']}" for pair in pairs]
    assert [int(row["frames"]) for row in rows] == [pair["frames"] for pair in pairs]


def test_an_export_says_what_it_wrote(remime, results, tmp_path):
    folder = tmp_path / "for them"
    arguments = ("plan", "self", "--results", results, "--export", folder, "--frames", "--originals")
    assert remime(*arguments).out == f"{folder}/pairs.csv: 3 pairs, 9 files written\n"
    assert remime(*arguments).out == f"{folder}/pairs.csv: 3 pairs, 0 files written\n"
    assert {path.name for path in folder.iterdir()} == {
        "pairs.csv", "README.md", "driving", "targets", "frames", ".export.json",
    }  # fmt: skip


def test_bad_input_ends_with_2_and_a_way_out(remime, results, tmp_path):
    for arguments, said in (
        (("plan", "corss"), "planned: cross, self"),
        (("plan", "--export", tmp_path / "x"), "needs the name of a protocol"),
    ):
        ended = remime(*arguments, "--results", results)
        assert ended.code == 2
        assert said in ended.err
    assert remime("plan", "--results", tmp_path / "none").out == ""
