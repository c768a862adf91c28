"""Aligned frames and their latents as training data, read from the shards as they are needed."""

from __future__ import annotations

import io
import json
import math
import tarfile
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from remime.errors import InputError
from remime.images import to_tensor

if TYPE_CHECKING:
    from remime.archive import AlignedReader, LatentReader
    from remime.layout import Dataset

_OPEN_SHARDS = 16
_SAME_MOMENT = 1e-3  # s; times of frames are rounded to a video's time base


@dataclass(frozen=True)
class Sample:
    """One frame: where it lies and whose it is."""

    dataset: str
    shard: str
    row: int  # of the aligned shard
    latent_row: int  # of the latent shard; -1 without latents
    clip: str
    identity: str
    split: str
    time: float = math.nan  # seconds in the clip, where it matters


@dataclass(frozen=True)
class FaceUnits:
    """What the frames of one rendered clip show.

    Attributes:
        where: positions of its n frames.
        values: [n,k], 0 (at rest) to 1.
        names: of the k, ARKit's.
    """

    where: list[int]
    values: Tensor
    names: tuple[str, ...]


class Frames:
    """Frames of some datasets, by position.

    Args:
        datasets: where they lie.
        samples: which ones.
        inverter: whose latents to read along, or None.
    """

    def __init__(
        self, datasets: Sequence[Dataset], samples: Sequence[Sample], inverter: str | None = None
    ) -> None:
        self._datasets = {d.name: d for d in datasets}
        self.samples, self._inverter = list(samples), inverter
        self._readers: OrderedDict[tuple[str, str], AlignedReader | LatentReader] = OrderedDict()
        self._lock = Lock()  # batches are read ahead in a thread

    def __len__(self) -> int:
        return len(self.samples)

    def _reader(self, kind: str, sample: Sample) -> AlignedReader | LatentReader:
        from remime.archive import AlignedReader, LatentReader

        key = (kind, f"{sample.dataset}/{sample.shard}")
        if key not in self._readers:
            dataset = self._datasets[sample.dataset]
            self._readers[key] = (
                AlignedReader(dataset.aligned(sample.shard))
                if kind == "aligned"
                else LatentReader(dataset.latents(self._inverter or "", sample.shard))
            )
            if len(self._readers) > _OPEN_SHARDS:
                self._readers.popitem(last=False)[1].close()
        self._readers.move_to_end(key)
        return self._readers[key]

    def images(self, indices: Sequence[int]) -> Tensor:
        """Aligned frames [B,3,R,R] in [-1,1]."""
        frames = []
        with self._lock:
            for sample in (self.samples[i] for i in indices):
                frames.append(self._reader("aligned", sample).frame(sample.row))  # type: ignore[union-attr]
        return to_tensor(frames)

    def jpeg(self, index: int) -> bytes:
        """An aligned frame as it was stored."""
        sample = self.samples[index]
        with self._lock:
            return self._reader("aligned", sample).jpeg(sample.row)  # type: ignore[union-attr]

    def latents(self, indices: Sequence[int]) -> Tensor:
        """Their W+ [B,rows,512]."""
        rows = []
        with self._lock:
            for sample in (self.samples[i] for i in indices):
                rows.append(self._reader("latents", sample).latents[sample.latent_row])  # type: ignore[union-attr]
        return torch.from_numpy(np.stack(rows).astype(np.float32))

    def true_latents(self) -> Iterator[tuple[list[int], Tensor]]:
        """The latents that rendered frames were made from, as their source stored them beside the clips.

        Yields:
            for each clip of which they are known: positions of its frames, and their W+ [n,rows,512].

        Raises:
            InputError: a shard's clips cannot be read, or do not fit the frames.
        """
        for where, truth in self._truth("w_plus"):
            yield where, torch.from_numpy(truth["w_plus"])

    def face_units(self) -> Iterator[FaceUnits]:
        """What rendered heads do, as their source stored it beside the clips.

        Yields:
            for each clip of which it is known.

        Raises:
            InputError: as ``true_latents``.
        """
        for where, truth in self._truth("coefficients", "names"):
            values = torch.from_numpy(truth["coefficients"].astype(np.float32))
            yield FaceUnits(where, values, tuple(truth["names"].tolist()))

    def _truth(self, name: str, *beside: str) -> Iterator[tuple[list[int], dict[str, np.ndarray]]]:
        """What clips came with beside them.

        Yields:
            for each clip that came with an array [T, ...] of this name: positions of its frames, that array's
            rows for them, and further arrays as they are.
        """
        clips: dict[tuple[str, str], dict[str, list[int]]] = {}
        for i, sample in enumerate(self.samples):
            clips.setdefault((sample.dataset, sample.shard), {}).setdefault(sample.clip, []).append(i)
        for (dataset, shard), wanted in clips.items():
            tar = self._datasets[dataset].tar(shard)
            for clip, truth in _stored_truth(tar, wanted, name, beside):
                moments = np.array([self.samples[i].time for i in wanted[clip]])
                away = np.abs(truth["time"][None] - moments[:, None])
                if not (away.min(1) <= _SAME_MOMENT).all():
                    raise InputError(
                        tar,
                        f"the frames of {clip!r} have other times than the stored truth",
                        "delete it, and it is collected and aligned again",
                    )
                yield wanted[clip], truth | {name: truth[name][away.argmin(1)]}


