"""Files of published datasets as tests write them: by hand, without the code that reads them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from remime.sources import Problem
from remime.sources.annotations import Annotation


def touch(root: Path, *names: str) -> Path:
    """Make files whose bytes are their names, and return the folder."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return root


def parted(entries: Iterable[Annotation | Problem]) -> tuple[dict[str, Annotation], list[Problem]]:
    """Annotations by their clip, and problems."""
    listed = list(entries)
    annotations = [entry for entry in listed if isinstance(entry, Annotation)]
    problems = [entry for entry in listed if isinstance(entry, Problem)]
    assert len(annotations) + len(problems) == len(listed)
    return {entry.name.clip: entry for entry in annotations}, problems


def kinds(problems: Iterable[Problem]) -> dict[str, int]:
    """How many problems there are of each kind."""
    return dict(Counter(problem.kind for problem in problems))
