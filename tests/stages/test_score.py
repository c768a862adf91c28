"""The score stage on videos made by fake methods of known quality."""

import os
from dataclasses import replace

import numpy as np
import pytest

from remime.archive import parts_directory
from remime.errors import InputError
from remime.layout import REFERENCES
from remime.metrics import IMAGE
from remime.metrics.scorer import ANSWERED, CROSS
from remime.stages import plan
from remime.stages import score as stage
from remime.tables import read_meta, read_table, write_table
from tests.evaluation import NETWORKS, Fake, make_dataset, read_pairs, write_answers, write_videos

BATCH = "0000-of-0001"


@pytest.fixture
def world(tmp_path):
    """A dataset, a cross benchmark over it, and the videos of two methods."""
    dataset = make_dataset(tmp_path / "results" / "faces")
    benchmark = tmp_path / "results" / "benchmarks" / "cross"
    plan.run([dataset], benchmark / "pairs.parquet", {"pairs": 4, "targets": 2, "random_identities": 1})
    write_videos(benchmark, "good")
    write_videos(benchmark, "bad", Fake(offset=0.2, identity=60))
    return dataset, benchmark


def run(world, model="good", networks=NETWORKS, **options):
    dataset, benchmark = world
    output = benchmark / model / "scores" / f"{BATCH}.parquet"
    stage.run(
        benchmark / "pairs.parquet", BATCH, [dataset], benchmark / model / "videos" / BATCH, output,
        benchmark / model / "features" / f"{BATCH}.npz", {"model": model, **options}, networks,
    )  # fmt: skip
    return read_table(output, "scores").to_pylist()


def mean(rows, metric):
    return np.mean([row["value"] for row in rows if row["metric"] == metric and row["frame"] is None])


def test_scores_tell_good_from_bad(world):
    good, bad = run(world), run(world, "bad")
    assert mean(good, "pose_mae") < 1.0 < mean(bad, "pose_mae")
    assert mean(good, "csim") > mean(bad, "csim") + 0.1
    assert mean(good, "yaw_corr") > 0.95


def test_rows_say_where_they_come_from(world):
    rows = run(world)
    pairs = {pair["pair"] for pair in read_pairs(world[1])}
    assert {row["pair"] for row in rows} == pairs
    assert {row["model"] for row in rows} == {"good"}
    assert {row["benchmark"] for row in rows} == {"cross"}
    csim = next(row for row in rows if row["metric"] == "csim")
    assert (csim["networks"], csim["version"]) == ("i-net", 1)


def test_cross_has_no_image_metrics_and_self_has(tmp_path, world):
    assert not {row["metric"] for row in run(world)} & set(IMAGE)
    benchmark = tmp_path / "results" / "benchmarks" / "self"
    plan.run([world[0]], benchmark / "pairs.parquet", {"protocol": "self", "pairs": 2})
    write_videos(benchmark, "good")
    rows = run((world[0], benchmark))
    assert set(IMAGE) <= {row["metric"] for row in rows}
    assert mean(rows, "l1") < 4
    assert mean(rows, "ssim") > 0.95


def test_named_metrics_only_and_always_coverage(world):
    rows = run(world, metrics=["csim", "ssim"])
    assert {row["metric"] for row in rows} == {"csim", "coverage"}


def test_features_hold_what_the_networks_saw(world):
    run(world)
    pair = read_pairs(world[1])[0]
    with np.load(world[1] / "good" / "features" / f"{BATCH}.npz") as features:
        assert features[f"{pair['pair']}/generated_pose"].shape == (pair["frames"], 3)
        assert features[f"{pair['pair']}/driving_landmarks"].shape == (pair["frames"], 68, 2)
        assert features[f"{pair['pair']}/generated_embeddings"].shape == (pair["frames"], 2)


class Interrupt(Exception):
    pass


