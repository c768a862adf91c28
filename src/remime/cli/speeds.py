"""How fast the jobs of a finished workflow were, from their logs and from Snakemake's benchmark files."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from remime.errors import InputError

# The last line of ``remime.progress.Progress``.
_ENDED = re.compile(
    r"(?P<label>[^:]+): (?P<count>\d+)(?:/\d+)? (?P<unit>\w+), [\d.]+/s, (?P<note>.*, )?"
    r"took (?P<clock>[\d:]+)(?: for (?P<new>\d+) of them)?"
)
_FRAMES = re.compile(r"(\d+) frames")


@dataclass(frozen=True)
class Speed:
    """What the jobs of one stage and kind did, all together.

    Attributes:
        stage: of the workflow.
        what: the dataset, inverter, protocol or model, as in the path of the log.
        jobs: how many.
        unit: of what was done, in the plural.
        count: how many were done, without what an interrupted run had done before.
        seconds: what the jobs' loops took, one after the other.
        memory: the largest job's, in MB; None where Snakemake measured none.
    """

    stage: str
    what: str
    jobs: int
    unit: str
    count: int
    seconds: int
    memory: float | None

    @property
    def rate(self) -> float:
        """Units per second of one job; logs have whole seconds."""
        return self.count / max(self.seconds, 1)


def speeds_of(results: Path) -> list[Speed]:
    """The speeds of all stages whose jobs show progress.

    Args:
        results: the workflow's folder of results.

    Raises:
        InputError: there are no logs.
    """
    logs, found = results / "logs", dict[tuple[str, str, str], list[tuple[int, int, float | None]]]()
    for log in sorted(logs.glob("*/**/*.log")):
        stage, *folders, _ = log.relative_to(logs).parts
        # Shards and batches are jobs of one kind; a model or a clip has its own name.
        batch = re.fullmatch(r"\d+-of-\d+", log.stem)
        what = "/".join(folders if batch else [*folders, log.stem])
        memory = _memory(results / "speed" / log.relative_to(logs).with_suffix(".tsv"))
        ended = list(_ended(log, stage))
        for unit in dict.fromkeys(unit for unit, _, _ in ended):
            done = [(count, seconds) for other, count, seconds in ended if other == unit]
            job = (sum(count for count, _ in done), sum(seconds for _, seconds in done), memory)
            found.setdefault((stage, what, unit), []).append(job)
    if not found:
        raise InputError(logs, "holds no log of a finished job", "name the folder of results of a workflow")
    return [_sum(*key, jobs) for key, jobs in found.items()]


def _ended(log: Path, stage: str) -> Iterator[tuple[str, int, int]]:
    """Unit, count and seconds of each loop of a job that is named after its stage."""
    for line in log.read_text(errors="replace").splitlines():
        ended = _ENDED.fullmatch(line.strip())
        if ended is None or ended["label"].split()[0] != stage:
            continue
        seconds = 0
        for part in ended["clock"].split(":"):
            seconds = 60 * seconds + int(part)
        frames = _FRAMES.search(ended["note"] or "")
        if frames:
            yield "frames", int(frames[1]), seconds
        else:
            yield ended["unit"], int(ended["new"] or ended["count"]), seconds


def _memory(path: Path) -> float | None:
    if not path.exists():
        return None
    with path.open(newline="") as file:
        values = [row["max_rss"] for row in csv.DictReader(file, delimiter="\t")]
    numbers = [float(value) for value in values if re.fullmatch(r"[\d.]+", value)]
    return max(numbers, default=None)


def _sum(stage: str, what: str, unit: str, jobs: list[tuple[int, int, float | None]]) -> Speed:
    memory = max((m for _, _, m in jobs if m is not None), default=None)
    return Speed(stage, what, len(jobs), unit, sum(c for c, _, _ in jobs), sum(s for _, s, _ in jobs), memory)
