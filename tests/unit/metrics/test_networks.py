"""The real networks behind the metrics."""

import numpy as np
import pytest

from remime.images import to_tensor
from remime.metrics.networks import load_networks
from remime.metrics.scorer import ANSWERED, SELF, score_videos
from tests import clips
from tests.unit.metrics.test_scorer import clip_values, counts


@pytest.mark.weights
def test_real_networks_know_a_face_from_none(weights):
    """The whole chain on a real portrait, aligned by hand to the FFHQ template."""
    for name in ("hopenet-lite", "sface", "lpips-alex", "dlib-landmarks-68"):
        weights(name)
    networks = load_networks(SELF)
    turned = [clips.view(1.45, angle) for angle in (-8, -4, 0, 4, 8)]
    generated = [*turned[:4], np.zeros_like(turned[0])]
    scores = score_videos(turned, generated, turned[2], networks=networks, metrics=SELF)
    values = clip_values(scores)
    assert values["coverage"] == pytest.approx(0.8)
    assert values["fl_corr"] == pytest.approx(1)
    assert counts(scores)["fl_corr"] == 4
    frames = {
        name: [row["value"] for row in scores.rows if row["metric"] == name and row["frame"] is not None]
        for name in ("csim", "pose_mae", "lpips")
    }
    assert frames["csim"][2] == pytest.approx(1, abs=1e-5)
    assert min(frames["csim"][:4]) > 0.5 > frames["csim"][4]
    assert max(frames["pose_mae"][:4]) < 1e-3 < 2 < frames["pose_mae"][4]
    assert max(frames["lpips"][:4]) < 1e-5 < 0.3 < frames["lpips"][4]
    roll = scores.driving.pose[:, 2]
    assert np.all(np.diff(roll) > 0) or np.all(np.diff(roll) < 0)


def test_only_what_is_needed_is_loaded():
    networks = load_networks(["truth_ssim", "truth_l1"])
    assert networks.names == {}
    assert networks.lpips is networks.mesh is None


@pytest.mark.weights
def test_the_mesh_is_loaded_for_true_blendshapes(weights):
    for name in ("face-mesh", "blendshapes"):
        weights(name)
    assert "truth_blendshape_mae" in ANSWERED
    networks = load_networks(["truth_blendshape_mae"])
    assert networks.names == {"mesh": "face-mesh"}
    found = networks.mesh(to_tensor([clips.view(1.45)], "cpu"))
    assert found.shape == (1, 52)
    assert 0 <= float(found.min()) < float(found.max()) <= 1
