"""The pairs of a benchmark as plain files, for systems of other people: targets, driving videos, a list."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from remime.archive import options_digest
from remime.errors import InputError
from remime.files import atomic, write_text
from remime.layout import Dataset, file_stamp
from remime.pairs import RANDOM, Clips, Pair
from remime.progress import Progress
from remime.reporting.folders import atomic_folder
from remime.shards import file_name, parse_shard
from remime.tables import read_table
from remime.versions import __version__
from remime.video import Writer, probe

CRF = 4
"""Constant rate factor of the driving videos."""
_INDEX = ".export.json"


@dataclass(frozen=True)
class Options:
    """What is exported.

    Args:
        frames: also the driving frames as PNG, without any loss.
        originals: also where the unaligned files lie, and which part of them was used.
        generator: makes invented targets of which no model's picture is there.
    """

    frames: bool = False
    originals: bool = False
    generator: str = "mobile-ffhq"


def read_pairs(results: Path, protocol: str) -> list[dict[str, Any]]:
    """The rows of a protocol's pairs.

    Raises:
        InputError: they were not planned yet.
    """
    path = results / "benchmarks" / protocol / "pairs.parquet"
    if not path.is_file():
        known = ", ".join(planned(results)) or "none"
        fix = f"run `snakemake --cores 2 -- {path}`; planned: {known}"
        raise InputError(path, "does not exist", fix)
    return read_table(path, "pairs").to_pylist()


def planned(results: Path) -> list[str]:
    """The protocols whose pairs are there."""
    return sorted(path.parent.name for path in results.glob("benchmarks/*/pairs.parquet"))


def datasets_of(pairs: Sequence[Pair], results: Path) -> dict[str, Dataset]:
    """The datasets that pairs speak of, by name."""
    found = {}
    for pair in pairs:
        for side in ("driving", "target"):
            if name := pair[f"{side}_dataset"]:
                found[name] = Dataset(results / name, parse_shard(pair[f"{side}_shard"])[1])
    return found


class Export:
    """Writes the files of a protocol; what is there and still right is not written again.

    Args:
        results: the workflow's folder of results.
        protocol: whose pairs.
        output: the folder to write.
        options: what is wanted.

    Raises:
        InputError: the pairs were not planned yet, or the folder holds another protocol.
    """

    def __init__(self, results: Path, protocol: str, output: Path, options: Options = Options()) -> None:
        self.pairs = read_pairs(results, protocol)
        self.protocol, self.output, self.options = protocol, output, options
        self.written = 0
        self._benchmark = results / "benchmarks" / protocol
        self._datasets = datasets_of(self.pairs, results)
        self._clips = Clips(list(self._datasets.values()), options.generator)
        self._sources = self._manifest()
        self._known: dict[str, str] = self._read_index()
        self._kept: dict[str, str] = {}

    def _manifest(self) -> dict[tuple[str, str], dict[str, Any]]:
        """The rows of the manifests by dataset and clip."""
        found: dict[tuple[str, str], dict[str, Any]] = {}
        sides = [(p[f"{s}_dataset"], p[f"{s}_clip"]) for p in self.pairs for s in ("driving", "target")]
        for name, dataset in self._datasets.items():
            clips = {clip for whose, clip in sides if whose == name}
            table = read_table(dataset.manifest, "manifest", ["clip", "kind", "path", "box"])
            rows = table.filter(pc.is_in(table["clip"], pa.array(sorted(clips)))).to_pylist()
            found |= {(name, row["clip"]): row for row in rows}
        return found

    def _read_index(self) -> dict[str, str]:
        try:
            found = json.loads((self.output / _INDEX).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        if found["protocol"] != self.protocol:
            other = f"holds the export of protocol {found['protocol']!r}"
            raise InputError(self.output, other, "choose another folder, or delete this one")
        return found["files"]

    def run(self) -> None:
        """Write everything; an export that was cut off goes on where it was."""
        rows = []
        with Progress(len(self.pairs), f"plan {self.protocol}", "pairs") as progress:
            for pair in self.pairs:
                rows.append(self._row(pair))
                progress.update()
        for name in set(self._known) - set(self._kept):
            self._remove(self.output / name)
        self._known = self._kept
        self._write_index()
        write_text(self.output / "pairs.csv", _csv(rows))
        write_text(self.output / "README.md", readme(self.protocol, rows, self.options))

    def _remove(self, path: Path) -> None:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def _write_index(self) -> None:
        # Of an export that is under way, what an earlier one wrote is still known.
        index = {"protocol": self.protocol, "files": {**self._known, **self._kept}}
        write_text(self.output / _INDEX, json.dumps(index, indent=1, sort_keys=True))

    def _make(self, name: str, source: Mapping[str, Any], write: Callable[[Path], None]) -> str:
        """Write a file or folder unless it was made of the same source, and return its name."""
        digest, path = options_digest(source), self.output / name
        if name not in self._kept:
            if self._known.get(name) != digest or not path.exists():
                write(path)
                self.written += 1
                self._known[name] = digest
                self._write_index()
            self._kept[name] = digest
        return name

    def _row(self, pair: Pair) -> dict[str, Any]:
        driving = self._clips.driving(pair)
        own = self._sources.get((pair["driving_dataset"], pair["driving_clip"]), {})
        sound = Path(own["path"]) if own.get("kind") == "video" and Path(own["path"]).exists() else None
        name = file_name(f"{pair['driving_dataset']}/{pair['driving_clip']}")
        source = {"shard": _stamp(driving.reader.path), "rows": [driving.rows.start, driving.rows.stop]}
        video = self._make(
            f"driving/{name}.mp4",
            {**source, "sound": _stamp(sound), "crf": CRF},
            lambda path: self._write_driving(path, pair, sound),
        )
        row = {
            "pair": pair["pair"],
            "output": f"{pair['pair']}.mp4",
            "target": self._target(pair),
            "driving": video,
            "sound": video if sound is not None and probe(sound).has_audio else "",
            "target_identity": pair["target_identity"],
            "driving_identity": pair["driving_identity"],
            "frames": pair["frames"],
            "fps": f"{driving.fps:g}",
        }
        if self.options.frames:
            row["driving_frames"] = self._make(
                f"frames/{name}", source, lambda path: self._write_frames(path, pair)
            )
        return {**row, **(self._originals(pair) if self.options.originals else {})}

    def _write_driving(self, path: Path, pair: Pair, sound: Path | None) -> None:
        driving = self._clips.driving(pair)
        size = driving.reader.resolution
        times = driving.reader.time
        note = {"remime": __version__, "clip": pair["driving_clip"], "dataset": pair["driving_dataset"]}
        with Writer(
            path,
            driving.fps,
            (size, size),
            audio_from=sound,
            audio_start=float(times[driving.rows.start]),
            audio_duration=len(driving.rows) / driving.fps,
            metadata=note,
            crf=CRF,
        ) as writer:
            for image in driving.frames():
                writer.write(image)

    def _write_frames(self, path: Path, pair: Pair) -> None:
        with atomic_folder(path) as folder:
            for i, image in enumerate(self._clips.driving(pair).frames()):
                Image.fromarray(image).save(folder / f"{i:06d}.png")

    def _target(self, pair: Pair) -> str:
        place = f"{pair['target_dataset']}/{pair['target_clip']}/{pair['target_frame']}"
        if pair["target_clip"].startswith(RANDOM):
            source = {"clip": pair["target_clip"], "generator": self.options.generator}
        else:
            shard = self._datasets[pair["target_dataset"]].aligned(pair["target_shard"])
            source = {"shard": _stamp(shard), "frame": pair["target_frame"], "clip": pair["target_clip"]}
        return self._make(
            f"targets/{file_name(place.lstrip('/'))}.png", source, lambda path: self._write_target(path, pair)
        )

    def _write_target(self, path: Path, pair: Pair) -> None:
        invented = pair["target_clip"].startswith(RANDOM)
        pictures = self._benchmark.glob(f"*/videos/{pair['batch']}/{pair['pair']}.target.png")
        seen = min(pictures, default=None) if invented else None
        with atomic(path) as temporary:
            if seen is not None:
                # The very picture that the models were given; it also spares the generator.
                shutil.copyfile(seen, temporary)
            else:
                Image.fromarray(self._clips.target(pair)).save(temporary)

    def _originals(self, pair: Pair) -> dict[str, Any]:
        """Files before alignment and the part of them that was used; empty where there is no file."""
        driving = self._clips.driving(pair)
        first, last = (float(driving.reader.time[driving.rows[i]]) for i in (0, -1))
        path, box = self._original(pair, "driving")
        target, target_box = self._original(pair, "target")
        return {
            "driving_original": path,
            "driving_start": f"{first:.6f}" if path else "",
            "driving_end": f"{last + 1 / driving.fps:.6f}" if path else "",
            "driving_box": box,
            "target_original": target,
            "target_time": f"{self._clips.target_time(pair):.6f}" if target else "",
            "target_box": target_box,
        }

    def _original(self, pair: Pair, side: str) -> tuple[str, str]:
        row = self._sources.get((pair[f"{side}_dataset"], pair[f"{side}_clip"]), {})
        if row.get("kind") not in ("video", "image"):
            return "", ""
        return str(Path(row["path"]).absolute()), " ".join(f"{value:g}" for value in row["box"] or ())


def _stamp(path: Path | None) -> str:
    return "" if path is None else f"{path} {file_stamp(path.stat())}"


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    handle = io.StringIO()
    writer = csv.DictWriter(handle, list(rows[0]) if rows else ["pair"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return handle.getvalue()


def listing(pairs: Sequence[Pair]) -> Iterator[str]:
    """The pairs as lines with tabs between their columns."""
    yield "\t".join(("pair", "driving", "target", "target_frame", "frames"))
    for pair in pairs:
        target = f"{pair['target_dataset']}/{pair['target_clip']}".lstrip("/")
        driving = f"{pair['driving_dataset']}/{pair['driving_clip']}"
        yield "\t".join((pair["pair"], driving, target, str(pair["target_frame"]), str(pair["frames"])))


_COLUMNS = {
    "pair": "name of the pair",
    "output": "what to call the video of this pair",
    "target": "picture of the person to show (FFHQ crop)",
    "driving": "video whose motion is to be transferred (FFHQ crop)",
    "sound": "file with the sound of the driving clip; empty where there is none",
    "target_identity": "who is to be shown",
    "driving_identity": "who drives",
    "frames": "frames of the driving video; as many are expected",
    "fps": "frames per second of the driving video",
    "driving_frames": "folder with the same frames as PNG",
    "driving_original": "the driving clip's file before alignment",
    "driving_start": "second of that file at which the first frame lies",
    "driving_end": "second at which the last frame ends",
    "driving_box": "part of its picture that was used: x y width height; empty for all of it",
    "target_original": "the target's file before alignment",
    "target_time": "second of that file",
    "target_box": "as driving_box",
}

_README = """\
# Protocol {protocol}: {pairs} pairs

