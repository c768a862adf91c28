"""Tiny stand-ins for the networks, and a tiny finished dataset whose frames a tiny generator made."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from remime.archive import AlignedWriter, LatentWriter, encode_jpeg
from remime.faces.mesh import BLENDSHAPES, POINTS, MeshResult
from remime.generators.base import estimate_mean_latent
from remime.generators.stylegan2 import StyleGAN2, channel_widths
from remime.images import to_image
from remime.models import save_model
from remime.shards import stable_hash
from remime.stages import Dataset
from remime.tables import write_table

SIZE = 32
ROWS = 8
CLIPS = {
    "ann-1": ("ann", 5),
    "ann-2": ("ann", 4),
    "bob-1": ("bob", 6),
    "cid-1": ("cid", 5),
    "dee-1": ("dee", 5),
}
SPLITS = {"ann": "train", "bob": "train", "cid": "val", "dee": "val"}
# Options of a training of an inverter.
INVERTER = {
    "kind": "inverter",
    "method": "restyle-psp",
    "generator": "tiny",
    "size": 64,
    "width": 8,
    "refinements": 2,
    "steps": 3,
    "batch": 2,
    "validate_batches": 1,
    "validate_every": 2,
    "checkpoint_every": 1,
}
TEST = {"eve-1": ("eve", 5), "fox-1": ("fox", 4)}


def generator(seed: int = 0, resolution: int = SIZE) -> StyleGAN2:
    """A frozen random StyleGAN2, 32² with eight channels, whose images stay within about [-1, 1]."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = StyleGAN2(resolution, channel_widths(resolution, cap=8), mapping_layers=2)
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if name.startswith("to_rgb") and name.endswith("conv.weight"):
                    parameter.mul_(0.3)
    network.eval().requires_grad_(False)
    network.mean_latent.copy_(estimate_mean_latent(network, 256))
    return network


class Mesh(nn.Module):
    """Stands in for the mesh network: fixed functions of a frame's coarse colours."""

    def __init__(self) -> None:
        super().__init__()
        source = torch.Generator().manual_seed(0)
        self.register_buffer("points", torch.randn(48, POINTS * 3, generator=source), persistent=False)
        self.register_buffer("shapes", torch.randn(48, len(BLENDSHAPES), generator=source), persistent=False)

    def forward(self, images: Tensor) -> MeshResult:
        colours = F.adaptive_avg_pool2d(images, 4).flatten(1)
        points = (colours @ self.points).unflatten(1, (POINTS, 3)) * images.shape[-1] / 10
        score = torch.ones(len(images), device=images.device)
        return MeshResult(points, score, torch.sigmoid(2 * colours @ self.shapes))


class Losses(nn.Module):
    """Stands in for ``ImageLosses``: cheap, and zero for equal images."""

    def __init__(self, identity: str = "dlib-resnet-id") -> None:
        super().__init__()
        self.name = identity

    def l2(self, a: Tensor, b: Tensor) -> Tensor:
        return (a - b).square().mean()

    def perceptual(self, a: Tensor, b: Tensor) -> Tensor:
        return (F.adaptive_avg_pool2d(a, 4) - F.adaptive_avg_pool2d(b, 4)).abs().mean()

    def same_person(self, a: Tensor, b: Tensor) -> Tensor:
        vectors = [F.adaptive_avg_pool2d(x, 2).flatten(1) for x in (a, b.detach())]
        return 1 - F.cosine_similarity(*vectors).mean()


@cache
def directions() -> Tensor:
    """Two directions of motion in W+ [2, rows, 512]."""
    return 0.5 * torch.randn(2, ROWS, 512, generator=torch.Generator().manual_seed(5))


def latents(clip: str, identity: str, frames: int) -> Tensor:
    """The W+ [frames, rows, 512] of a clip: its identity's w, moved to and fro along two directions."""
    network = generator()
    source = torch.Generator().manual_seed(stable_hash(identity) % 2**62)
    w = network.broadcast(network.truncate(network.mapping(torch.randn(1, 512, generator=source)), 0.7))
    time = torch.arange(frames) + stable_hash(clip) % 7
    phase = torch.stack([torch.sin(0.9 * time), torch.cos(1.3 * time)], 1)
    return w + torch.einsum("tk,krc->trc", phase, directions())


def frames(clip: str, identity: str, count: int) -> np.ndarray:
    """The frames uint8 [count, 32, 32, 3] of a clip."""
    return to_image(generator().synthesize(latents(clip, identity, count)))


def make_dataset(
    folder: Path,
    clips: Mapping[str, tuple[str, int]] = CLIPS,
    splits: Mapping[str, str] = SPLITS,
    inverter: str = "psp",
    paths: Mapping[str, Path] | None = None,
) -> Dataset:
    """A dataset of two shards with everything up to the index; the first frame of every clip is not kept.

    Of the others every second one is sampled. Latents are the true ones.
    """
    dataset, index = Dataset(folder, 2), []
    for number, shard in enumerate(dataset.shard_names):
        own = {clip: value for i, (clip, value) in enumerate(clips.items()) if i % 2 == number}
        index += _make_shard(dataset, shard, own, splits, inverter)
    manifest = [
        {"clip": clip, "video": clip, "identity": who, "split": splits.get(who, "test"), "kind": "video",
         "path": str((paths or {}).get(clip, f"{clip}.mp4")), "terms": "CC0"}
        for clip, (who, _) in clips.items()
    ]  # fmt: skip
    write_table(dataset.manifest, "manifest", manifest)
    write_table(dataset.index(inverter), "latents", index)
    return dataset


