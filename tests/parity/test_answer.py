"""True answers of rendered heads through the real stages and networks, from collecting to scores."""

import numpy as np
import pytest

from remime.archive import AlignedReader
from remime.layout import REFERENCES
from remime.metrics.image import l1
from remime.sources import heads, write_clips
from remime.stages import Dataset, align, collect, score
from remime.tables import read_table
from tests import answered

FRAMES = 4
OPTIONS = {"identities": 2, "clips": 1, "frames": FRAMES, "fps": 25, "size": 256, "seed": 3}
NETWORKS = ("dlib-landmarks-68", "hopenet-lite", "sface", "lpips-alex", "face-mesh", "blendshapes")

pytestmark = [pytest.mark.weights, pytest.mark.slow]


@pytest.fixture(scope="module")
def world(tmp_path_factory, weights):
    """Two aligned clips, and the answers of the first one's motion by both people."""
    for name in ("head-anatomy", "head-parts", *NETWORKS):
        weights(name)
    folder = tmp_path_factory.mktemp("results")
    dataset, clips = Dataset(folder / "heads", 1), heads.clips("heads", OPTIONS, None)
    shard = dataset.shard_names[0]
    write_clips(dataset.clips(shard), clips)
    tar, status = dataset.tar(shard), dataset.tar(shard).with_suffix(".status.tsv")
    collect.run("heads", dataset.clips(shard), tar, status, folder / "state", OPTIONS)
    align.run(
        dataset.clips(shard), dataset.aligned(shard), dataset.status(shard), folder / "state",
        {"size": 256, "min_frames": 2}, tar, status,
    )  # fmt: skip
    rows = [answered.pair(clips[0], who, frames=FRAMES) for who in clips]
    answers = answered.render(dataset, folder / "benchmark", rows, folder / "state")
    return folder, dataset, clips, rows, answers


def test_ones_own_answer_is_the_aligned_driving_clip(world):
    """Equal up to the video's compression; its true landmarks lie where dlib sees them."""
    _, dataset, clips, rows, answers = world
    reader = AlignedReader(dataset.aligned(dataset.shard_names[0]))
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


def test_references_score_as_they_should(world):
    """Of another person's answer: nothing is nearer than itself, and each copy lacks what it lacks."""
    folder, dataset, _, rows, answers = world
    values = {}
    for model in REFERENCES:
        output = folder / model / "scores.parquet"
        score.run(
            folder / "benchmark" / "pairs.parquet", answered.BATCH, [dataset], None, output,
            output.with_name("features.npz"), {"model": model}, answers=answers.path,
        )  # fmt: skip
        table = read_table(output, "scores").to_pylist()
        values[model] = {
            row["metric"]: row["value"]
            for row in table
            if row["frame"] is None and row["pair"] == rows[1]["pair"]
        }
    answer, cropped, driving, target = (values[model] for model in REFERENCES)
    assert answer["truth_lpips"] < 1e-4
    assert answer["truth_nme"] < 8
    assert answer["truth_pose_mae"] < 8
    for copy in (cropped, driving, target):
        for name in ("truth_lpips", "truth_l1", "truth_nme"):
            assert copy[name] > answer[name] + 0.05, name
    # Another crop moves the face and leaves its shape.
    assert cropped["truth_nme_shape"] == pytest.approx(answer["truth_nme_shape"], abs=1)
    assert cropped["truth_blendshape_mae"] == pytest.approx(answer["truth_blendshape_mae"], abs=0.03)
    assert driving["pose_mae"] == 0
    assert driving["csim"] < 0.8 * target["csim"]
    # A still picture follows nothing, although networks round differently from batch to batch.
    assert target["truth_blendshape_corr"] == 0
    assert target["fl_corr"] is None
