"""The true answer of rendered heads against what collecting and aligning make of the same clip."""

import numpy as np
import pytest

from remime.archive import AlignedReader
from remime.metrics.image import l1
from remime.sources import heads, write_clips
from remime.stages import Dataset, align, collect
from tests import answered

OPTIONS = {"identities": 2, "clips": 1, "frames": 4, "fps": 25, "size": 256, "seed": 3}


@pytest.mark.weights
@pytest.mark.slow
def test_ones_own_answer_is_the_aligned_driving_clip(tmp_path, weights):
    """Equal up to the video's compression; its true landmarks lie where dlib sees them."""
    for name in ("head-anatomy", "head-parts", "dlib-landmarks-68"):
        weights(name)
    dataset, clips = Dataset(tmp_path / "heads", 1), heads.clips("heads", OPTIONS, None)
    shard = dataset.shard_names[0]
    write_clips(dataset.clips(shard), clips)
    tar, status = dataset.tar(shard), dataset.tar(shard).with_suffix(".status.tsv")
    collect.run("heads", dataset.clips(shard), tar, status, tmp_path / "state", OPTIONS)
    align.run(
        dataset.clips(shard), dataset.aligned(shard), dataset.status(shard), tmp_path / "state",
        {"size": 256, "min_frames": 2}, tar, status,
    )  # fmt: skip
    rows = [answered.pair(clips[0], who, frames=4) for who in clips]
    answers = answered.render(dataset, tmp_path / "benchmark", rows, tmp_path / "state")
    reader = AlignedReader(dataset.aligned(shard))
    own, other = (answers.by_id[row["pair"]].rows for row in rows)
    for row, i, j in zip(reader.by_id[clips[0].clip].rows, own, other, strict=True):
        seen, known = reader.frame(row), answers.frame(i)
        assert l1(seen, known) < 5
        # A shift by a single pixel, or another person, is further away.
        assert l1(seen, np.roll(known, 1, axis=0)) > l1(seen, known)
        assert l1(seen, answers.frame(j)) > 2 * l1(seen, known)
        eyes = np.linalg.norm(answers.landmarks[i][36] - answers.landmarks[i][45])
        error = np.linalg.norm(answers.landmarks[i][36:48] - reader.landmarks[row][36:48], axis=1).mean()
        assert error < 0.12 * eyes
