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
from remime.sources import Clip, load_source, read_clips
from remime.stages import entry, stage_parser
from remime.versions import STAGES, __version__

COLUMNS = ("clip", "status", "detail")


def _key(clip: Clip, source: str, options: Mapping[str, Any]) -> str:
    """A folder name that changes with everything that a clip's bytes depend on."""
    parts = [source, STAGES["collect"], __version__, dict(options), asdict(clip)]
    return f"{stable_hash(json.dumps(parts, sort_keys=True)):016x}"


def collect_clip(clip: Clip, folder: Path, make: Callable[[Clip, Path], Sequence[Path]]) -> dict[str, str]:
    """Collect one clip into ``folder``, unless it is there, and return its row of the status table.

    The folder is complete or absent: files are made beside it and moved.
    """
    if not folder.is_dir():
        work = folder.with_suffix(".tmp")
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        try:
            make(clip, work)
        except InputError as error:
            shutil.rmtree(work)
            status = "download_failed" if clip.kind == "video" else "unreadable"
            return {"clip": clip.clip, "status": status, "detail": " ".join(str(error).split())}
        work.replace(folder)
    return {"clip": clip.clip, "status": "ok", "detail": ""}


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
    source: str, clips_file: Path, output: Path, status: Path, state: Path, options: Mapping[str, Any]
) -> list[dict[str, str]]:
    """Collect a shard and return the rows of its status table.

    Args:
        source: a module of ``remime.sources`` whose clips have to be collected.
        clips_file: the shard's ``clips.tsv``.
        output: the tar file.
        status: the table of what became of each clip.
        state: the folder of finished clips; removed at the end.
        options: what the source is told.

    Raises:
        InputError: the source's files are read in place.
    """
    module = load_source(source)
    if not module.COLLECTED:
        raise InputError(f"source {source}", "is read in place, there is nothing to collect")
    clips = read_clips(clips_file)
    make = module.collector(dict(options)) if clips else None
    rows, folders = [], []
    with Progress(len(clips), f"collect {output.stem}", "clips") as progress:
        for clip in clips:
            folder = state / _key(clip, source, options)
            assert make is not None
            rows.append(collect_clip(clip, folder, make))
            if rows[-1]["status"] == "ok":
                folders.append(folder)
            progress.update()
    write_tar(output, folders)
    write_status(status, rows)
    shutil.rmtree(state, ignore_errors=True)
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the stage."""
    parser = stage_parser("collect", __doc__)
    parser.add_argument("--source", required=True, help="a module of remime.sources")
    parser.add_argument("--clips", type=Path, required=True, help="the shard's clips.tsv")
    parser.add_argument("--output", type=Path, required=True, help="the tar file")
    parser.add_argument("--status", type=Path, required=True, help="what became of each clip")
    parser.add_argument("--state", type=Path, required=True, help="finished clips of a killed job")
    args = parser.parse_args(argv)
    rows = run(args.source, args.clips, args.output, args.status, args.state, args.options)
    failed = [row for row in rows if row["status"] != "ok"]
    logging.info("%d clips, %d of them failed", len(rows), len(failed))


if __name__ == "__main__":
    entry(main)