Exported by remime {version}. For each line of `pairs.csv` animate the picture `target` by the video `driving`
and write the result as an MP4 of the name `output` into one folder. Paths are relative to this folder.

| column | meaning |
|---|---|
{columns}

{targets} targets and {driving} driving videos, {frames} frames in all pairs. The pictures are square; driving
videos are H.264 (yuv420p, CRF {crf}), nearly without loss{lossless}.

## What the videos should be like

- One frame for each driving frame. As many frames as drive are matched by position, whatever the frame rate
  says; any other number by time, each driving frame with the nearest one. Missing frames are counted.
- Any size. Pictures that keep the crop of the inputs need no alignment (`align: false`); all others do.
- A pair that could not be rendered can be left out; it is counted as missing.

## How to score them

Lay this over the configuration, and run the workflow:

```yaml
# external.yaml
external:
  their-name:
    path: /path/to/the/folder
    title: Their Name
    align: true      # false: the videos keep the crop of the inputs
```

```bash
snakemake --cores 2 --configfile external.yaml
```

Only what is new is computed. The system stands in the tables, plots and side-by-side videos of
`results/report/index.html`, marked as external. Of several protocols, put each one's videos into a folder of
its name below `path`: `{protocol}/`.
"""


def readme(protocol: str, rows: Sequence[Mapping[str, Any]], options: Options) -> str:
    """What the folder holds, and how to score what is made of it."""
    columns = list(rows[0]) if rows else []
    return _README.format(
        protocol=protocol,
        version=__version__,
        pairs=len(rows),
        columns="\n".join(f"| `{name}` | {_COLUMNS[name]} |" for name in columns),
        targets=len({row["target"] for row in rows}),
        driving=len({row["driving"] for row in rows}),
        frames=sum(row["frames"] for row in rows),
        crf=CRF,
        lossless="; `driving_frames` has them without" if options.frames else "",
    )
