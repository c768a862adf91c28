"""Scoring with fake networks that read colours, so that every value is known."""

import numpy as np
import pytest

from remime.errors import InputError
from remime.metrics import METRICS
from remime.metrics.registry import TRUTH
from remime.metrics.scorer import CROSS, SELF, lost_rows, score_videos
from tests.evaluation import NAMES, NETWORKS, Fake, face, frame, generate, motion

PAIR = {"driving_clip": "a", "driving_identity": "ann", "target_identity": "bob", "frames": 30}
DRIVING = [frame(y, p, 60) for y, p in motion("a", 30)]
TARGET, INVERSION = frame(0, 0, 120), frame(0, 0, 130)


def clip_values(scores) -> dict:
    return {row["metric"]: row["value"] for row in scores.rows if row["frame"] is None}


def counts(scores) -> dict:
    return {row["metric"]: row["n"] for row in scores.rows if row["frame"] is None}


def score(generated, metrics=CROSS, **changes):
    arguments = {"inversion": INVERSION, "networks": NETWORKS, "metrics": metrics, **changes}
    return score_videos(DRIVING, generated, TARGET, **arguments)


def test_perfect_transfer_has_perfect_scores():
    values = clip_values(score(generate(PAIR, Fake())))
    assert values["pose_mae"] == pytest.approx(0, abs=1e-5)
    for name in ("yaw_corr", "pitch_corr", "fl_corr", "csim", "coverage"):
        assert values[name] == pytest.approx(1, abs=1e-6)
    assert values["jitter"] == pytest.approx(1, abs=0.05)
    assert values["csim_inversion"] == pytest.approx(values["inversion_csim"])
    assert values["inversion_csim"] < 0.999


def test_known_error_of_the_pose():
    values = clip_values(score(generate(PAIR, Fake(offset=0.1))))
    # 0.1 is 10 grey levels of 127.5; the fake network gives 40° for the full scale; half of it is pitch's 0.
    assert values["pose_mae"] == pytest.approx(40 * 10 / 127.5 / 2, rel=0.1)
    assert values["yaw_corr"] > 0.999


def test_lost_identity_lowers_csim_only():
    good, bad = (clip_values(score(generate(PAIR, Fake(identity=shift)))) for shift in (0, 100))
    assert bad["csim"] < 0.7 < good["csim"]
    assert bad["pose_mae"] == pytest.approx(good["pose_mae"])


def test_every_metric_appears_once_per_clip_and_frame_metrics_once_per_frame():
    scores = score(generate(PAIR, Fake()), SELF)
    for name, metric in METRICS.items():
        if name in TRUTH:
            continue  # these need true answers
        rows = [row for row in scores.rows if row["metric"] == name]
        assert sum(row["frame"] is None for row in rows) == 1
        assert len(rows) == (31 if metric.per == "frame" else 1)
        assert {row["version"] for row in rows} == {metric.version}
        assert {row["networks"] for row in rows} == {
            ", ".join({"pose": "p-net", "landmarks": "l-net", "identity": "i-net", "lpips": "d-net"}[r]
                      for r in metric.networks)
        }  # fmt: skip


def test_clip_value_is_the_mean_of_the_frames():
    scores = score(generate(PAIR, Fake(offset=0.05)))
    frames = [row["value"] for row in scores.rows if row["metric"] == "pose_mae" and row["frame"] is not None]
    assert clip_values(scores)["pose_mae"] == pytest.approx(np.mean(frames))


def test_undetected_faces_lower_the_coverage_and_are_never_guessed():
    generated = generate(PAIR, Fake())
    for i in range(10, 20):
        generated[i] = np.zeros_like(generated[i])
    scores = score(generated)
    assert clip_values(scores)["coverage"] == pytest.approx(20 / 30)
    assert counts(scores)["fl_corr"] == 20
    assert clip_values(scores)["fl_interpolated"] == 0
    assert counts(scores)["coverage"] == 30


def test_short_video_counts_as_missing_frames():
    scores = score(generate(PAIR, Fake())[:24])
    assert scores.missing == 6
    assert counts(scores)["pose_mae"] == counts(scores)["csim"] == 24
    assert clip_values(scores)["coverage"] == pytest.approx(24 / 30)


def test_missing_frame_in_the_middle_keeps_the_others_in_step():
    generated = generate(PAIR, Fake())
    generated[5] = None
    scores = score(generated)
    assert scores.missing == 1
    assert clip_values(scores)["pose_mae"] == pytest.approx(0, abs=1e-5)
    assert clip_values(scores)["fl_interpolated"] == 1


def test_longer_video_is_cut():
    assert clip_values(score(generate({**PAIR, "frames": 40}, Fake()))) == clip_values(
        score(generate(PAIR, Fake()))
    )


def test_nothing_to_score_is_an_error():
    with pytest.raises(InputError, match="no frame to score"):
        score([])


def test_unknown_metric_is_named():
    with pytest.raises(InputError, match="unknown: fid"):
        score(generate(PAIR, Fake()), ["fid"])


def test_image_metrics_compare_with_the_driving_frame_at_its_size():
    same = {**PAIR, "target_identity": "ann"}
    values = clip_values(score(generate(same, Fake(size=128)), SELF))
    assert values["l1"] == pytest.approx(0)
    assert values["ssim"] == pytest.approx(1)
    assert values["lpips"] == pytest.approx(0, abs=1e-9)
    assert values["psnr"] is None  # infinite: no finite value can stand for it
    worse = clip_values(score(generate(PAIR, Fake()), SELF))
    assert worse["l1"] == pytest.approx(20)  # blue differs by 60 of 255 in one of three channels


def test_measures_of_an_earlier_call_give_the_same_scores():
    first = score(generate(PAIR, Fake(offset=0.1)))
    again = score_videos(
        iter([None] * 30), generate(PAIR, Fake(offset=0.1)), TARGET, INVERSION,
        networks=NETWORKS, driving_measures=first.driving,
    )  # fmt: skip
    assert again.rows == first.rows


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_batch_size_changes_nothing(batch):
    generated = generate(PAIR, Fake(offset=0.1))
    assert clip_values(score(generated, SELF, batch=batch)) == pytest.approx(
        clip_values(score(generated, SELF)), nan_ok=True
    )


def test_without_an_inversion_its_metrics_are_absent():
    values = clip_values(score(generate(PAIR, Fake()), inversion=None))
    assert "csim" in values
    assert {"csim_inversion", "inversion_csim"}.isdisjoint(values)


def test_fake_face_has_usable_ratios():
    from remime.metrics.expression import signals

    assert np.isfinite(signals(face()[None])).all()


def test_a_lost_pair_covers_nothing_and_has_no_values():
    rows = {row["metric"]: row for row in lost_rows(SELF, NAMES, 30)}
    assert set(rows) == set(SELF) - {"csim_inversion", "inversion_csim"}
    assert (rows["coverage"]["value"], rows["coverage"]["n"]) == (0, 30)
    assert all((row["value"], row["n"]) == (None, 0) for name, row in rows.items() if name != "coverage")
    assert rows["csim"]["networks"] == "i-net"
    assert [row["metric"] for row in lost_rows(["csim"], NAMES, 30)] == ["csim"]
