"""A job with all that it reads, as parts: a machine with torch and no files of datasets can train it."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from remime.errors import InputError
from remime.files import atomic
from remime.images import to_tensor
from remime.models import Model, shipped
from remime.training.data import FaceUnits, Frames, SameMotion, Sample
from remime.training.job import Job, directions_of
from remime.training.parts import LIMIT, Parts, read_parts, write_parts
from remime.versions import STAGES
from remime.weights.store import weights_dir


class CarriedFrames(Frames):
    """Frames in memory that a kit brought, instead of shards."""

    def __init__(self, samples: Sequence[Sample], carried: dict[str, Any]) -> None:
        super().__init__([], samples)
        self._jpegs, self._ends = carried["jpegs"], [0, *carried["ends"].tolist()]
        self._latents, self._true, self._units = carried["latents"], carried["truth"], carried["units"]

    def images(self, indices: Sequence[int]) -> Tensor:
        """Aligned frames [B,3,R,R] in [-1,1]."""
        from PIL import Image

        frames = []
        for i in indices:
            data = self._jpegs[self._ends[i] : self._ends[i + 1]].numpy().tobytes()
            with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
                frames.append(np.asarray(image.convert("RGB")))
        return to_tensor(np.stack(frames))

    def latents(self, indices: Sequence[int]) -> Tensor:
        """Their W+ [B,rows,512]."""
        return self._latents[list(indices)]

    def true_latents(self) -> Iterator[tuple[list[int], Tensor]]:
        """As ``Frames.true_latents``."""
        yield from self._true

    def face_units(self) -> Iterator[FaceUnits]:
        """As ``Frames.face_units``."""
        for units in self._units:
            yield FaceUnits(**units)


def pack_kit(job: Job, networks: Iterable[Path], folder: Path, limit: int = LIMIT) -> Parts:
    """Write a job and what it reads as the parts ``NAME-job``.

    Args:
        job: whose frames lie in shards.
        networks: converted networks, ``.safetensors``, with their descriptions beside them.
        folder: of the parts.
        limit: largest size of a part in bytes.

    Raises:
        InputError: frames or files cannot be read.
    """
    start = job.start
    tree = {
        "name": job.name,
        "options": job.options,
        "digest": job.digest,
        "datasets": job.datasets,
        "train": _carry(job.train, job.options),
        "validation": _carry(job.validation, job.options),
        "driving": _carry_images(job.driving) if job.driving else None,
        "same_motion": None if job.same_motion is None else _carry_motions(job.same_motion),
        "leaking": None if job.leaking is None else _carry_motions(job.leaking),
        "start": None if start is None else {"tensors": start.tensors, "meta": start.meta},
        "directions": directions_of(job.options, start is not None),
        "networks": {
            file.name: _bytes(file.read_bytes())
            for network in networks
            for file in (network, network.with_suffix(".json"))
        },
    }
    about = {"kind": "job", "name": job.name, "digest": job.digest, "train": STAGES["train"]}
    return write_parts(folder, f"{job.name}-job", tree, about, limit)


def read_kit(folder: Path, name: str, weights: Path | None = None) -> Job:
    """The job of ``pack_kit``; its networks are put where they are looked for.

    Args:
        folder: of the parts.
        name: of the model.
        weights: folder of the networks; None for the usual one.

    Raises:
        InputError: a part is missing or damaged, or a network is there already and differs.
    """
    tree = read_parts(folder, f"{name}-job")
    for file, content in tree["networks"].items():
        if Path(file).name != file or Path(file).suffix not in (".safetensors", ".json"):
            raise InputError(
                folder, f"would write {file!r}", "only networks belong into it; prepare it again"
            )
        _put((weights or weights_dir()) / file, content)
    start = tree["start"] and Model(tree["start"]["tensors"], tree["start"]["meta"])
    if tree["directions"] != directions_of(tree["options"], start is not None):
        raise InputError(
            shipped("puppet-directions"),
            "differs from what the job was prepared with",
            "train with the same commit that prepared it",
        )
    parts = ("train", "validation", "driving")
    train, validation, driving = (tree[k] and _carried(tree[k]) for k in parts)
    shared, leaking = (
        same and SameMotion(_carried(same["frames"]), same["groups"], same["seed"])
        for same in (tree["same_motion"], tree["leaking"])
    )
    data = tree["datasets"], train, validation, start, shared, driving, leaking
    return Job(tree["name"], tree["options"], tree["digest"], *data)


def _put(path: Path, content: Tensor) -> None:
    data = content.numpy().tobytes()
    if path.is_file():
        if path.read_bytes() != data:
            raise InputError(path, "differs from what the job was prepared with", "delete one of them")
        return
    with atomic(path) as temporary:
        temporary.write_bytes(data)


def _bytes(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _carry(frames: Frames | None, options: dict[str, Any]) -> dict[str, Any] | None:
    if frames is None or not len(frames):
        return None
    with_latents = options["kind"] == "method"
    truth = with_latents and options.get("latent_batch") and options.get("truth", True)
    return _carry_images(frames) | {
        "latents": frames.latents(range(len(frames))) if with_latents else None,
        "truth": list(frames.true_latents()) if truth else [],
        "units": [vars(units) for units in frames.face_units()] if truth else [],
    }


def _carry_motions(motions: SameMotion) -> dict[str, Any]:
    return {"frames": _carry_images(motions.frames), "groups": motions.groups, "seed": motions.seed}


def _carry_images(frames: Frames) -> dict[str, Any]:
    jpegs = [frames.jpeg(i) for i in range(len(frames))]
    return {
        "latents": None,
        "truth": [],
        "units": [],
        "samples": [asdict(sample) for sample in frames.samples],
        "jpegs": _bytes(b"".join(jpegs)),
        "ends": torch.tensor([len(jpeg) for jpeg in jpegs]).cumsum(0),
    }


def _carried(tree: dict[str, Any]) -> CarriedFrames:
    return CarriedFrames([Sample(**sample) for sample in tree["samples"]], tree)
