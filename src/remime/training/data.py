"""Aligned frames and their latents as training data, read from the shards as they are needed."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from torch import Tensor

from remime.errors import InputError

if TYPE_CHECKING:
    from remime.archive import AlignedReader, LatentReader
    from remime.layout import Dataset

_OPEN_SHARDS = 16


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
    time: float = 0.0  # seconds in the clip


def to_tensor(image: np.ndarray) -> Tensor:
    """uint8 [..., H, W, 3] to float32 [..., 3, H, W] in [-1, 1]."""
    tensor = torch.from_numpy(np.ascontiguousarray(image)).movedim(-1, -3).float()
    return tensor / 127.5 - 1


def to_image(tensor: Tensor) -> np.ndarray:
    """Float [..., 3, H, W] in [-1, 1] (clamped) to uint8 [..., H, W, 3]."""
    values = tensor.detach().float().movedim(-3, -1).cpu().numpy()
    rows = np.ascontiguousarray(values).reshape(-1, *values.shape[-2:])
    # One pass that scales, rounds and saturates; with torch it takes five, 4 ms more of a core at 1024².
    return cv2.addWeighted(rows, 127.5, rows, 0.0, 127.5, dtype=cv2.CV_8U).reshape(values.shape)


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
        for sample in (self.samples[i] for i in indices):
            frames.append(self._reader("aligned", sample).frame(sample.row))  # type: ignore[union-attr]
        return to_tensor(np.stack(frames))

    def latents(self, indices: Sequence[int]) -> Tensor:
        """Their W+ [B,rows,512]."""
        rows = []
        for sample in (self.samples[i] for i in indices):
            rows.append(self._reader("latents", sample).latents[sample.latent_row])  # type: ignore[union-attr]
        return torch.from_numpy(np.stack(rows).astype(np.float32))

    def true_latents(self) -> tuple[list[int], Tensor]:
        """The latents that rendered frames were made from, as their source stored them beside the clips.

        Returns:
            the positions of such frames, and their W+ [N,rows,512].

        Raises:
            InputError: a shard's clips cannot be read.
        """
        clips: dict[tuple[str, str], dict[str, list[int]]] = {}
        for i, sample in enumerate(self.samples):
            clips.setdefault((sample.dataset, sample.shard), {}).setdefault(sample.clip, []).append(i)
        where, found = list[int](), [torch.zeros(0)]
        for (dataset, shard), wanted in clips.items():
            for clip, truth in _stored(self._datasets[dataset].tar(shard), wanted):
                moments = [self.samples[i].time for i in wanted[clip]]
                rows = np.abs(truth["time"][None] - np.array(moments)[:, None]).argmin(1)
                where += wanted[clip]
                found.append(torch.from_numpy(truth["w_plus"][rows]))
        return where, torch.cat(found[1:] or found)


def _stored(tar: Path, clips: Collection[str]) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """The truth that ``collect`` stored of some clips, as far as their source has any."""
    if not tar.is_file():  # clips that are read in place
        return
    try:
        with tarfile.open(tar) as archive:
            for member in archive:
                clip, stored = member.name.removesuffix(".npz"), member.name.endswith(".npz")
                content = archive.extractfile(member) if stored and clip in clips else None
                if content is not None:
                    with np.load(io.BytesIO(content.read())) as truth:
                        if "w_plus" in truth:
                            yield clip, {name: truth[name] for name in ("time", "w_plus")}
    except (OSError, tarfile.TarError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(tar, f"cannot be read ({error})", "delete it, and it is collected again") from None


def selected_frames(datasets: Sequence[Dataset], split: str) -> Frames:
    """P1's training frames (``select``'s sampling) of one split, without latents.

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
                if r["keep"] and r["sampled"] and r["clip"] in clips:
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


class Pairs:
    """P1's training batches: two frames of a clip of identity A and two of a clip of another identity B.

    Raises:
        InputError: fewer than two identities, or no clip with two frames.
    """

    def __init__(self, frames: Frames, seed: int) -> None:
        self.frames, self.seed = frames, seed
        self._clips: dict[str, dict[str, list[int]]] = {}
        for index, sample in enumerate(frames.samples):
            identity = f"{sample.dataset}/{sample.identity}"
            self._clips.setdefault(identity, {}).setdefault(f"{sample.dataset}/{sample.clip}", []).append(
                index
            )
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
