"""Render or download the clips of a shard into one tar file.

Each finished clip lies in the state folder until all are done, so that a killed job goes on where it was. A
clip that cannot be had gets a status; it never fails the job.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import shutil
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from remime.errors import InputError
from remime.files import atomic, write_text
from remime.progress import Progress
from remime.shards import stable_hash
from remime.sources import Clip, Collector, Make, load_source, read_clips
from remime.stages import entry, json_object, stage_parser
from remime.versions import STAGES, __version__

# What is known of the picture that a clip was cut from: its lines, and the clip's seconds.
FACTS = ("lines", "seconds")
COLUMNS = ("clip", "status", "detail", *FACTS)


def _key(clip: Clip, source: str, options: Mapping[str, Any]) -> str:
    """A file name that changes with everything that a clip's bytes depend on."""
    parts = [source, STAGES["collect"], __version__, dict(options), asdict(clip)]
    return f"{stable_hash(json.dumps(parts, sort_keys=True)):016x}"


def collect_clip(clip: Clip, folder: Path, make: Make) -> dict[str, str]:
    """Collect one clip into ``folder`` and return its row of the status table.

    The folder is complete or absent: files are made beside it and moved. A failure that will not pass is
    noted beside it too, so that a job that was killed does not try again.
    """
    work = folder.with_suffix(".tmp")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        make(clip, work)
    except InputError as error:
        shutil.rmtree(work)
        row = _row(clip, getattr(error, "status", "unreadable"), " ".join(str(error).split()))
        if not getattr(error, "temporary", False):
            write_text(_failure(folder), json.dumps(row))
        return row
    work.replace(folder)
    return _finished(clip, folder) or _row(clip, "ok")


def _row(clip: Clip, status: str, detail: str = "", **facts: object) -> dict[str, str]:
    return {"clip": clip.clip, "status": status, "detail": detail} | {k: str(v) for k, v in facts.items()}


def _failure(folder: Path) -> Path:
    return folder.with_suffix(".json")


def _finished(clip: Clip, folder: Path) -> dict[str, str] | None:
    """The row of a clip that is in its folder, or that cannot be had; None when it has to be made."""
    try:
        if not folder.is_dir():
            return dict(json.loads(_failure(folder).read_text(encoding="utf-8")))
        facts = folder / f"{clip.clip}.json"
        known = json.loads(facts.read_text(encoding="utf-8")) if facts.is_file() else {}
    except (OSError, ValueError):
        return None
    return _row(clip, "ok", **{name: known[name] for name in FACTS if name in known})


def collect_video(
    clips: Mapping[Clip, Path], collector: Collector, state: Path, done: Callable[[], None]
) -> dict[Clip, dict[str, str]]:
    """Collect the clips of one video, unless they are there, and return their rows of the status table.

    Args:
        clips: the clips, each with its folder.
        collector: makes them.
        state: a folder for what is unfinished.
        done: called after each clip.
    """
    rows = {clip: row for clip, folder in clips.items() if (row := _finished(clip, folder))}
    for _ in rows:
        done()
    if len(rows) < len(clips):
        with collector.video(list(clips), state) as make:
            for clip, folder in clips.items():
                if clip not in rows:
                    rows[clip] = collect_clip(clip, folder, make)
                    done()
    return rows


def write_tar(path: Path, folders: Sequence[Path]) -> None:
    """Pack the files of folders, flat, into one tar; the same files always give the same bytes."""
    with atomic(path) as temporary, tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as tar:
        for folder in folders:
            for file in sorted(folder.iterdir()):
                info = tarfile.TarInfo(file.name)
                info.size = file.stat().st_size
                with file.open("rb") as handle:
                    tar.addfile(info, handle)


def write_status(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Write what became of each clip as a TSV table."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, dialect="excel-tab", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def run(
    source: str,
    clips_file: Path,
    output: Path,
    status: Path,
    state: Path,
    options: Mapping[str, Any],
    transport: Mapping[str, Any] | None = None,
) -> list[dict[str, str]]:
    """Collect a shard and return the rows of its status table.

    Args:
        source: a module of ``remime.sources`` whose clips have to be collected.
        clips_file: the shard's ``clips.tsv``.
        output: the tar file.
        status: the table of what became of each clip.
        state: the folder of finished clips; removed at the end.
        options: what the source is told.
        transport: how downloads are done; no byte depends on it.

    Raises:
        InputError: the source's files are read in place, or something that it needs is missing.
        RemimeError: nothing more can be had at present; what is finished stays in ``state``.
    """
    collector = load_source(source).collector(dict(options), dict(transport or {}))
    if collector is None:
        raise InputError(f"source {source}", "is read in place, there is nothing to collect")
    clips = read_clips(clips_file)
    folders = {clip: state / _key(clip, source, collector.options) for clip in clips}
    videos: dict[str, dict[Clip, Path]] = {}
    for clip, folder in folders.items():
        videos.setdefault(clip.video, {})[clip] = folder
    rows: dict[Clip, dict[str, str]] = {}
    with Progress(len(clips), f"collect {output.stem}", "clips") as progress:
        for video, members in videos.items():
            unfinished = state / f"video-{stable_hash(video):016x}"
            rows |= collect_video(members, collector, unfinished, progress.update)
    write_tar(output, [folders[clip] for clip in clips if rows[clip]["status"] == "ok"])
    write_status(status, [rows[clip] for clip in clips])
    shutil.rmtree(state, ignore_errors=True)
    return [rows[clip] for clip in clips]


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the stage."""
    parser = stage_parser("collect", __doc__)
    parser.add_argument("--source", required=True, help="a module of remime.sources")
    parser.add_argument("--clips", type=Path, required=True, help="the shard's clips.tsv")
    parser.add_argument("--output", type=Path, required=True, help="the tar file")
    parser.add_argument("--status", type=Path, required=True, help="what became of each clip")
    parser.add_argument("--state", type=Path, required=True, help="finished clips of a killed job")
    parser.add_argument(
        "--transport", type=json_object, default={}, metavar="JSON", help="how downloads are done"
    )
    a = parser.parse_args(argv)
    rows = run(a.source, a.clips, a.output, a.status, a.state, a.options, a.transport)
    failed = [row for row in rows if row["status"] != "ok"]
    logging.info("%d clips, %d of them failed", len(rows), len(failed))


if __name__ == "__main__":
    entry(main)