def dying(after: int):
    """Networks that stop the process after some calls, and a counter of them."""
    calls = []

    def identity(images):
        calls.append(len(images))
        if len(calls) > after:
            raise Interrupt
        return NETWORKS.identity(images)

    return replace(NETWORKS, identity=identity), calls


def test_killed_job_resumes_and_gives_the_same_table(world):
    expected = run(world)
    output = world[1] / "good" / "scores" / f"{BATCH}.parquet"
    output.unlink()
    networks, calls = dying(after=1000)
    run(world, networks=networks)
    whole = len(calls)
    output.unlink()
    networks, _ = dying(after=whole // 2)
    with pytest.raises(Interrupt):
        run(world, networks=networks)
    assert not output.exists()
    assert list(parts_directory(output).glob("*.parquet"))
    networks, calls = dying(after=1000)
    assert run(world, networks=networks) == expected
    assert 0 < len(calls) < whole
    assert not parts_directory(output).exists()


def test_damaged_part_is_made_again(world):
    expected = run(world)
    output = world[1] / "good" / "scores" / f"{BATCH}.parquet"
    networks, _ = dying(after=6)
    with pytest.raises(Interrupt):
        run(world, networks=networks)
    for part in parts_directory(output).iterdir():
        part.write_bytes(part.read_bytes()[:100])
    assert run(world) == expected


def test_missing_video_is_named(world):
    pair = read_pairs(world[1])[0]["pair"]
    (world[1] / "good" / "videos" / BATCH / f"{pair}.mp4").unlink()
    with pytest.raises(InputError, match=r"\.mp4: does not exist"):
        run(world)


def test_damaged_video_is_named(world):
    pair = read_pairs(world[1])[0]["pair"]
    (world[1] / "good" / "videos" / BATCH / f"{pair}.mp4").write_text("not a video")
    with pytest.raises(InputError, match=pair):
        run(world)


def test_unknown_metric_is_named(world):
    with pytest.raises(InputError, match="score: metrics: unknown fid"):
        run(world, metrics=["fid"])


def test_pairs_that_do_not_fit_the_data_are_refused(tmp_path, world):
    other = make_dataset(tmp_path / "other" / "faces", {"cid": ("cid", 3)})
    with pytest.raises(InputError, match="run plan again"):
        run((other, world[1]))


def test_batch_without_pairs_is_empty_but_whole(world):
    dataset, benchmark = world
    output = benchmark / "good" / "scores" / "x.parquet"
    count = stage.run(
        benchmark / "pairs.parquet", "0001-of-0002", [dataset], benchmark, output,
        benchmark / "x.npz", {"model": "good"}, NETWORKS,
    )  # fmt: skip
    assert count == 0
    assert read_table(output, "scores").num_rows == 0
    assert read_meta(output)["stage"] == "score"


def test_main_parses_the_workflows_command_line(world, monkeypatch):
    asked = []

    def load(metrics, **names):
        asked.append((tuple(metrics), names))
        return NETWORKS

    monkeypatch.setattr(stage, "load_networks", load)
    monkeypatch.setattr(stage, "compute_device", lambda: "cpu")
    dataset, benchmark = world
    output = benchmark / "good" / "scores" / f"{BATCH}.parquet"
    stage.main(
        ["--pairs", f"{benchmark}/pairs.parquet", "--batch", BATCH, "--datasets", f"{dataset.folder}=1",
         "--videos", f"{benchmark}/good/videos/{BATCH}", "--output", str(output),
         "--features", f"{benchmark}/good/features/{BATCH}.npz",
         "--options", '{"model": "good", "identity": "edgeface-s"}']
    )  # fmt: skip
    assert read_table(output, "scores").num_rows > 0
    chosen = {"pose": "hopenet-lite", "identity": "edgeface-s", "lpips": "alex", "device": "cpu"}
    assert asked == [(CROSS, chosen)]


@pytest.fixture
def truth(tmp_path):
    """The same with true answers."""
    dataset = make_dataset(tmp_path / "results" / "faces")
    benchmark = tmp_path / "results" / "benchmarks" / "truth"
    plan.run([dataset], benchmark / "pairs.parquet", {"protocol": "truth", "pairs": 4, "targets": 2})
    write_videos(benchmark, "good")
    write_videos(benchmark, "bad", Fake(offset=0.2, identity=60))
    return dataset, benchmark, write_answers(benchmark)


def run_truth(truth, model, answers=True, networks=NETWORKS, **options):
    dataset, benchmark, path = truth
    videos = None if model in REFERENCES else benchmark / model / "videos" / BATCH
    output = benchmark / model / "scores" / f"{BATCH}.parquet"
    stage.run(
        benchmark / "pairs.parquet", BATCH, [dataset], videos, output,
        benchmark / model / "features" / f"{BATCH}.npz", {"model": model, **options}, networks,
        path if answers else None,
    )  # fmt: skip
    return read_table(output, "scores").to_pylist()


def test_models_are_held_against_true_answers(truth):
    good, bad = run_truth(truth, "good"), run_truth(truth, "bad")
    assert {row["metric"] for row in good} == set(ANSWERED)
    for name in ("truth_l1", "truth_pose_mae", "truth_blendshape_mae", "truth_nme", "truth_lpips"):
        assert mean(good, name) < 0.5 * mean(bad, name), name
    assert mean(good, "truth_ssim") > mean(bad, "truth_ssim")
    assert mean(bad, "truth_pose_mae") == pytest.approx(mean(bad, "pose_mae"), rel=0.2)


def test_references_need_no_videos(truth):
    perfect = run_truth(truth, "reference-answer")
    assert mean(perfect, "truth_l1") == mean(perfect, "truth_lpips") == 0
    assert mean(perfect, "truth_pose_mae") == pytest.approx(0, abs=0.2)  # JPEG
    copied = run_truth(truth, "reference-driving")
    assert mean(copied, "pose_mae") == 0
    assert mean(copied, "fl_corr") == pytest.approx(1)
    assert mean(copied, "truth_l1") > 10  # somebody else
    cropped = run_truth(truth, "reference-crop")
    assert mean(cropped, "truth_l1") < 1  # of one colour
    still = run_truth(truth, "reference-target")
    assert mean(still, "truth_blendshape_corr") == 0
    assert mean(still, "csim") == pytest.approx(1)
    assert not {row["metric"] for row in still} & {"csim_inversion", "inversion_csim"}


def test_missing_answers_and_videos_are_named(truth):
    for model in ("good", "reference-answer", "reference-crop", "reference-target"):
        with pytest.raises(InputError, match="--answers"):
            run_truth(truth, model, answers=False)
    dataset, benchmark, path = truth
    with pytest.raises(InputError, match="--videos"):
        stage.run(
            benchmark / "pairs.parquet", BATCH, [dataset], None, benchmark / "s.parquet",
            benchmark / "f.npz", {"model": "good"}, NETWORKS, path,
        )  # fmt: skip
    rows = read_pairs(benchmark)
    write_table(benchmark / "pairs.parquet", "pairs", [{**row, "frames": row["frames"] - 1} for row in rows])
    with pytest.raises(InputError, match=r"has no answer to .*\n.*run answer again"):
        run_truth(truth, "good")


def test_other_answers_are_scored_anew(truth):
    """Finished pairs of a killed job count only with the answers that they were held against."""
    expected = run_truth(truth, "good")
    output = truth[1] / "good" / "scores" / f"{BATCH}.parquet"
    networks, calls = dying(after=3)
    with pytest.raises(Interrupt):
        run_truth(truth, "good", networks=networks)
    assert list(parts_directory(output).glob("*.parquet"))
    os.utime(truth[2], (1, 1))
    networks, calls = dying(after=1000)
    assert run_truth(truth, "good", networks=networks) == expected
    whole = len(calls)
    networks, calls = dying(after=1000)
    run_truth(truth, "good", networks=networks)
    assert len(calls) == whole
