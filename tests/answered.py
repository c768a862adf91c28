"""A tiny dataset of rendered heads whose clips have true answers, aligned by transforms that are known."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from remime import video
from remime.archive import AlignedWriter, AnswerReader, encode_jpeg
from remime.faces.alignment import apply, quad_of, warp
from remime.heads import assets, take
from remime.heads.take import Take
from remime.sources import Clip, heads, write_clips
from remime.stages import Dataset, answer
from remime.tables import write_table
from tests import heads as small

FRAMES, SIZE = 5, 64
OPTIONS = {"identities": 3, "clips": 1, "frames": FRAMES, "fps": 25, "size": 96, "seed": 7}
BATCH = "0000-of-0001"


@pytest.fixture(scope="module")
def small_kit() -> Iterator[None]:
    """Heads are built of a few hundred vertices."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(take, "load_kit", small.kit)
        patch.setattr(assets, "load_kit", small.kit)
        take.figure_of.cache_clear()
        yield
    take.figure_of.cache_clear()


def transforms(count: int) -> NDArray[np.float64]:
    """From pixels of the video to aligned ones: a crop that turns and grows a little from frame to frame."""
    found = []
    for number in range(count):
        angle, scale = np.radians(4 + number), 0.9 + 0.02 * number
        cos, sin = scale * np.cos(angle), scale * np.sin(angle)
        turn = np.array([[cos, -sin], [sin, cos]])
        middle = np.array([47.5, 47.5])
        found.append(np.column_stack([turn, np.array([31.5, 31.5 + number]) - turn @ middle]))
    return np.stack(found)


def take_of(clip: Clip) -> Take:
    """What a clip was rendered from."""
    return Take(**json.loads(clip.path))


def make_dataset(folder: Path) -> tuple[Dataset, list[Clip]]:
    """Collected and aligned clips of three people."""
    dataset, listed = Dataset(folder, 1), heads.clips("heads", OPTIONS, None)
    shard = dataset.shard_names[0]
    write_clips(dataset.clips(shard), listed)
    matrices = transforms(FRAMES)
    with AlignedWriter(dataset.aligned(shard), {"resolution": SIZE}) as writer:
        for clip in listed:
            with heads.collector(OPTIONS, {}).video([clip], folder / "state") as make:
                film, truth = make(clip, folder)
            shown = list(video.read(film))
            images = [warp(f.image, quad_of(m, SIZE), SIZE)[0] for f, m in zip(shown, matrices, strict=True)]
            with np.load(truth) as known:
                points = apply(matrices, known["landmarks"])
            writer.add_clip(
                clip.clip,
                25.0,
                clip.identity,
                [encode_jpeg(image) for image in images],
                points,
                matrices,
                np.array([frame.time for frame in shown]),
                np.zeros(FRAMES, bool),
            )
    return dataset, listed


def pair(driving: Clip, target: Clip, frames: int = FRAMES) -> dict[str, Any]:
    """A row of the table of pairs."""
    return {
        "pair": f"{driving.clip}--{target.clip}",
        "protocol": "truth",
        "batch": BATCH,
        "driving_dataset": "heads",
        "driving_clip": driving.clip,
        "driving_identity": driving.identity,
        "driving_shard": "0000-of-0001",
        "frames": frames,
        "target_dataset": "heads",
        "target_clip": target.clip,
        "target_identity": target.identity,
        "target_shard": "0000-of-0001",
        "target_frame": 1,
    }


def write_pairs(benchmark: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """The pairs of a benchmark."""
    write_table(benchmark / "pairs.parquet", "pairs", rows)
    return benchmark / "pairs.parquet"


def render(dataset: Dataset, benchmark: Path, rows: Sequence[Mapping[str, Any]], state: Path) -> AnswerReader:
    """The answers to the pairs of a benchmark."""
    output = benchmark / "answers" / f"{BATCH}.h5"
    answer.run(write_pairs(benchmark, rows), BATCH, [dataset], output, state)
    return AnswerReader(output)
