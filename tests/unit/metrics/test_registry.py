"""The registry is complete and consistent."""

from remime.metrics import IMAGE, METRICS, SIGNALS, TABLE1
from remime.metrics.registry import Metric

# Changing a definition means raising its version here and there: results of two definitions never mix.
VERSIONS = {
    "pose_mae": 1, "yaw_corr": 1, "pitch_corr": 1, "fl_corr": 1, "fl_left_eye": 1, "fl_right_eye": 1,
    "fl_mouth": 1, "fl_left_brow": 1, "fl_right_brow": 1, "fl_interpolated": 1, "fl_constant": 1, "csim": 1,
    "csim_inversion": 1, "inversion_csim": 1, "l1": 1, "mse": 1, "psnr": 1, "ssim": 1, "lpips": 1,
    "jitter": 1, "coverage": 1, "truth_lpips": 1, "truth_ssim": 1, "truth_psnr": 1, "truth_l1": 1,
    "truth_nme": 1, "truth_nme_shape": 1, "truth_pose_mae": 1, "truth_pose_to_answer": 1,
    "truth_blendshape_mae": 1, "truth_blendshape_corr": 1,
}  # fmt: skip


def test_versions_are_the_known_ones():
    assert {name: metric.version for name, metric in METRICS.items()} == VERSIONS


def test_groups_name_registered_metrics():
    assert set(TABLE1) | set(IMAGE) | set(SIGNALS) <= set(METRICS)


def test_every_metric_is_described():
    for metric in METRICS.values():
        assert isinstance(metric, Metric)
        assert metric.description.endswith(".")
        assert metric.title
        assert metric.arrow in ("↑", "↓", "")


def test_table1_points_the_way_the_paper_prints():
    assert [METRICS[name].arrow for name in TABLE1] == ["↓", "↑", "↑"]