def _stored_truth(
    tar: Path, clips: Collection[str], name: str, beside: Sequence[str]
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Times and an array of some clips of a shard, and others beside it, as far as their source stored it."""
    if not tar.is_file() and not tar.parent.is_dir():  # clips that are read in place
        return
    try:
        with tarfile.open(tar) as archive:
            for member in archive:
                clip, is_truth = member.name.removesuffix(".npz"), member.name.endswith(".npz")
                content = archive.extractfile(member) if is_truth and clip in clips else None
                if content is not None:
                    with np.load(io.BytesIO(content.read())) as truth:
                        if name in truth:
                            yield clip, {key: truth[key] for key in ("time", name, *beside)}
    except (
        OSError,
        EOFError,
        tarfile.TarError,
        ValueError,
        KeyError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise InputError(tar, f"cannot be read ({error})", "delete it, and it is collected again") from None


def selected_frames(datasets: Sequence[Dataset], split: str, sampled: bool = True) -> Frames:
    """Selected frames of one split, without latents.

    Args:
        datasets: to read.
        split: train, val or test.
        sampled: only P1's sampling (every 0.5 s); otherwise every frame that was kept.

    Raises:
        InputError: a table is missing or damaged.
    """
    from remime.tables import read_table

    samples = []
    for dataset in datasets:
        manifest = read_table(dataset.manifest, "manifest", ["clip", "identity", "split"]).to_pylist()
        clips = {r["clip"]: r for r in manifest if r["split"] == split}
        for shard in dataset.shard_names:
            for r in read_table(dataset.selected(shard), "selected").to_pylist():
                if r["keep"] and (r["sampled"] or not sampled) and r["clip"] in clips:
                    identity = clips[r["clip"]]["identity"]
                    samples.append(Sample(dataset.name, shard, r["row"], -1, r["clip"], identity, split))
    return Frames(datasets, samples)


def indexed_frames(datasets: Sequence[Dataset], inverter: str, split: str, sampled: bool = False) -> Frames:
    """Frames of one split with their latents, from the index tables.

    Args:
        datasets: to read.
        inverter: whose index.
        split: train, val or test.
        sampled: only P1's sampling (every 0.5 s); otherwise every frame that was inverted.
    """
    from remime.tables import read_table

    samples = []
    for dataset in datasets:
        for r in read_table(dataset.index(inverter), "latents").to_pylist():
            if r["split"] == split and (r["sampled"] or not sampled):
                samples.append(
                    Sample(
                        dataset.name,
                        r["shard"],
                        r["aligned_row"],
                        r["row"],
                        r["clip"],
                        r["identity"],
                        r["split"],
                        r["time"],
                    )
                )
    return Frames(datasets, samples, inverter)


def motion_frames(datasets: Sequence[Dataset], split: str) -> dict[tuple[int, int], list[Sample]]:
    """Frames of rendered heads, by what they show: the motion's seed and the time in milliseconds.

    Raises:
        InputError: a dataset's clips are not rendered heads.
    """
    from remime.archive import AlignedReader
    from remime.tables import read_table

    moments: dict[tuple[int, int], list[Sample]] = {}
    for dataset in datasets:
        takes = {}
        for r in read_table(dataset.manifest, "manifest", ["clip", "identity", "split", "path"]).to_pylist():
            if r["split"] == split:
                takes[r["clip"]] = (_take(dataset, r["path"]), r["identity"])
        for shard in dataset.shard_names:
            kept = read_table(dataset.selected(shard), "selected").to_pylist()
            with AlignedReader(dataset.aligned(shard)) as reader:
                for r in kept:
                    if not r["keep"] or r["clip"] not in takes:
                        continue
                    take, identity = takes[r["clip"]]
                    time = float(reader.time[r["row"]])
                    sample = Sample(dataset.name, shard, r["row"], -1, r["clip"], identity, split, time)
                    moments.setdefault((take["motion"], round(1000 * time)), []).append(sample)
    return moments


def _take(dataset: Dataset, path: str) -> dict[str, Any]:
    try:
        take = json.loads(path)
    except ValueError:
        take = {}
    if not isinstance(take, dict) or not {"motion", "scene"} <= set(take):
        raise InputError(
            f"same_motion: {dataset.name}", "is no dataset of rendered heads", "name one with `source: heads`"
        )
    return take


class SameMotion:
    """Batches of frames that show one moment of one motion by different people.

    Args:
        frames: of all moments.
        groups: positions of the frames of each moment.
        seed: of the choice.
    """

    def __init__(self, frames: Frames, groups: list[list[int]], seed: int) -> None:
        self.frames, self.groups, self.seed = frames, groups, seed

    @classmethod
    def read(cls, datasets: Sequence[Dataset], split: str, seed: int) -> SameMotion:
        """The moments that at least two people of a split show.

        Args:
            datasets: of rendered heads with shared motions.
            split: whose people.
            seed: of the choice.

        Raises:
            InputError: no two people share a motion.
        """
        moments = motion_frames(datasets, split)
        samples, groups = list[Sample](), list[list[int]]()
        for key in sorted(moments):
            if len({sample.identity for sample in moments[key]}) >= 2:
                groups.append(list(range(len(samples), len(samples) + len(moments[key]))))
                samples += moments[key]
        if not groups:
            raise InputError(
                f"same_motion: {', '.join(dataset.name for dataset in datasets)}",
                f"no motion is shown by two people of the split {split!r}",
                "set `shared_motions: true` there, and more identities",
            )
        return cls(Frames(datasets, samples), groups, seed)

    def batch(self, step: int, moments: int, people: int) -> list[list[int]]:
        """Positions [moments][people]; depends on the seed and the step alone."""
        source = np.random.default_rng((self.seed, step))
        chosen = source.integers(len(self.groups), size=moments)
        return [
            source.choice(group, people, replace=len(group) < people).tolist()
            for group in (self.groups[i] for i in chosen)
        ]


class Pairs:
    """P1's training batches: two frames of a clip of identity A and two of a clip of another identity B.

    Raises:
        InputError: fewer than two identities, or no clip with two frames.
    """

    def __init__(self, frames: Frames, seed: int) -> None:
        self.frames, self.seed = frames, seed
        self._clips: dict[str, dict[str, list[int]]] = {}
        for index, sample in enumerate(frames.samples):
            self._clips.setdefault(_person(sample), {}).setdefault(
                f"{sample.dataset}/{sample.clip}", []
            ).append(index)
        for identity, clips in list(self._clips.items()):
            self._clips[identity] = {c: rows for c, rows in clips.items() if len(rows) >= 2}
            if not self._clips[identity]:
                del self._clips[identity]
        self.identities = sorted(self._clips)
        if len(self.identities) < 2:
            raise InputError(
                "training data",
                f"{len(self.identities)} identities have a clip with two usable frames",
                "at least 2 are needed: add clips, or relax the limits in `select`",
            )

    def batch(self, step: int, size: int) -> dict[str, list[int]]:
        """Positions of s_A, t_A, s_B and t_B, each ``size`` long; depends on the seed and the step alone."""
        source = np.random.default_rng((self.seed, step))
        out: dict[str, list[int]] = {"s_a": [], "t_a": [], "s_b": [], "t_b": []}
        for _ in range(size):
            chosen = source.choice(len(self.identities), 2, replace=False)
            for name, position in zip("ab", chosen, strict=True):
                clips = self._clips[self.identities[position]]
                rows = clips[sorted(clips)[source.integers(len(clips))]]
                s, t = source.choice(len(rows), 2, replace=False)
                out[f"s_{name}"].append(rows[s])
                out[f"t_{name}"].append(rows[t])
        return out


class Crossings:
    """Clips of some people, each with a frame of somebody else that it is to drive.

    Args:
        targets: frames with latents, whose clips drive, too.
        further: frames of clips that only drive, or None.
        seed: of the choice.
        longest: frames that are taken of a clip, evenly spaced.

    Raises:
        InputError: fewer than two identities, or no clip with three frames.
    """

    def __init__(self, targets: Frames, further: Frames | None, seed: int, longest: int = 10) -> None:
        self.targets, self.seed = targets, seed
        self._people: dict[str, list[int]] = {}
        for row, sample in enumerate(targets.samples):
            self._people.setdefault(_person(sample), []).append(row)
        self._clips: list[tuple[str, Frames, list[int]]] = []
        for frames in (targets, further):
            clips: dict[tuple[str, str], list[int]] = {}
            for row, sample in enumerate(frames.samples if frames is not None else []):
                clips.setdefault((_person(sample), sample.clip), []).append(row)
            for (person, _), rows in sorted(clips.items()):
                if len(rows) >= 3 and self._people.keys() - {person}:
                    chosen = np.linspace(0, len(rows) - 1, min(longest, len(rows))).round().astype(int)
                    assert frames is not None
                    self._clips.append((person, frames, [rows[i] for i in chosen]))
        if not self._clips:
            raise InputError(
                "validation data",
                f"{len(self._people)} identities with latents, and no clip of three frames of another one",
                "add clips to the split `val`",
            )

    def __len__(self) -> int:
        """Clips that drive."""
        return len(self._clips)

    def batch(self, index: int) -> tuple[Frames, list[int], int]:
        """A driving clip, as frames and positions, and the position of its target among ``targets``.

        Every clip drives once before any drives again, and then somebody else.
        """
        turn, place = divmod(index, len(self._clips))
        person, frames, rows = self._clips[
            np.random.default_rng(self.seed).permutation(len(self._clips))[place]
        ]
        source = np.random.default_rng((self.seed, place))
        others = source.permutation(sorted(self._people.keys() - {person}))
        target = self._people[others[turn % len(others)]]
        return frames, rows, target[np.random.default_rng((self.seed, place, turn)).integers(len(target))]


def _person(sample: Sample) -> str:
    return f"{sample.dataset}/{sample.identity}"
