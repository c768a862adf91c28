"""Find, follow and crop the face in every clip of a shard.

A clip never fails the job: it ends with frames or with a status that says why not. Each finished clip lies
in the state folder until all are done, so that a killed job goes on where it was.
"""

from __future__ import annotations

import csv
import json
import logging
import shutil
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2

from remime.archive import AlignedReader, AlignedWriter, Parts, encode_jpeg
from remime.errors import InputError
from remime.faces.front import AlignedFrame, AlignedStream, AlignOptions, align_clip
from remime.files import naming
from remime.progress import Progress
from remime.runtime import keep_opencv_to_one_thread
from remime.sources import Clip, member_of, read_clips
from remime.stages import entry, stage_parser
from remime.tables import write_table
from remime.versions import STAGES
from remime.video import VideoError, VideoInfo, read


@dataclass(frozen=True)
class Outcome:
    """What became of a clip; a row of the table ``status``."""

    status: str
    detail: str = ""
    frames: int = 0
    interpolated: int = 0
    faces: int = 0
    cuts: int = 0
    fps: float = 0.0


@dataclass
class _Segment:
    """The frames of one track, in a file of their own until the longest track is known."""

    writer: AlignedWriter
    stack: ExitStack
    frames: int = 0
    interpolated: int = 0


@dataclass
class _Segments:
    """The tracks of a clip; of the finished ones only the longest is kept."""

    folder: Path
    clip: Clip
    fps: float
    options: Mapping[str, Any]
    open: dict[int, _Segment] = field(default_factory=dict)
    best: tuple[int, int] = (0, 0)  # frames, interpolated
    best_path: Path | None = None

    def add(self, frame: AlignedFrame) -> None:
        """Append a frame to its track."""
        segment = self.open.get(frame.track)
        if segment is None:
            with ExitStack() as stack:
                writer = stack.enter_context(AlignedWriter(self._path(frame.track), self.options))
                segment = self.open[frame.track] = _Segment(writer, stack.pop_all())
            writer.begin_clip(self.clip.clip, self.fps, self.clip.identity)
        segment.writer.append(
            frames=encode_jpeg(frame.image),
            landmarks=frame.landmarks,
            transform=frame.transform,
            time=frame.time,
            interpolated=frame.interpolated,
        )
        segment.frames += 1
        segment.interpolated += frame.interpolated

    def _path(self, track: int) -> Path:
        return self.folder / f"track-{track}.h5"

    def finish(self, live: frozenset[int]) -> None:
        """Close the tracks that are no longer live."""
        for track in [track for track in self.open if track not in live]:
            segment = self.open.pop(track)
            segment.stack.close()
            if segment.frames > self.best[0]:
                if self.best_path is not None:
                    self.best_path.unlink()
                self.best, self.best_path = (segment.frames, segment.interpolated), self._path(track)
            else:
                self._path(track).unlink()

    def abandon(self) -> None:
        """Give up what is open after a failure, without another attempt to write it."""
        failure = RuntimeError("the clip failed")
        for segment in self.open.values():
            segment.stack.__exit__(RuntimeError, failure, None)
        self.open.clear()


def _judge(stream: AlignedStream, info: VideoInfo, best: tuple[int, int], options: AlignOptions) -> Outcome:
    """The status of a clip whose longest track has ``best`` frames, of which so many are interpolated."""
    frames, interpolated = best
    seen = Outcome("ok", "", frames, interpolated, stream.faces, stream.cuts, fps=options.fps(info.fps))
    if options.policy == "reject" and stream.faces > 1:
        return replace(seen, status="many_faces", detail=f"{stream.faces} faces at once")
    if stream.frames == 0:
        return replace(seen, status="too_short", detail="no frame lies within the cut")
    if frames == 0:
        least = f"{options.min_face} pixels"
        if stream.too_small or max(info.width, info.height) < options.min_face:
            return replace(seen, status="too_small", detail=f"no face of {least} or more")
        return replace(seen, status="no_face", detail=f"none in {stream.frames} frames")
    if frames < options.min_frames:
        detail = f"{frames} aligned frames of {stream.frames}, {options.min_frames} are needed"
        return replace(seen, status="scene_cut" if stream.cuts else "too_short", detail=detail)
    return seen


def align_file(path: Path, clip: Clip, folder: Path, options: AlignOptions) -> tuple[Outcome, Path | None]:
    """Align one clip.

    Args:
        path: the video or image.
        clip: what to cut from it.
        folder: an empty folder for the frames.
        options: how.

    Returns:
        What became of it and, where that is ok, a shard of this one clip in the folder.
    """
    box = tuple(round(value) for value in clip.box) if clip.box else None
    try:
        frames = read(path, clip.start, clip.end, box)  # type: ignore[arg-type]
        stream = align_clip(frames, options)
        segments = _Segments(folder, clip, options.fps(frames.info.fps), _attributes(options))
        try:
            for frame in stream:
                segments.add(frame)
                segments.finish(stream.live | {frame.track})
            segments.finish(frozenset())
        finally:
            segments.abandon()
    except (VideoError, InputError, cv2.error) as error:
        return Outcome("unreadable", " ".join(str(error).split())), None
    outcome = _judge(stream, frames.info, segments.best, options)
    if frames.failed and outcome.status == "ok":
        outcome = replace(outcome, detail=f"{frames.failed} frames could not be decoded")
    return outcome, segments.best_path if outcome.status == "ok" else None


def _attributes(options: AlignOptions) -> dict[str, Any]:
    return {**asdict(options), "resolution": options.size}


