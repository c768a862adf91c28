"""Any tree of videos and images, read where it lies."""

from __future__ import annotations

import csv
import logging
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from remime.errors import InputError
from remime.layout import file_stamp, tree_files
from remime.shards import split_of, stable_hash
from remime.sources import IMAGE_SUFFIXES, VIDEO_SUFFIXES, Clip

SPLITS = ("train", "val", "test")
_LOG = logging.getLogger(__name__)
_MAX_NAME = 80


def safe_name(text: str) -> str:
    """A file-name safe version of a text; different texts can have the same."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9_-]+", "-", plain).strip("-")[:_MAX_NAME] or "clip"


def _unique(keys: Sequence[str], texts: Sequence[str]) -> list[str]:
    """A safe name for each key; those that are alike, or lost characters, end with a digest of their key.

    A name depends on its own key alone unless two are alike, so that added files rename nobody. Upper and
    lower case are alike, because some file systems hold them so.
    """
    names = [safe_name(text) for text in texts]
    names = [n if n == t else f"{n}-{_digest(k)}" for n, t, k in zip(names, texts, keys, strict=True)]
    counts = Counter(name.lower() for name in names)
    return [
        f"{name}-{_digest(key)}" if counts[name.lower()] > 1 else name
        for name, key in zip(names, keys, strict=True)
    ]


def _digest(key: str) -> str:
    return f"{stable_hash(key) & 0xFFFFFFFF:08x}"


def find_files(root: Path, suffixes: Sequence[str] = ()) -> list[str]:
    """The videos and images below a folder, as sorted paths relative to it; hidden ones are left out.

    Raises:
        InputError: it is no folder, or none is in it.
    """
    if not root.is_dir():
        raise InputError(root, "is not a folder", "name a folder with videos or images")
    allowed = tuple(suffixes) or VIDEO_SUFFIXES + IMAGE_SUFFIXES
    found, others = [], Counter[str]()
    for path in tree_files(root):
        relative = os.path.relpath(path, root)
        if any(part.startswith(".") for part in Path(relative).parts):
            continue
        if Path(relative).suffix.lower() not in allowed:
            others[Path(relative).suffix.lower() or "no suffix"] += 1
        elif not is_text(relative):
            _LOG.warning("left out: %r: its name is not UTF-8; rename it", os.fsencode(relative))
        else:
            found.append(relative)
    if not found:
        seen = ", ".join(f"{n} × {suffix}" for suffix, n in others.most_common(5)) or "nothing"
        raise InputError(root, f"no video or image is in it (found: {seen})", f"known: {', '.join(allowed)}")
    return sorted(found)


def is_text(name: str) -> bool:
    """Whether a file's name is UTF-8; others cannot stand in a table."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _kind(path: str) -> str:
    return "image" if Path(path).suffix.lower() in IMAGE_SUFFIXES else "video"


def _identity(relative: str, mode: str) -> str:
    parts = Path(relative).parts
    return parts[0] if mode == "folder" and len(parts) > 1 else str(Path(relative).with_suffix(""))


def read_identities(table: Path, root: Path) -> list[dict[str, Any]]:
    """The rows of a user's CSV: path, identity, split or None, start and end in seconds or None.

    Raises:
        InputError: with all that is wrong, by line.
    """
    try:
        with table.open(newline="", encoding="utf-8-sig") as handle:
            reader = csv.DictReader(handle)
            rows, columns = list(reader), [name or "" for name in reader.fieldnames or []]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(table, f"cannot be read ({error})", "a CSV file in UTF-8 is needed") from None
    known = ("path", "identity", "split", "start", "end")
    if not {"path", "identity"} <= set(columns) or set(columns) - set(known):
        raise InputError(table, f"has the columns {', '.join(columns)}", f"allowed: {', '.join(known)}")
    problems = [f"line {i}: {p}" for i, row in enumerate(rows, start=2) for p in _row_problems(row, root)]
    if problems or not rows:
        raise InputError(table, "; ".join(problems[:20]) or "has no rows", "correct these lines")
    return [_parsed(row) for row in rows]


