"""Frames against true answers, with fake networks that read colours."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from remime.metrics import METRICS, image
from remime.metrics.answers import AnswerScorer, TrueFrame
from remime.metrics.networks import Networks
from remime.metrics.registry import TRUTH
from remime.metrics.scorer import ANSWERED, CROSS, score_videos
from tests.evaluation import NETWORKS, SIZE, face, frame

FACE = np.zeros((SIZE, SIZE), bool)
FACE[16:48, 20:44] = True


ANGLES = [(0.1 * t, -0.05 * t) for t in range(6)]
IMAGES = [frame(yaw, pitch, 120) for yaw, pitch in ANGLES]


def answers():
    found = []
    for shown in IMAGES:
        tensor = torch.from_numpy(shown).permute(2, 0, 1)[None].float() / 127.5 - 1
        blendshapes = NETWORKS.mesh(tensor)[0, 1:].numpy()
        found.append(
            TrueFrame(shown, FACE, NETWORKS.landmarks(shown), NETWORKS.pose(tensor)[0].numpy(), blendshapes)
        )
    return found


def score(generated, metrics=ANSWERED):
    return score_videos(
        IMAGES, generated, IMAGES[0], networks=NETWORKS, metrics=metrics, answers=iter(answers()), batch=4
    )


def clip(scores):
    return {row["metric"]: row["value"] for row in scores.rows if row["frame"] is None}


def test_the_answer_itself_has_no_error():
    values = clip(score(IMAGES))
    for name in ("truth_lpips", "truth_l1", "truth_nme", "truth_nme_shape", "truth_blendshape_mae"):
        assert values[name] == pytest.approx(0, abs=1e-6), name
    assert values["truth_pose_mae"] == pytest.approx(0, abs=1e-4)
    assert values["truth_ssim"] == pytest.approx(1)
    assert values["truth_psnr"] is None  # infinite
    assert values["truth_blendshape_corr"] == pytest.approx(1)


def test_every_metric_has_its_rows_and_networks():
    scores = score(IMAGES)
    for name in TRUTH:
        rows = [row for row in scores.rows if row["metric"] == name]
        assert len(rows) == (7 if METRICS[name].per == "frame" else 1)
        roles = METRICS[name].networks
        assert {row["networks"] for row in rows} == {", ".join(NETWORKS.names[role] for role in roles)}
    assert not {row["metric"] for row in score(IMAGES, CROSS).rows} & set(TRUTH)


def test_only_the_face_counts_in_pictures():
    beside = [np.where(FACE[..., None], shown, 255 - shown) for shown in IMAGES]
    values = clip(score(beside))
    assert values["truth_l1"] == values["truth_lpips"] == 0
    assert values["truth_ssim"] > 0.5
    within = [np.where(FACE[..., None], 255 - shown, shown) for shown in IMAGES]
    expected = np.mean([np.abs(255 - 2.0 * shown[FACE]).mean() for shown in IMAGES])
    assert clip(score(within))["truth_l1"] == pytest.approx(expected)


def test_sizes_may_differ():
    """Landmarks are compared in the answer's pixels, pictures at its size."""
    large = [image.resize(shown, 2 * SIZE) for shown in IMAGES]
    values = clip(score(large))
    # The fake network scales its points with the picture, pixel centres not minded: half a pixel's quarter.
    assert values["truth_nme"] < 3
    assert values["truth_l1"] < 0.5
    assert values["truth_blendshape_mae"] < 0.01


def test_missing_frames_have_no_value():
    generated = [None if t in (1, 4) else shown for t, shown in enumerate(IMAGES)]
    scores = score(generated)
    for name in ("truth_lpips", "truth_ssim", "truth_nme", "truth_pose_mae", "truth_blendshape_mae"):
        rows = {row["frame"]: row for row in scores.rows if row["metric"] == name}
        assert [t for t in range(6) if rows[t]["value"] is None] == [1, 4], name
        assert rows[None]["n"] == 4
    counts = {row["metric"]: row["n"] for row in scores.rows if row["frame"] is None}
    assert counts["truth_blendshape_corr"] == 4


def test_errors_of_a_known_size():
    redder = [frame(yaw + 0.1, pitch, 120) for yaw, pitch in ANGLES]
    values = clip(score(redder))
    # 10 grey levels; the fake pose network gives 40° for 127.5, half of it is pitch's 0.
    assert values["truth_pose_mae"] == pytest.approx(40 * 10 / 127.5 / 2, rel=0.01)
    assert values["truth_pose_to_answer"] == pytest.approx(values["truth_pose_mae"], rel=0.01)
    assert values["truth_l1"] == pytest.approx(10 / 3, rel=0.01)
    assert values["truth_blendshape_mae"] == pytest.approx(10 / 255 / 51, rel=0.01)
    eyes = np.linalg.norm(face()[36] - face()[45])
    assert 0 < values["truth_nme"] < 100 * 6 * 10 / 255 / eyes


def test_without_networks_there_is_what_needs_none():
    scorer = AnswerScorer(Networks(), ["truth_ssim", "truth_lpips", "csim"])
    scorer.add(IMAGES, answers())
    frames, clips = scorer.result(np.zeros((6, 3)), np.full((6, 68, 2), np.nan))
    assert set(frames) == {"truth_ssim", "truth_lpips"}
    assert np.isnan(frames["truth_lpips"]).all()
    np.testing.assert_allclose(frames["truth_ssim"], 1)
    assert clips == {}


def test_a_bias_of_the_pose_network_cancels_against_the_answer():
    biased = replace(NETWORKS, pose=lambda images: NETWORKS.pose(images) + torch.tensor([6.0, -8.0, 0.0]))
    scores = score_videos(
        IMAGES, IMAGES, IMAGES[0], networks=biased, metrics=ANSWERED, answers=iter(answers()), batch=4
    )
    assert clip(scores)["truth_pose_mae"] == pytest.approx(7, abs=1e-3)
    assert clip(scores)["truth_pose_to_answer"] == pytest.approx(0, abs=1e-5)
