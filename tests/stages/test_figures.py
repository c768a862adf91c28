"""Plots are well-formed SVG with captions, whatever is missing or strangely named."""

import json
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from remime.errors import InputError
from remime.layout import REFERENCES
from remime.stages import figures, plan, score, summarize
from remime.tables import write_table
from tests.evaluation import NETWORKS, Fake, make_dataset, read_pairs, write_answers, write_videos

BATCH = "0000-of-0001"
MODELS = {"linear": {"method": "linear", "inverter": "psp"}, "map$ping_<x>": {"method": "mapping"}}
PROTOCOLS = {"cross": {"protocol": "cross", "batches": 1}}
OPTIONS = {"models": MODELS, "protocols": PROTOCOLS}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Scores and a summary of two fake methods."""
    root = tmp_path_factory.mktemp("world")
    dataset = make_dataset(root / "results" / "faces")
    benchmark = root / "results" / "benchmarks" / "cross"
    plan.run([dataset], benchmark / "pairs.parquet", {"pairs": 3, "targets": 1})
    for model, fake in zip(MODELS, (Fake(offset=0.2), Fake()), strict=True):
        write_videos(benchmark, model, fake)
        folder = benchmark / model
        score.run(
            benchmark / "pairs.parquet", BATCH, [dataset], folder / "videos" / BATCH,
            folder / "scores" / f"{BATCH}.parquet", folder / "features" / f"{BATCH}.npz",
            {"model": model}, NETWORKS,
        )  # fmt: skip
    out = root / "report"
    summarize.run([benchmark], out / "m.parquet", out / "m.csv", out / "t.md", OPTIONS)
    return benchmark, out / "m.parquet"


HISTORY = [
    {"step": s, "split": split, "name": name, "value": value, "seconds": 0.1 * s}
    for s in range(100)
    for split, name, value in (("train", "loss_id", 1 / (s + 1)), ("val", "fl_corr", s / 100))
]


def draw(world, root, **inputs):
    benchmark, metrics = world
    given = {"histories": [], "speeds": None, **inputs}
    return figures.run(metrics, [benchmark], given["histories"], given["speeds"], root / "figures", OPTIONS)


@pytest.fixture(scope="module")
def drawn(world, tmp_path_factory):
    """All plots that there are, and their captions."""
    root = tmp_path_factory.mktemp("drawn")
    history = root / "models" / "mapping" / "history.parquet"
    write_table(history, "history", [*HISTORY, {"step": 100, "split": "train", "name": "loss_id"}])
    for name, seconds in (("align/0.tsv", "3.5"), ("align/a/1.tsv", "4.0"), ("plan.tsv", "-")):
        path = root / "speed" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"s\th:m:s\tmax_rss\n{seconds}\t0:00:04\t120.5\n")
    (root / "figures").mkdir()
    (root / "figures" / "old.svg").write_text("x")
    captions = draw(world, root, histories=[history], speeds=root / "speed")
    return captions, root / "figures"


def texts(path) -> str:
    tree = ElementTree.parse(path)
    return " ".join("".join(node.itertext()) for node in tree.iter("{http://www.w3.org/2000/svg}text"))


def test_files_and_captions_belong_together_and_old_ones_are_gone(drawn):
    captions, output = drawn
    assert json.loads((output / "figures.json").read_text()) == captions
    assert {path.name for path in output.iterdir()} == {*captions, "figures.json"}
    for name in captions:
        assert texts(output / name)


def test_every_metric_has_a_plot_with_models_and_caption(drawn):
    captions, output = drawn
    assert {"cross_pose_mae.svg", "cross_csim.svg", "cross_fl_corr.svg", "cross_motion.svg"} <= set(captions)
    shown = texts(output / "cross_pose_mae.svg")
    assert "linear" in shown
    assert "map$ping_<x>" in shown
    assert "95% intervals over 3 driving clips" in captions["cross_pose_mae.svg"]
    assert "inversion" in texts(output / "cross_csim.svg")


def test_svg_has_no_background_and_no_black_text(drawn):
    text = (drawn[1] / "cross_pose_mae.svg").read_text()
    assert "#ffffff" not in text
    lines = [line for line in text.splitlines() if "<text " in line and "style=" in line]
    assert lines
    assert all("fill: #7b7b7b" in line for line in lines)


def test_training_curves(drawn):
    captions, output = drawn
    assert "up to step 99" in captions["training_mapping.svg"]
    assert "loss_id" in texts(output / "training_mapping.svg")


def test_speed_is_summed_over_the_jobs_of_a_rule(drawn):
    captions, output = drawn
    assert figures.read_speeds(output.parent / "speed")["align"] == (7.5, 120.5, 2)
    assert "speed.svg" in captions
    assert "7.5 s, 2 jobs, 120 MB" in texts(output / "speed.svg")


def test_same_data_same_bytes_whatever_else_is_missing(world, drawn, tmp_path):
    empty = tmp_path / "models" / "x" / "history.parquet"
    write_table(empty, "history", [])
    captions = draw(world, tmp_path, histories=[empty], speeds=tmp_path / "nowhere")
    assert not {name for name in captions if name.startswith(("training", "speed"))}
    for name in captions:
        assert (tmp_path / "figures" / name).read_bytes() == (drawn[1] / name).read_bytes()


def test_failure_leaves_the_old_figures_and_nothing_else(world, tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "old.svg").write_text("x")
    with pytest.raises(InputError):
        draw(world, tmp_path, histories=[tmp_path / "missing" / "history.parquet"])
    assert [path.name for path in tmp_path.iterdir()] == ["figures"]
    assert (tmp_path / "figures" / "old.svg").exists()


def test_motion_plot_is_of_the_longest_pair(world):
    benchmark = figures.benchmarks([world[0]], PROTOCOLS)[0]
    plot = figures.motion_plot(benchmark, MODELS)
    longest = max(read_pairs(world[0]), key=lambda pair: pair["frames"])
    assert longest["driving_clip"] in plot.caption
    lines = plot.figure.axes[0].lines
    assert len(lines) == 1 + len(MODELS)
    assert np.ptp(lines[0].get_ydata()) > 10  # degrees


def test_protocols_are_needed(world, tmp_path):
    with pytest.raises(InputError, match="figures: protocols"):
        figures.run(world[1], [world[0]], [], None, tmp_path / "f", {})


def test_main_parses_the_workflows_command_line(world, tmp_path):
    benchmark, metrics = world
    figures.main(
        ["--metrics", str(metrics), "--benchmarks", str(benchmark), "--histories", "--speeds",
         f"{tmp_path}/none", "--output", f"{tmp_path}/out", "--options", json.dumps(OPTIONS)]
    )  # fmt: skip
    assert (tmp_path / "out" / "cross_csim.svg").exists()


def test_references_stand_in_the_plots_of_metrics_only(world, tmp_path):
    dataset = make_dataset(tmp_path / "results" / "faces")
    benchmark = tmp_path / "results" / "benchmarks" / "truth"
    plan.run([dataset], benchmark / "pairs.parquet", {"protocol": "truth", "pairs": 2, "targets": 1})
    write_videos(benchmark, "linear")
    answers = write_answers(benchmark)
    models = {"linear": MODELS["linear"]} | {name: {"reference": True} for name in REFERENCES}
    for model in models:
        folder = benchmark / model
        videos = folder / "videos" / BATCH if model == "linear" else None
        score.run(
            benchmark / "pairs.parquet", BATCH, [dataset], videos,
            folder / "scores" / f"{BATCH}.parquet", folder / "features" / f"{BATCH}.npz",
            {"model": model}, NETWORKS, answers,
        )  # fmt: skip
    options = {"models": models, "protocols": {"truth": {"protocol": "truth", "batches": 1}}}
    out = tmp_path / "report"
    summarize.run([benchmark], out / "m.parquet", out / "m.csv", out / "t.md", options)
    captions = figures.run(out / "m.parquet", [benchmark], [], None, out / "figures", options)
    assert {"truth_truth_nme.svg", "truth_truth_pose_mae.svg", "truth_motion.svg"} <= set(captions)
    compared, moving = ((out / "figures" / f"truth_{n}.svg").read_text() for n in ("truth_nme", "motion"))
    assert "the answer itself" in compared
    assert "the answer itself" not in moving
    assert "linear" in moving
