"""Tables carry their schema and version, and are refused where those are others."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from remime.errors import InputError, VersionError
from remime.tables import SCHEMAS, STATUSES, concat, read_meta, read_table, write_table
from remime.versions import STAGES

ROW = {"clip": "a", "frame": 1, "row": 2, "keep": True, "reason": ""}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    write_table(path, "selected", [ROW], note=1)
    (row,) = read_table(path, "selected").to_pylist()
    assert row == ROW | {"sampled": None}
    assert read_table(path, "selected", columns=["clip"]).column_names == ["clip"]
    assert read_meta(path)["note"] == 1
    assert read_meta(path)["version"] == STAGES["select"]


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    """Snakemake compares small files by checksum."""
    for name in "ab":
        write_table(tmp_path / name, "selected", [ROW], options={"x": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_every_table_can_be_empty_and_names_a_stage(tmp_path: Path, name: str) -> None:
    write_table(tmp_path / "t", name, [])
    table = read_table(tmp_path / "t", name)
    assert table.num_rows == 0
    assert table.schema.names == SCHEMAS[name][1].names
    assert SCHEMAS[name][0] in STAGES


def test_unknown_columns_and_wrong_types_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"unknown columns \['kep'\]"):
        write_table(tmp_path / "t", "selected", [ROW | {"kep": True}])
    with pytest.raises(pa.ArrowException):
        write_table(tmp_path / "t", "selected", [ROW | {"frame": "one"}])
    assert not list(tmp_path.iterdir())


def test_another_table_is_refused(tmp_path: Path) -> None:
    write_table(tmp_path / "t", "selected", [ROW])
    with pytest.raises(InputError, match="holds the table 'selected'"):
        read_table(tmp_path / "t", "measured")


def test_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_table(tmp_path / "t", "selected", [ROW])
    monkeypatch.setitem(STAGES, "select", STAGES["select"] + 1)
    with pytest.raises(VersionError, match="run the workflow again"):
        read_table(tmp_path / "t", "selected")


@pytest.mark.parametrize("damage", ["cut", "text", "foreign", "missing"])
def test_a_damaged_file_is_an_input_error(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "t.parquet"
    write_table(path, "selected", [ROW] * 100)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:200])
    elif damage == "text":
        path.write_text("not a table")
    elif damage == "foreign":
        pq.write_table(pa.table({"a": [1]}), path)
    else:
        path.unlink()
    with pytest.raises(InputError, match=r"t\.parquet"):
        read_table(path, "selected")


def test_tables_of_several_shards_are_joined(tmp_path: Path) -> None:
    for name in "ab":
        write_table(tmp_path / name, "selected", [ROW | {"clip": name}], shard=name)
    joined = concat([read_table(tmp_path / name, "selected") for name in "ab"], "selected")
    assert joined["clip"].to_pylist() == ["a", "b"]
    assert concat([], "selected").num_rows == 0


def test_statuses_are_distinct() -> None:
    assert len(set(STATUSES)) == len(STATUSES)
    assert STATUSES[0] == "ok"
