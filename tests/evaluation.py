"""A tiny finished workflow for tests of the evaluation: frames whose colours say what fake networks see."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from remime import video
from remime.archive import AlignedWriter, AnswerWriter, encode_jpeg, encode_labels
from remime.metrics.networks import Networks
from remime.stages import Dataset
from remime.tables import read_table, write_table

SIZE = 64
CLIPS = {"ann one": ("ann", 12), "bob-1": ("bob", 9), "cid": ("cid", 8)}
COLOURS = {"ann": 60, "bob": 120, "cid": 200}


def face() -> NDArray[np.float64]:
    """68 landmarks in general position whose eyes and mouth are open."""
    return np.random.default_rng(7).uniform(0.2, 0.8, (68, 2)) * SIZE


def frame(yaw: float, pitch: float, identity: int, size: int = SIZE) -> NDArray[np.uint8]:
    """An image whose red, green and blue are yaw, pitch (−1…1 each) and identity (0…255)."""
    colour = np.clip([128 + 100 * yaw, 128 + 100 * pitch, identity], 0, 255).astype(np.uint8)
    return np.tile(colour, (size, size, 1))


def motion(clip: str, n: int) -> list[tuple[float, float]]:
    """The yaw and pitch of a clip's frames."""
    phase = sum(map(ord, clip)) % 7
    return [(0.8 * np.sin(0.7 * t + phase), 0.5 * np.cos(0.9 * t + phase)) for t in range(n)]


def _colours(images: torch.Tensor) -> torch.Tensor:
    return images.mean(dim=(2, 3))


def _pose(images: torch.Tensor) -> torch.Tensor:
    means = _colours(images)
    return torch.stack([40 * means[:, 0], 40 * means[:, 1], 0 * means[:, 0]], dim=1)


def _identity(images: torch.Tensor) -> torch.Tensor:
    blue = 1.5 * _colours(images)[:, 2]
    return torch.stack([blue.cos(), blue.sin()], dim=1)


def _landmarks(image: NDArray[np.uint8]) -> NDArray[np.float64] | None:
    """The face with eyes, mouth and brows moved by red and green; None for a black image."""
    if image.mean() < 8:
        return None
    red, green = image[..., 0].mean() / 255, image[..., 1].mean() / 255
    points = face()
    points[37:39, 1] -= 6 * red
    points[43:45, 1] -= 6 * red
    points[61:64, 1] -= 9 * green
    points[17:27, 1] -= 5 * (red + green)
    return points * image.shape[0] / SIZE