def _make_shard(
    dataset: Dataset,
    shard: str,
    clips: Mapping[str, tuple[str, int]],
    splits: Mapping[str, str],
    inverter: str,
) -> list[dict[str, Any]]:
    measured, selected, status, index = [], [], [], []
    with (
        AlignedWriter(dataset.aligned(shard), {"resolution": SIZE}) as aligned,
        LatentWriter(dataset.latents(inverter, shard), {}, ROWS, inverter, "0") as inverted,
    ):
        for clip, (who, n) in clips.items():
            first = len(measured)
            jpegs = [encode_jpeg(image, 100) for image in frames(clip, who, n)]
            zero, time = np.zeros((n, 68, 2)), 0.5 + np.arange(n) / 25
            transform = np.repeat(np.eye(2, 3)[None], n, axis=0)
            aligned.add_clip(clip, 25.0, who, jpegs, zero, transform, time, np.zeros(n, bool))
            kept = np.arange(1, n)
            inverted.add_clip(clip, 25.0, who, latents(clip, who, n)[1:].numpy(), first + kept, 0.01 * kept)
            for f in range(n):
                row = first + f
                measured.append(
                    {
                        "clip": clip,
                        "frame": f,
                        "row": row,
                        "time": time[f],
                        "yaw": float(f),
                        "pitch": 0.0,
                        "roll": 0.0,
                    }
                )
                selected.append(
                    {"clip": clip, "frame": f, "row": row, "keep": f > 0, "sampled": f % 2 == 1,
                     "reason": "" if f else "blur"}
                )  # fmt: skip
                if f:
                    index.append(
                        {"clip": clip, "identity": who, "split": splits.get(who, "test"), "shard": shard,
                         "row": len(index), "aligned_row": row, "frame": f, "time": time[f],
                         "sampled": f % 2 == 1}
                    )  # fmt: skip
            status.append({"clip": clip, "stage": "align", "status": "ok", "frames": n, "fps": 25.0})
    write_table(dataset.measured(shard), "measured", measured)
    write_table(dataset.selected(shard), "selected", selected)
    write_table(dataset.status(shard), "status", status)
    return index


def true_latents(clip: str) -> Tensor:
    """What a clip was rendered from, if it was: two frames more at the beginning, and more motion."""
    who, n = CLIPS[clip]
    w_plus = latents(clip, who, n)
    moving = w_plus[:1] + 1.5 * (w_plus - w_plus[:1])
    return torch.cat([w_plus[:2] + 1, moving])


def add_truth(dataset: Dataset, shard: str, without: str = "", late: float = 0.0, times: bool = True) -> None:
    """What ``collect`` would have stored of the clips of a shard, one of which came without its truth.

    ``late`` shifts the stored times by seconds; without ``times`` it is as version 1 of the stage wrote it.
    """
    dataset.tar(shard).parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(dataset.tar(shard), "w") as tar:
        for number, clip in enumerate(CLIPS):
            if dataset.shard_names[number % 2] != shard:
                continue
            w_plus, truth = true_latents(clip).numpy(), io.BytesIO()
            # Aligned frames begin at 0.5 s.
            time = late + 0.5 + (np.arange(len(w_plus)) - 2) / 25
            known = {"w_plus": w_plus} if clip != without else {}
            np.savez(truth, **known, **({"time": time} if times else {}), motion=time)
            for suffix, content in ((".mp4", b"film"), (".npz", truth.getvalue())):
                member = tarfile.TarInfo(clip + suffix)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def add_blinks(dataset: Dataset, shard: str) -> None:
    """What ``collect`` would have stored of the clips of a shard, were they rendered heads that blink."""
    dataset.tar(shard).parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(dataset.tar(shard), "w") as tar:
        for number, (clip, (_, frames)) in enumerate(CLIPS.items()):
            if dataset.shard_names[number % 2] != shard:
                continue
            blinks, truth = closed_lids(frames), io.BytesIO()
            names = ["jawOpen", *(f"{unit}{side}" for unit in UNITS for side in ("Left", "Right"))]
            # Half of it the lids do by themselves, the other half because eyes look down.
            values = np.stack([1 - blinks, *(blinks / 2 + i for i in (-0.01, 0.01)), blinks, blinks], 1)
            np.savez(truth, time=0.5 + np.arange(frames) / 25, coefficients=values, names=np.array(names))
            member = tarfile.TarInfo(clip + ".npz")
            member.size = len(truth.getvalue())
            tar.addfile(member, io.BytesIO(truth.getvalue()))


UNITS = ("eyeBlink", "eyeLookDown")


def closed_lids(frames: int) -> NDArray[np.float32]:
    """How far lids are closed in the frames of a clip."""
    return (0.5 + 0.4 * np.sin(np.arange(frames))).astype(np.float32)


def save_inverter(path: Path, seed: int = 0, width: int = 8, refinements: int = 2) -> Path:
    """The file of a small inverter for ``generator()`` whose head is random."""
    from remime.encoders.inverter import build_inverter

    options = {
        "method": "restyle-psp",
        "preset": "small",
        "refinements": refinements,
        "size": 64,
        "width": width,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        inverter = build_inverter(options, generator())
        nn.init.normal_(inverter.encoder.heads.weight, std=0.02)
    elsewhere = ("generator.", "encoder.trunk.")
    tensors = {k: v for k, v in inverter.state_dict().items() if not k.startswith(elsewhere)}
    meta = {
        "kind": "inverter",
        "method": "restyle-psp",
        "preset": "small",
        "generator": "tiny",
        "options": options,
    }
    save_model(path, tensors, meta)
    return path