def _row_problems(row: dict[Any, Any], root: Path) -> Iterator[str]:
    if None in row or None in row.values():
        yield "has another number of columns than the first line"
        return
    if not row["identity"].strip():
        yield "the identity is empty"
    if not (root / row["path"]).is_file():
        yield f"{row['path']!r} is not a file below {root}"
    if row.get("split") and row["split"] not in SPLITS:
        yield f"split {row['split']!r} is not one of {', '.join(SPLITS)}"
    times = []
    for key, unbounded in (("start", "0"), ("end", "inf")):
        try:
            times.append(float(row.get(key) or unbounded))
        except ValueError:
            yield f"{key} {row[key]!r} is not a number of seconds"
    if len(times) == 2 and not 0 <= times[0] < times[1]:
        yield f"start {times[0]:g} and end {times[1]:g} do not enclose anything"


def _parsed(row: dict[str, str]) -> dict[str, Any]:
    times = {key: float(row[key]) if row.get(key) else None for key in ("start", "end")}
    return {
        **times,
        "path": os.path.normpath(row["path"]),
        "identity": row["identity"].strip(),
        "split": row.get("split") or None,
    }


def _check_splits(rows: Sequence[dict[str, Any]], table: Path) -> None:
    splits: dict[str, set[str]] = {}
    for row in rows:
        splits.setdefault(row["identity"], set()).add(row["split"] or "")
    mixed = sorted(identity for identity, found in splits.items() if len(found) > 1)
    if mixed:
        raise InputError(
            table,
            f"identities in several splits: {', '.join(mixed[:10])}",
            "training and test people must differ: give all rows of an identity the same split",
        )


def clips(name: str, options: dict[str, Any], table: Path | None) -> list[Clip]:
    """All clips of a folder, or all that its CSV table lists.

    Args:
        name: the dataset's name; it salts nothing, so a renamed dataset keeps its splits.
        options: ``path``, ``identity``, ``table``, ``suffixes``, ``terms`` and ``seed`` of the configuration.
        table: not used.

    Raises:
        InputError: nothing usable is there, or the table is wrong.
    """
    root = Path(options["path"])
    if listed := options.get("table"):
        if not root.is_dir():
            raise InputError(root, "is not a folder", "name the folder that the table's paths start from")
        rows = read_identities(Path(listed), root)
        _check_splits(rows, Path(listed))
    else:
        mode = options.get("identity", "folder")
        rows = [
            {"path": path, "identity": _identity(path, mode), "split": None, "start": None, "end": None}
            for path in find_files(root, options.get("suffixes") or ())
        ]
    keys = [_key(row) for row in rows]
    if repeated := [key for key, count in Counter(keys).items() if count > 1]:
        raise InputError(listed, f"lists twice: {', '.join(repeated[:10])}", "leave one of them")
    names = _unique(keys, [_text(row) for row in rows])
    people = sorted({row["identity"] for row in rows})
    identities = dict(zip(people, _unique(people, people), strict=True))
    seed = options.get("seed") or 0
    return [
        Clip(
            clip=clip,
            video=row["path"],
            identity=identities[row["identity"]],
            split=row["split"] or split_of(row["identity"], seed),
            kind=_kind(row["path"]),
            path=str(root / row["path"]),
            start=row["start"],
            end=row["end"],
            terms=options.get("terms", "not stated"),
            stamp=file_stamp((root / row["path"]).stat()),
        )
        for clip, row in zip(names, rows, strict=True)
    ]


def _text(row: dict[str, Any]) -> str:
    """What a clip is called: its path without suffix, with its times when it is cut from a video."""
    name = str(Path(row["path"]).with_suffix("")).replace(os.sep, "-")
    if row["start"] is None and row["end"] is None:
        return name
    return f"{name}-{_time(row['start'] or 0.0)}-{_time(row['end'])}"


def _key(row: dict[str, Any]) -> str:
    return "\0".join(str(row[key]) for key in ("path", "start", "end"))


def _time(seconds: float | None) -> str:
    return "end" if seconds is None else f"{round(seconds * 1000)}ms"


def collector(options: dict[str, Any], transport: dict[str, Any]) -> None:
    """Nothing: the files are read in place."""
