"""Published datasets: their clips by their metadata, and the collector that downloads them.

The parts of a video that its clips need are fetched once (:mod:`remime.sources.fetching`), the clips are cut
from them (:mod:`remime.sources.cutting`), and the parts are removed when all clips are there.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from remime.errors import InputError, RemimeError
from remime.files import write_text
from remime.shards import split_of
from remime.sources import Clip, Collector, Listing, Make, Problem
from remime.sources.annotations import Annotation, Name, local_clips
from remime.sources.cutting import Cut, cut_clip, part_of
from remime.sources.fetching import Fetcher, FetchError, Transport
from remime.sources.parts import Part, merged

# So many videos one after the other that cannot be had for reasons that pass are no matter of the videos.
_IN_A_ROW = 5
DEFAULTS: dict[str, Any] = {"height": 1080, "min_height": 240, "max_seconds": 0.0}


def published(
    options: Mapping[str, Any],
    identify: Callable[[PurePath], Name | None],
    read_metadata: Callable[[Path], Iterable[Annotation | Problem]],
    layouts: str,
    margin: str,
) -> Listing:
    """The clips of a published dataset in its ``mode``: to be downloaded, or on a disk.

    Args:
        options: ``mode``, ``path``, ``metadata``, ``terms``, ``seed`` and ``download`` of the configuration.
        identify, read_metadata, layouts: see :func:`~remime.sources.annotations.local_clips`.
        margin: see :func:`clips`.

    Raises:
        InputError: nothing usable is there, or the metadata does not fit.
    """
    if options.get("mode") == "download":
        return clips(options, read_metadata(Path(options["metadata"])), margin)
    return local_clips(options, identify, read_metadata, layouts)


def clips(options: Mapping[str, Any], entries: Iterable[Annotation | Problem], margin: str) -> Listing:
    """The clips that a dataset's metadata lists, to be downloaded.

    Args:
        options: ``metadata``, ``terms``, ``seed``, and below ``download`` ``max_seconds``.
        entries: what the metadata holds.
        margin: the room that its boxes need, a key of ``remime.sources.cutting.MARGINS``.

    Raises:
        InputError: no clip can be downloaded.
    """
    seed = options.get("seed") or 0
    longest = {**DEFAULTS, **options.get("download", {})}["max_seconds"]
    found: dict[str, Clip] = {}
    problems: list[Problem] = []
    for entry in entries:
        if isinstance(entry, Problem):
            problems.append(entry)
        elif entry.name.clip in found:
            what = "is annotated more than once; the first counts"
            problems.append(Problem("repeated", entry.name.clip, what))
        elif not entry.youtube:
            problems.append(Problem("no_address", entry.name.clip, "has no address, so it cannot be had"))
        else:
            end = min(entry.end, entry.start + longest) if longest else entry.end
            cut = Cut(entry.youtube, entry.start, end, entry.box, entry.lines, margin)
            found[entry.name.clip] = Clip(
                clip=entry.name.clip,
                # Not the dataset's name of the video: what is one download has to be in one shard.
                video=entry.youtube,
                identity=entry.name.identity,
                split=split_of(entry.name.identity, seed),
                kind="download",
                path=cut.text(),
                terms=options.get("terms", "not stated"),
            )
    if not found:
        first = next((f"{p.where}: {p.what}" for p in problems), "it is empty")
        raise InputError(f"metadata {options['metadata']}", f"no clip is in it ({first})", "name another one")
    return Listing(found.values(), problems)


def collector(options: Mapping[str, Any], transport: Mapping[str, Any]) -> Collector | None:
    """What downloads the clips of a published dataset; None in the mode ``local``."""
    if options.get("mode") != "download":
        return None
    own = {**DEFAULTS, **options.get("download", {})}
    return Downloads(own["height"], own["min_height"], Transport.parse(transport))


class Downloads:
    """Downloads videos and cuts their clips; a :class:`~remime.sources.Collector`.

    Args:
        height, min_height: lines of the format that is chosen, and of the least that is taken.
        transport: how downloads are done.
    """

    def __init__(self, height: int, min_height: int, transport: Transport) -> None:
        self.options = {"height": height, "min_height": min_height}
        self._fetcher = Fetcher(transport, height, min_height)
        self._in_a_row: list[FetchError] = []

    @contextmanager
    def video(self, clips: Sequence[Clip], state: Path) -> Iterator[Make]:
        """What cuts the clips of one video, which is fetched when the first of them is asked for.

        What was fetched is removed at the end, but not after a failure of the job.
        """
        yield _Video([Cut.parse(clip.path) for clip in clips], state, self)
        shutil.rmtree(state, ignore_errors=True)

    def fetch(self, cuts: Sequence[Cut], folder: Path) -> list[Part]:
        """The parts of a video that hold these cuts.

        Raises:
            FetchError: it cannot be had.
            RemimeError: nothing can be had any more: the network is gone, or the site lets nobody in.
        """
        try:
            parts = self._fetcher.fetch(cuts[0].video, merged([(c.start, c.end) for c in cuts]), folder)
        except FetchError as error:
            self._in_a_row = [*self._in_a_row, error] if error.temporary else []
            if len(self._in_a_row) >= _IN_A_ROW:
                counts = Counter(each.status for each in self._in_a_row)
                listed = ", ".join(f"{n} {status}" for status, n in counts.most_common())
                raise RemimeError(
                    f"{_IN_A_ROW} videos one after the other could not be had ({listed}), the last because: "
                    f"{error.problem}\n  run again later; what is finished is kept"
                ) from error
            raise
        self._in_a_row = []
        return parts


@dataclass
class _Video:
    """Cuts the clips of one video."""

    cuts: Sequence[Cut]
    folder: Path
    downloads: Downloads
    parts: Sequence[Part] = ()
    error: InputError | None = None

    def __call__(self, clip: Clip, folder: Path) -> list[Path]:
        if self.error is not None:
            raise self.error
        try:
            self.parts = self.parts or self.downloads.fetch(self.cuts, self.folder)
        except InputError as error:
            self.error = error
            raise
        cut = Cut.parse(clip.path)
        part = part_of(cut, self.parts)
        path, facts = (folder / f"{clip.clip}{suffix}" for suffix in (".mp4", ".json"))
        count = cut_clip(cut, part, path)
        known = {"lines": part.height, "fps": part.fps, "seconds": round(count / part.fps, 3)}
        write_text(facts, json.dumps({**vars(cut), **known}, sort_keys=True))
        return [path, facts]
