"""What was asked of a dataset and what was got, from the tables of its stages."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from remime.layout import Dataset
from remime.reporting.inventory import Amount, as_csv, inventory
from remime.sources import Clip, Problem
from remime.sources.cutting import Cut
from remime.stages import collect, manifest
from remime.tables import write_table


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Two shards: five clips of three people, of which two are lost, and two more without an address."""
    files = Dataset(tmp_path / "real", 2)
    clips = [
        Clip(f"c{i}", f"v{i}", f"p{i % 3}", "train", "download", Cut(f"v{i}", 10.0, 190.0).text())
        for i in range(5)
    ]
    write_table(files.manifest, "manifest", [clip.row() for clip in clips])
    problems = [
        Problem("no_address", "c8", "x"),
        Problem("no_address", "c9", "x"),
        Problem("malformed", "f", "x"),
    ]
    manifest.write_problems(files.manifest.with_suffix(".problems.tsv"), problems)
    first, second = files.shard_names
    good = {"stage": "align", "status": "ok", "frames": 2250, "fps": 25.0}
    write_table(files.status(first), "status", [{"clip": c, **good} for c in ("c0", "c3")])
    lost = [{"clip": c, "stage": "align", "status": s} for c, s in (("c1", "private"), ("c2", "no_face"))]
    write_table(files.status(second), "status", [{"clip": "c4", **good}, *lost])
    row = {"status": "ok", "detail": "", "seconds": "180.0"}
    collect.write_status(
        files.tar(first).with_suffix(".status.tsv"),
        [{"clip": "c0", "lines": "1080", **row}, {"clip": "c3", "lines": "718", **row}],
    )
    collect.write_status(
        files.tar(second).with_suffix(".status.tsv"),
        [
            {"clip": "c1", "status": "private", "detail": "x"},
            {"clip": "c2", "lines": "90", **row},
            {"clip": "c4", "lines": "1080", **row},
        ],
    )
    return files


def test_counts(dataset: Dataset) -> None:
    found = inventory(dataset)
    assert found.asked == Amount(7, 3, pytest.approx(5 * 180 / 3600))
    # p0 is in two good clips, p1 in one; p2 is lost.
    assert found.got == Amount(3, 2, pytest.approx(3 * 90 / 3600))
    assert found.lost == {"no_address": 2, "private": 1, "no_face": 1}
    assert sum(found.lost.values()) + found.got.clips == found.asked.clips
    assert found.problems == {"no_address": 2, "malformed": 1}
    assert found.lines == {144: 1, 480: 1, 1080: 2}


def test_the_same_as_csv(dataset: Dataset) -> None:
    rows = list(csv.DictReader(as_csv([inventory(dataset)]).splitlines()))
    assert {row["dataset"] for row in rows} == {"real"}
    known = {(row["what"], row["name"]): float(row["value"]) for row in rows}
    assert (known["asked", "hours"], known["lost", "private"], known["lines", "1080"]) == (0.25, 1, 2)


def test_files_that_are_read_in_place_have_no_hours_beforehand(dataset: Dataset) -> None:
    rows = [Clip(f"c{i}", f"v{i}", "p", "train", "video", "c.mp4").row() for i in range(5)]
    write_table(dataset.manifest, "manifest", rows)
    dataset.manifest.with_suffix(".problems.tsv").unlink()
    for shard in dataset.shard_names:
        dataset.tar(shard).with_suffix(".status.tsv").unlink()
    found = inventory(dataset)
    assert (found.asked, found.problems, found.lines) == (Amount(5, 1, None), {}, {})
    assert "asked,hours" not in as_csv([found])


def test_a_status_table_of_an_older_run_has_no_lines(dataset: Dataset) -> None:
    for shard in dataset.shard_names:
        path = dataset.tar(shard).with_suffix(".status.tsv")
        path.write_text("clip\tstatus\tdetail\nc0\tok\t\n")
    assert inventory(dataset).lines == {}
