"""Folders are complete or absent."""

import pytest

from remime.reporting.folders import atomic_folder


def test_new_folder_takes_the_place_of_the_old(tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    (target / "old").write_text("x")
    with atomic_folder(target) as work:
        (work / "new").write_text("y")
        assert (target / "old").exists()
    assert [path.name for path in target.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_failure_keeps_the_old_and_leaves_nothing(tmp_path):
    target = tmp_path / "a" / "out"

    def fail() -> None:
        with atomic_folder(target) as work:
            (work / "new").write_text("y")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list((tmp_path / "a").iterdir()) == []
