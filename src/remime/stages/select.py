"""Choose the frames that are used, with a reason for every other one, and sample frames for training.

Reasons, in the order in which they are looked for: ``not_detected`` (no face was found, or its landmarks
were filled in), ``yaw``, ``pitch``, ``roll`` (beyond the limit), ``blur`` (not sharp enough), ``too_few``
(too few frames of the clip were left).
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import groupby
from pathlib import Path
from typing import Any

from remime.errors import refuse_unknown
from remime.stages import entry, stage_parser
from remime.tables import read_table, write_table


@dataclass(frozen=True)
class SelectOptions:
    """Which frames are used; the branch ``select`` of the configuration, which describes each key."""

    max_yaw: float = 60.0
    max_pitch: float = 40.0
    max_roll: float = 45.0
    min_sharpness: float = 0.0
    min_frames: int = 1
    sample_interval: float = 0.5
    sample_frames: int = 10

    @classmethod
    def parse(cls, options: Mapping[str, Any]) -> SelectOptions:
        """From the configuration's branch; InputError names an unknown key."""
        refuse_unknown("select", options, [field.name for field in fields(cls)])
        return cls(**options)


def judge(row: Mapping[str, Any], options: SelectOptions) -> str:
    """Why a row of the table ``measured`` is left out; empty when it is not."""
    angles = {name: row[name] for name in ("yaw", "pitch", "roll")}
    if not row["detected"] or any(value is None or math.isnan(value) for value in angles.values()):
        return "not_detected"
    for name, value in angles.items():
        if abs(value) > getattr(options, f"max_{name}"):
            return name
    return "blur" if row["sharpness"] < options.min_sharpness else ""


def sample(times: Sequence[float], interval: float, limit: int) -> list[int]:
    """Positions of at most ``limit`` moments, each at least ``interval`` seconds after the one before.

    P1, Sec. 3.3: 10 frames at half-second intervals from each clip.
    """
    chosen: list[int] = []
    for i, time in enumerate(times):
        if len(chosen) == limit:
            break
        # Timestamps are rounded to the file's clock; half a frame of 1000 fps is nothing.
        if not chosen or time >= times[chosen[-1]] + interval - 5e-4:
            chosen.append(i)
    return chosen


def select_clip(rows: Sequence[Mapping[str, Any]], options: SelectOptions) -> list[dict[str, Any]]:
    """Rows of the table ``selected`` for the frames of one clip, in order of time."""
    reasons = [judge(row, options) for row in rows]
    if sum(not reason for reason in reasons) < options.min_frames:
        reasons = [reason or "too_few" for reason in reasons]
    kept = [i for i, reason in enumerate(reasons) if not reason]
    picks = sample([rows[i]["time"] for i in kept], options.sample_interval, options.sample_frames)
    sampled = {kept[i] for i in picks}
    return [
        {
            **{name: row[name] for name in ("clip", "frame", "row")},
            "keep": not reason,
            "sampled": i in sampled,
            "reason": reason,
        }
        for i, (row, reason) in enumerate(zip(rows, reasons, strict=True))
    ]


def run(measured: Path, output: Path, options: Mapping[str, Any]) -> Counter[str]:
    """Select the frames of a shard and return how often each reason (``kept`` for none) occurred.

    Args:
        measured: the table ``measured``.
        output: the table ``selected``.
        options: see ``SelectOptions``.

    Raises:
        InputError: an unknown option, or no such table.
    """
    parsed = SelectOptions.parse(options)
    columns = ["clip", "frame", "row", "time", "yaw", "pitch", "roll", "sharpness", "detected"]
    table = read_table(measured, "measured", columns).to_pylist()
    rows: list[dict[str, Any]] = []
    for _, clip in groupby(table, key=lambda row: row["clip"]):
        rows += select_clip(list(clip), parsed)
    write_table(output, "selected", rows)
    return Counter(row["reason"] or "kept" for row in rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the stage."""
    parser = stage_parser("select", __doc__)
    parser.add_argument("--measured", type=Path, required=True, help="the table of measurements")
    parser.add_argument("--output", type=Path, required=True, help="the table of selected frames")
    a = parser.parse_args(argv)
    counts = run(a.measured, a.output, a.options)
    logging.info("frames: %s", ", ".join(f"{n} {reason}" for reason, n in counts.most_common()) or "none")


if __name__ == "__main__":
    entry(main)
