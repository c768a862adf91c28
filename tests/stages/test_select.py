"""Which frames are used, why others are not, and P1's sampling."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remime.errors import InputError
from remime.stages import select
from remime.stages.select import SelectOptions, judge, sample, select_clip
from remime.tables import read_table, write_table

GOOD = {"yaw": 5.0, "pitch": -3.0, "roll": 1.0, "sharpness": 200.0, "detected": True}


def rows(n: int, clip: str = "a", fps: float = 25.0, **changes: object) -> list[dict]:
    return [{"clip": clip, "frame": i, "row": 100 + i, "time": i / fps, **GOOD, **changes} for i in range(n)]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, ""),
        ({"detected": False, "yaw": 90.0}, "not_detected"),
        ({"yaw": float("nan")}, "not_detected"),
        ({"pitch": None}, "not_detected"),
        ({"yaw": 60.1}, "yaw"),
        ({"yaw": -60.1, "pitch": 80.0}, "yaw"),
        ({"yaw": 60.0}, ""),
        ({"pitch": -40.5}, "pitch"),
        ({"roll": 46.0}, "roll"),
        ({"sharpness": 9.0}, "blur"),
    ],
)
def test_reasons(change: dict, reason: str) -> None:
    assert judge(GOOD | change, SelectOptions(min_sharpness=10)) == reason


def test_a_clip_with_too_few_frames_left_is_not_used() -> None:
    listed = rows(5)
    listed[0]["yaw"] = 80.0
    listed[1]["detected"] = False
    chosen = select_clip(listed, SelectOptions(min_frames=4))
    assert [row["reason"] for row in chosen] == ["yaw", "not_detected", "too_few", "too_few", "too_few"]
    assert not any(row["keep"] or row["sampled"] for row in chosen)
    assert sum(row["keep"] for row in select_clip(listed, SelectOptions(min_frames=3))) == 3


def test_sampling_is_that_of_the_paper() -> None:
    """P1, Sec. 3.3: 10 frames at half-second intervals."""
    chosen = select_clip(rows(25 * 20), SelectOptions())
    times = [row["frame"] / 25 for row in chosen if row["sampled"]]
    assert len(times) == 10
    # At 25 fps half a second lies between two frames; the later one is taken.
    assert times == pytest.approx([0.52 * i for i in range(10)])


def test_sampling_skips_what_is_left_out() -> None:
    listed = rows(60, fps=20)
    for i in range(5, 18):
        listed[i]["yaw"] = 90.0
    chosen = [row["frame"] for row in select_clip(listed, SelectOptions()) if row["sampled"]]
    assert chosen == [0, 18, 28, 38, 48, 58]


@given(
    times=st.lists(st.floats(0, 100), max_size=60).map(sorted),
    interval=st.floats(0, 3),
    limit=st.integers(1, 12),
)
def test_samples_are_apart_and_few(times: list[float], interval: float, limit: int) -> None:
    chosen = sample(times, interval, limit)
    assert len(chosen) <= limit
    assert chosen == sorted(set(chosen))
    assert not times or chosen[0] == 0
    gaps = [times[b] - times[a] for a, b in pairwise(chosen)]
    assert all(gap >= interval - 1e-3 for gap in gaps)
    if len(chosen) < limit:  # nothing that would have fitted was passed over
        assert all(
            any(times[j] <= times[i] < times[j] + interval for j in chosen) or i in chosen
            for i in range(len(times))
        )


def test_the_table(tmp_path: Path) -> None:
    measured, output = tmp_path / "measured.parquet", tmp_path / "selected.parquet"
    write_table(measured, "measured", [*rows(30, "a"), *rows(2, "b", yaw=70.0), *rows(1, "c")])
    counts = select.run(measured, output, {"max_yaw": 60, "sample_interval": 0.2, "sample_frames": 3})
    assert counts == {"kept": 31, "yaw": 2}
    found = read_table(output, "selected").to_pylist()
    assert [row["row"] for row in found if row["clip"] == "a"] == list(range(100, 130))
    assert [row["frame"] for row in found if row["sampled"]] == [0, 5, 10, 0]
    assert {row["reason"] for row in found if row["clip"] == "b"} == {"yaw"}


def test_an_empty_table(tmp_path: Path) -> None:
    write_table(tmp_path / "m.parquet", "measured", [])
    assert select.run(tmp_path / "m.parquet", tmp_path / "s.parquet", {}) == {}
    assert read_table(tmp_path / "s.parquet", "selected").num_rows == 0


def test_bad_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"select: max_jaw(.|\n)*max_yaw"):
        select.run(tmp_path / "m.parquet", tmp_path / "s.parquet", {"max_jaw": 3})
    (tmp_path / "m.parquet").write_bytes(b"PAR1 cut off")
    with pytest.raises(InputError, match=r"m\.parquet"):
        select.run(tmp_path / "m.parquet", tmp_path / "s.parquet", {})
    assert not (tmp_path / "s.parquet").exists()


def test_command_line(tmp_path: Path) -> None:
    write_table(tmp_path / "m.parquet", "measured", rows(3))
    command = [sys.executable, "-m", "remime.stages.select", "--options", '{"max_yaw": 1}']
    command += ["--measured", str(tmp_path / "m.parquet"), "--output", str(tmp_path / "s.parquet")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "3 yaw" in done.stderr
