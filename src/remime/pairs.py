"""The pairs of a benchmark as pictures: driving frames and target frames, from aligned shards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from remime.archive import AlignedReader, ClipEntry
from remime.errors import InputError
from remime.layout import Dataset

Image = NDArray[np.uint8]
Pair = Mapping[str, Any]  # a row of the table ``pairs``

RANDOM = "random:"
"""Clips of this name are identities that the generator invents; a seed follows."""
TARGET_SIZE = 256
"""Height and width of an invented target: what the inverters look at."""


class Driving(NamedTuple):
    """The part of a clip that drives.

    Args:
        reader: its shard.
        rows: the rows of its frames there.
        fps: frames per second.
    """

    reader: AlignedReader
    rows: range
    fps: float

    def frames(self) -> Iterator[Image]:
        """The aligned frames, decoded one by one."""
        return (self.reader.frame(row) for row in self.rows)


class Clips:
    """The aligned clips that pairs speak of; every shard is opened once.

    Args:
        datasets: where they lie.
        generator: makes the targets that are invented; it is loaded when the first one is asked for.
    """

    def __init__(self, datasets: Sequence[Dataset], generator: str = "mobile-ffhq") -> None:
        self._datasets = {dataset.name: dataset for dataset in datasets}
        self._readers: dict[Path, AlignedReader] = {}
        self._generator = generator
        self._loaded: Any = None

    def _clip(self, dataset: str, shard: str, clip: str) -> tuple[AlignedReader, ClipEntry]:
        if dataset not in self._datasets:
            raise InputError(
                "--datasets", f"the pairs use {dataset!r}, which is not given", "name its folder"
            )
        path = self._datasets[dataset].aligned(shard)
        reader = self._readers.get(path) or self._readers.setdefault(path, AlignedReader(path))
        if clip not in reader.by_id:
            raise InputError(path, f"there is no clip {clip!r}", "run plan again")
        return reader, reader.by_id[clip]

    def driving(self, pair: Pair) -> Driving:
        """What drives a pair.

        Raises:
            InputError: the pairs do not fit the datasets.
        """
        reader, clip = self._clip(pair["driving_dataset"], pair["driving_shard"], pair["driving_clip"])
        if clip.count < pair["frames"]:
            raise InputError(
                reader.path,
                f"{pair['frames']} frames of {clip.id} are needed, there are {clip.count}",
                "run plan again",
            )
        return Driving(reader, clip.rows[: pair["frames"]], clip.fps)

    def target(self, pair: Pair) -> Image:
        """The target frame of a pair, uint8 [h, h, 3].

        Raises:
            InputError: the pairs do not fit the datasets.
            WeightsError: it is to be invented, and the generator cannot be had.
        """
        if pair["target_clip"].startswith(RANDOM):
            return self._invented(int(pair["target_clip"].removeprefix(RANDOM)))
        reader, clip = self._clip(pair["target_dataset"], pair["target_shard"], pair["target_clip"])
        return reader.frame(clip.first + pair["target_frame"])

    def target_time(self, pair: Pair) -> float:
        """Where the target frame lies in its file, in seconds."""
        reader, clip = self._clip(pair["target_dataset"], pair["target_shard"], pair["target_clip"])
        return float(reader.time[clip.first + pair["target_frame"]])

    def _invented(self, seed: int) -> Image:
        # Networks take seconds to import, and most pairs do without.
        from remime.generators import load_generator
        from remime.reenactment import random_face

        if self._loaded is None:
            self._loaded = load_generator(self._generator)
        return random_face(self._loaded, seed, TARGET_SIZE)