class _Inputs:
    """Where the bytes of a shard's clips lie: in place, or in the tar file that ``collect`` made."""

    def __init__(self, tar: Path | None, collected: Path | None) -> None:
        self._tar: tarfile.TarFile | None = None
        self._failed: dict[str, tuple[str, str]] = {}
        if tar is not None:
            try:
                self._tar = tarfile.open(tar)  # noqa: SIM115 - closed in close()
            except (OSError, tarfile.TarError) as error:
                raise InputError(
                    tar, f"is not a readable tar file ({error})", "delete it and run again"
                ) from error
        if collected is not None:
            self._failed = {clip: (status, detail) for clip, status, detail in _read_status(collected)}

    @contextmanager
    def file(self, clip: Clip, folder: Path) -> Iterator[Path | Outcome]:
        """The clip's file, or why there is none; ``folder`` takes a copy out of the tar."""
        if self._tar is None:
            yield Path(clip.path)
            return
        member = member_of(self._tar, clip.clip)
        if member is None:
            yield Outcome(*self._failed.get(clip.clip, ("download_failed", "it was not collected")))
            return
        copy = folder / f"source{Path(member.name).suffix}"
        source = self._tar.extractfile(member)
        assert source is not None
        with source, naming(copy), copy.open("wb") as target:
            shutil.copyfileobj(source, target)
        yield copy
        copy.unlink(missing_ok=True)

    def close(self) -> None:
        if self._tar is not None:
            self._tar.close()


def _read_status(path: Path) -> list[tuple[str, str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as handle:
            rows = csv.DictReader(handle, dialect="excel-tab")
            return [(r["clip"], r["status"], r["detail"]) for r in rows if r["status"] != "ok"]
    except (OSError, KeyError, csv.Error) as error:
        raise InputError(
            path, f"is not the status table of collect ({error})", "run that stage again"
        ) from None


def _align(clip: Clip, inputs: _Inputs, part: Path, options: AlignOptions) -> Outcome:
    """Align one clip into its part; only a part that is complete ever gets its name."""
    part.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="clip-", dir=part.parent) as name:
        folder = Path(name)
        with inputs.file(clip, folder) as found:
            aligned = None
            if isinstance(found, Outcome):
                outcome = found
            else:
                outcome, aligned = align_file(found, clip, folder, options)
        with AlignedWriter(part, _attributes(options)) as writer:
            if aligned is None:
                writer.begin_clip(clip.clip, outcome.fps, clip.identity)
            else:
                with AlignedReader(aligned) as reader:
                    writer.copy_clip(reader, reader.clips[0])
            writer.annotate(**asdict(outcome))
    return outcome


def _key(clip: Clip) -> str:
    return json.dumps(asdict(clip), sort_keys=True)


def run(
    clips_file: Path,
    output: Path,
    status: Path,
    state: Path,
    options: Mapping[str, Any],
    tar: Path | None = None,
    collected: Path | None = None,
) -> dict[str, Outcome]:
    """Align the clips of a shard and return what became of each.

    Args:
        clips_file: the shard's ``clips.tsv``.
        output: the shard of aligned frames.
        status: the table ``status``.
        state: the folder of finished clips; removed at the end.
        options: see ``AlignOptions``.
        tar: where ``collect`` put the clips; None for files that are read in place.
        collected: its table of what could not be collected.

    Raises:
        InputError: an unknown option, or no list of clips.
        WeightsError: the landmark predictor is missing.
    """
    parsed = AlignOptions.parse(options)
    clips = read_clips(clips_file)
    parts = Parts(state, AlignedReader, {"version": STAGES["align"], **asdict(parsed)})
    outcomes: dict[str, Outcome] = {}
    inputs = _Inputs(tar, collected)
    with Progress(len(clips), f"align {output.stem}", "clips") as progress:
        for clip in clips:
            part = parts.open(_key(clip))
            if part is None:
                outcomes[clip.clip] = _align(clip, inputs, parts.path(_key(clip)), parsed)
            else:
                with part:
                    outcomes[clip.clip] = Outcome(**part.clips[0].meta)
            frames = sum(outcome.frames for outcome in outcomes.values())
            progress.update(note=f"{frames} frames")
    inputs.close()
    _merge(output, parts, clips, parsed)
    rows = [{"clip": clip, "stage": "align", **asdict(outcome)} for clip, outcome in outcomes.items()]
    write_table(status, "status", rows)
    parts.remove()
    return outcomes


def _merge(output: Path, parts: Parts[AlignedReader], clips: Sequence[Clip], options: AlignOptions) -> None:
    with AlignedWriter(output, _attributes(options)) as writer:
        for clip in clips:
            part = parts.open(_key(clip))
            if part is None:
                raise InputError(parts.path(_key(clip)), "was damaged while the stage ran", "run it again")
            with part:
                if part.clips[0].count:
                    writer.copy_clip(part, part.clips[0])


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the stage."""
    parser = stage_parser("align", __doc__)
    parser.add_argument("--clips", type=Path, required=True, help="the shard's clips.tsv")
    parser.add_argument("--tar", type=Path, help="where collect put the clips; default: read in place")
    parser.add_argument("--collected", type=Path, help="what collect could not get")
    parser.add_argument("--output", type=Path, required=True, help="the shard of aligned frames")
    parser.add_argument("--status", type=Path, required=True, help="what became of each clip")
    parser.add_argument("--state", type=Path, required=True, help="finished clips of a killed job")
    a = parser.parse_args(argv)
    keep_opencv_to_one_thread()
    outcomes = run(a.clips, a.output, a.status, a.state, a.options, a.tar, a.collected)
    counts = Counter(outcome.status for outcome in outcomes.values())
    logging.info("%d clips: %s", len(outcomes), ", ".join(f"{n} {name}" for name, n in counts.most_common()))


if __name__ == "__main__":
    entry(main)
