"""The default workflow, killed with ``kill -9`` at random moments until it is through.

``python -m tests.workflow.chaos FOLDER [--kills 50] [--reference FOLDER]`` runs it twice: undisturbed (or
takes a finished run as the reference), and killed again and again, then plainly to the end. It fails when a
finished job was repeated or when a result differs, and prints what it saw. It takes three times as long as a
run.
"""

from __future__ import annotations

import argparse
import filecmp
import random
import re
import shutil
import sys
import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq

from tests.workflow.project import ROOT
from tests.workflow.runs import LOG, job, kill, repeated, start, unlock

# Speed, and what quotes it, differ between any two runs.
_TIMED = ("speed", "logs", "state")
_SPEED_PLOT = "speed.svg"
_TOLD = (".html", ".md")  # the report, and cards, which tell how long a training took


def project(folder: Path, config: Path) -> Path:
    """The checkout's workflow with a configuration, in a folder with results of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("Snakefile", "workflow", "src", "envs", "profiles", "models", "resources"):
        if not (folder / name).exists():
            (folder / name).symlink_to(ROOT / name)
    shutil.copyfile(config, folder / "config.yaml")
    return folder


def finish(folder: Path, cores: int) -> None:
    """Run to the end, as ``make run`` does."""
    for arguments in (("--", "shards"), ()):
        if start(folder, *arguments, cores=cores).wait():
            raise SystemExit(f"{folder}: failed\n{(folder / LOG).read_text()[-4000:]}")


def disturb(folder: Path, cores: int, kills: int, interval: float, seed: int) -> Counter[str]:
    """Kill so often, every ``interval`` seconds in the mean; in which stages a job was running then."""
    choose, where = random.Random(seed), Counter[str]()
    while sum(where.values()) < kills:
        workflow, until = start(folder, cores=cores), time.monotonic() + choose.uniform(0, 2 * interval)
        while workflow.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        if workflow.poll() is not None:
            if workflow.returncode:
                raise SystemExit(f"{folder}: failed\n{(folder / LOG).read_text()[-4000:]}")
            print(f"through after {sum(where.values())} kills", flush=True)
            break
        found = job(workflow)
        kill(workflow)
        where[found[0] if found else "Snakemake itself"] += 1
        print(f"kill {sum(where.values())}: {found[0] if found else 'between jobs'}", flush=True)
        unlock(folder)
    return where


def differences(first: Path, second: Path) -> tuple[int, list[str]]:
    """How many files of the results are equal to the last byte or row, and those that differ."""
    names = {
        path.relative_to(root)
        for root in (first, second)
        for path in root.rglob("*")
        if path.is_file() and path.name != _SPEED_PLOT and path.relative_to(root).parts[0] not in _TIMED
    }
    unequal = [str(name) for name in sorted(names) if not _equal(first / name, second / name)]
    return len(names) - len(unequal), unequal


def _equal(first: Path, second: Path) -> bool:
    if not (first.is_file() and second.is_file()):
        return False
    if filecmp.cmp(first, second, shallow=False):
        return True
    if first.suffix == ".parquet":
        return _rows(first) == _rows(second)
    if first.suffix in _TOLD:
        return _timeless(first) == _timeless(second)
    return False


def _rows(path: Path) -> object:
    table = pq.read_table(path)
    # A history tells when each step was made.
    return [name for name in table.column_names if name != "seconds"], [
        {name: repr(value) for name, value in row.items() if name != "seconds"} for row in table.to_pylist()
    ]


def _timeless(path: Path) -> str:
    """A text without times and without pictures of times."""
    text = re.sub(r"(?s)<svg.*?</svg>|data:image/[^\"']*", "", path.read_text())
    return re.sub(r"[0-9][0-9.,:]*\s*(s|min|h|frames/s|MB|GB)\b", "", text)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="an empty folder")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--interval", type=float, default=30.0, help="mean seconds from start to kill")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--config", type=Path, default=ROOT / "config.yaml")
    parser.add_argument("--reference", type=Path, help="a finished run of this version and configuration")
    a = parser.parse_args()
    reference = a.reference
    if reference is None:
        reference = project(a.folder / "undisturbed", a.config)
        finish(reference, a.cores)
    folder = project(a.folder / "disturbed", a.config)
    begin = time.monotonic()
    where = disturb(folder, a.cores, a.kills, a.interval, a.seed)
    finish(folder, a.cores)
    minutes = (time.monotonic() - begin) / 60
    again = repeated(path.read_text() for path in sorted((folder / ".snakemake/log").glob("*.log")))
    equal, unequal = differences(reference / "results", folder / "results")
    print(f"\n{sum(where.values())} kills in {minutes:.0f} min: {dict(where.most_common())}")
    print(f"finished jobs that ran again: {len(again)} {again}")
    print(f"results: {equal} equal, {len(unequal)} different {unequal}")
    sys.exit(bool(again or unequal))


if __name__ == "__main__":
    main()
