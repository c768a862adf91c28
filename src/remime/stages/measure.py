"""Measure head pose, expression, identity and sharpness of every aligned frame.

The rows of each finished clip lie in the state folder until all are done, so that a killed job goes on
where it was.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from remime.archive import AlignedReader, ClipEntry, Parts
from remime.errors import InputError, refuse_unknown
from remime.files import sha256
from remime.progress import Progress
from remime.stages import entry, stage_parser
from remime.tables import concat, read_table, write_table
from remime.versions import STAGES

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from remime.faces.mesh import MeshResult

OPTIONS: dict[str, Any] = {"pose": "hopenet-lite", "identity": "sface", "mesh": "face-mesh", "batch": 8}
MESHES = ("face-mesh",)
# A mesh network that gives less than this to "the crop shows a face" has not found one.
LEAST_SCORE = 0.5
_SHARPNESS_SIDE = 256
# Brows to chin and cheek to cheek in an FFHQ crop: hair and background say nothing about a face's sharpness.
_FACE = (slice(64, 224), slice(56, 200))


def sharpness(image: NDArray[np.uint8]) -> float:
    """Variance of the Laplacian over the inner face of an aligned frame ``[S, S, 3]``.

    The frame is brought to 256² first, so that values of all resolutions compare; grey levels are 0 to 255.
    About 10 is blurred, 100 and more is sharp.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    if grey.shape[0] != _SHARPNESS_SIDE:
        how = cv2.INTER_AREA if grey.shape[0] > _SHARPNESS_SIDE else cv2.INTER_LINEAR
        grey = np.asarray(cv2.resize(grey, (_SHARPNESS_SIDE, _SHARPNESS_SIDE), interpolation=how), np.uint8)
    return float(cv2.Laplacian(grey, cv2.CV_32F)[_FACE].var())


@dataclass(frozen=True)
class Networks:
    """What measures a batch of frames ``[B, 3, R, R]`` in [−1, 1].

    Args:
        pose: to yaw, pitch, roll ``[B, 3]`` in degrees.
        mesh: to a ``MeshResult``.
        embed: to unit vectors ``[B, D]``.
        device: where they lie.
    """

    pose: Callable[[Tensor], Tensor]
    mesh: Callable[[Tensor], MeshResult]
    embed: Callable[[Tensor], Tensor]
    device: torch.device


def load_networks(options: Mapping[str, Any]) -> Networks:
    """The networks that the options name, on the CPU: the rule asks for no GPU.

    Raises:
        InputError: an unknown mesh network.
        WeightsError: weights are missing.
    """
    import torch

    from remime.faces.identity import load_identity
    from remime.faces.mesh import load_mesh
    from remime.faces.pose import load_pose

    device = torch.device("cpu")
    return Networks(
        load_pose(options["pose"]).to(device),
        load_mesh().to(device),
        load_identity(options["identity"]).to(device).embed,
        device,
    )


def _measure_batch(networks: Networks, images: NDArray[np.uint8]) -> Iterator[dict[str, Any]]:
    import torch

    batch = torch.from_numpy(images).to(networks.device).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.inference_mode():
        pose = networks.pose(batch).cpu().numpy()
        mesh = networks.mesh(batch)
        vectors = networks.embed(batch).float().cpu().numpy()
        blendshapes, scores = mesh.blendshapes.cpu().numpy(), mesh.score.cpu().numpy()
    for i, image in enumerate(images):
        yaw, pitch, roll = (float(value) for value in pose[i])
        yield {
            "yaw": yaw,
            "pitch": pitch,
            "roll": roll,
            "sharpness": sharpness(image),
            "detected": bool(scores[i] >= LEAST_SCORE),
            "blendshapes": blendshapes[i],
            "identity_vector": vectors[i],
        }


def _rows(
    reader: AlignedReader, clip: ClipEntry, networks: Networks, batch: int, progress: Progress
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for first in range(clip.first, clip.first + clip.count, batch):
        numbers = range(first, min(first + batch, clip.first + clip.count))
        times, filled = (data[numbers.start : numbers.stop] for data in (reader.time, reader.interpolated))
        for row, measured in zip(numbers, _measure_batch(networks, reader.frames(numbers)), strict=True):
            # Where landmarks were filled in, the crop is a guess.
            measured["detected"] &= not filled[row - first]
            place = {"clip": clip.id, "frame": row - clip.first, "row": row, "time": times[row - first]}
            rows.append({**place, **measured})
        progress.update(len(numbers))
    return rows


def _read_part(path: Path) -> pa.Table:
    try:
        return read_table(path, "measured")
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(path, f"is damaged ({error})", "delete it and run again") from error


def run(aligned: Path, output: Path, state: Path, options: Mapping[str, Any]) -> int:
    """Measure the frames of a shard and return how many there are.

    Args:
        aligned: the shard of aligned frames.
        output: the table ``measured``.
        state: the folder of finished clips; removed at the end.
        options: ``pose``, ``identity``, ``mesh`` (names of networks) and ``batch``.

    Raises:
        InputError: the shard is missing or damaged, or an option is unknown.
        WeightsError: weights are missing.
    """
    refuse_unknown("measure", options, OPTIONS)
    o = {**OPTIONS, **options}
    if o["mesh"] not in MESHES:
        raise InputError("measure: mesh", f"is {o['mesh']!r}", f"one of {', '.join(MESHES)}")
    key = {"version": STAGES["measure"], "aligned": sha256(aligned) if aligned.is_file() else "", **o}
    parts = Parts(state, _read_part, key, ".parquet")
    with AlignedReader(aligned) as reader:
        pending = [clip for clip in reader.clips if parts.open(_name(clip)) is None]
        networks = load_networks(o) if pending else None
        done = len(reader) - sum(clip.count for clip in pending)
        with Progress(len(reader), f"measure {aligned.stem}", "frames", done=done) as progress:
            for clip in pending:
                assert networks is not None
                rows = _rows(reader, clip, networks, o["batch"], progress)
                write_table(parts.path(_name(clip)), "measured", rows)
        tables = [parts.open(_name(clip)) for clip in reader.clips]
    if any(table is None for table in tables):
        raise InputError(state, "holds parts that were damaged while the stage ran", "run it again")
    table = concat([table for table in tables if table is not None], "measured")
    write_table(output, "measured", table, networks={k: o[k] for k in ("pose", "identity", "mesh")})
    parts.remove()
    return len(table)


def _name(clip: ClipEntry) -> str:
    return json.dumps(asdict(clip), sort_keys=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the stage."""
    parser = stage_parser("measure", __doc__)
    parser.add_argument("--aligned", type=Path, required=True, help="the shard of aligned frames")
    parser.add_argument("--output", type=Path, required=True, help="the table of measurements")
    parser.add_argument("--state", type=Path, required=True, help="finished clips of a killed job")
    a = parser.parse_args(argv)
    logging.info("%d frames", run(a.aligned, a.output, a.state, a.options))


if __name__ == "__main__":
    entry(main)