def _lpips(a: torch.Tensor, b: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    difference = (a - b).square().mean(dim=1)
    if mask is None:
        return difference.mean(dim=(1, 2))
    return (difference * mask).sum(dim=(1, 2)) / mask.sum(dim=(1, 2))


def _mesh(images: torch.Tensor) -> torch.Tensor:
    """52 blendshapes: none, red, green, then nothing more."""
    colours = (_colours(images) + 1) / 2
    nothing = torch.zeros(len(images), 49)
    return torch.cat([torch.full_like(colours[:, :1], 9), colours[:, :2], nothing], dim=1)


NAMES = {"pose": "p-net", "landmarks": "l-net", "identity": "i-net", "lpips": "d-net", "mesh": "m-net"}
NETWORKS = Networks(_pose, _landmarks, _identity, _lpips, NAMES, mesh=_mesh)
LABELS = ("background", "hair", "clothes", "skin", "brows", "lashes", "eyes", "teeth", "tongue", "lips")


def make_dataset(folder: Path, clips: Mapping[str, tuple[str, int]] = CLIPS, split: str = "test") -> Dataset:
    """A dataset of one shard with frames, status, index and manifest."""
    dataset = Dataset(folder, 1)
    shard = dataset.shard_names[0]
    with AlignedWriter(dataset.aligned(shard), {"resolution": SIZE}) as writer:
        for clip, (identity, n) in clips.items():
            jpegs = [encode_jpeg(frame(*angles, COLOURS[identity])) for angles in motion(clip, n)]
            points = np.repeat(face()[None], n, axis=0)
            transform = np.repeat(np.eye(2, 3)[None], n, axis=0)
            writer.add_clip(
                clip, 25.0, identity, jpegs, points, transform, np.arange(n) / 25, np.zeros(n, bool)
            )
    status = [
        {"clip": clip, "stage": "align", "status": "ok", "frames": n, "interpolated": 1, "fps": 25.0}
        for clip, (_, n) in clips.items()
    ]
    status.append({"clip": "lost", "stage": "align", "status": "no_face", "detail": "<b>dark</b>"})
    write_table(dataset.status(shard), "status", status)
    selected = [
        {"clip": clip, "frame": f, "row": f, "keep": f > 0, "sampled": f == 1, "reason": "" if f else "blur"}
        for clip, (_, n) in clips.items()
        for f in range(n)
    ]
    write_table(dataset.selected(shard), "selected", selected)
    index = [
        {"clip": clip, "identity": identity, "split": split, "shard": shard, "row": f - 1, "frame": f}
        for clip, (identity, n) in clips.items()
        for f in range(1, n)
    ]
    write_table(dataset.index("psp"), "latents", index)
    manifest = [
        {"clip": clip, "video": clip, "identity": identity, "split": split, "kind": "video",
         "path": f"{clip}.mp4", "terms": "CC0 <test>"}
        for clip, (identity, _) in clips.items()
    ]  # fmt: skip
    write_table(dataset.manifest, "manifest", manifest)
    return dataset


def read_pairs(benchmark: Path) -> list[dict[str, Any]]:
    """The rows of a benchmark's pairs."""
    return read_table(benchmark / "pairs.parquet", "pairs").to_pylist()


@dataclass(frozen=True)
class Fake:
    """A method of known quality: what it does to the driving pose and the target's identity."""

    offset: float = 0.0
    gain: float = 1.0
    identity: int = 0
    size: int = SIZE


def generate(pair: Mapping[str, Any], fake: Fake) -> list[NDArray[np.uint8]]:
    """The frames that a fake method makes for a pair."""
    identity = COLOURS.get(pair["target_identity"], 90) + fake.identity
    angles = motion(pair["driving_clip"], pair["frames"])
    return [frame(fake.gain * y + fake.offset, p, identity, fake.size) for y, p in angles]


def write_image(path: Path, image: NDArray[np.uint8]) -> None:
    """A PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[..., ::-1])


def write_videos(benchmark: Path, model: str, fake: Fake = Fake(), pairs: Sequence | None = None) -> None:
    """What `reenact` leaves behind for a model."""
    for pair in pairs if pairs is not None else read_pairs(benchmark):
        folder = benchmark / model / "videos" / pair["batch"]
        frames = generate(pair, fake)
        with video.Writer(folder / f"{pair['pair']}.mp4", 25, (fake.size, fake.size), crf=1) as writer:
            for image in frames:
                writer.write(image)
        identity = COLOURS.get(pair["target_identity"], 90)
        write_image(folder / f"{pair['pair']}.target.png", frame(0, 0, identity))
        write_image(folder / f"{pair['pair']}.inversion.png", frame(0, 0, identity + 10))
        (folder / f"{pair['pair']}.json").write_text(json.dumps({"method": model, "pair": pair["pair"]}))


def write_answers(benchmark: Path) -> Path:
    """What `answer` leaves behind: what a perfect method makes; all but the left quarter is face."""
    pairs = read_pairs(benchmark)
    path = benchmark / "answers" / f"{pairs[0]['batch']}.h5"
    labels = np.full((SIZE, SIZE), LABELS.index("skin"), np.uint8)
    labels[:, : SIZE // 4] = LABELS.index("background")
    with AnswerWriter(path, LABELS) as writer:
        for pair in pairs:
            writer.begin_clip(pair["pair"], 25.0, pair["target_identity"])
            for image in generate(pair, Fake()):
                tensor = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 127.5 - 1
                writer.append(
                    frames=encode_jpeg(image),
                    labels=encode_labels(labels),
                    landmarks=_landmarks(image),
                    pose=_pose(tensor)[0].numpy(),
                    # Those of the mesh without `_neutral`, and the tongue.
                    coefficients=np.append(_mesh(tensor)[0, 1:].numpy(), 0),
                )
    return path
