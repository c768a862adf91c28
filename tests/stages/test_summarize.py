"""The summary: values, intervals, the ceiling, and the papers' tables, from score tables written here."""

import csv
import shutil

import numpy as np
import pytest

from remime.errors import InputError, VersionError
from remime.layout import REFERENCES
from remime.reporting.text import published_row
from remime.stages import summarize
from remime.tables import read_table, write_table

MODELS = {
    "linear-psp": {"method": "linear", "variant": "", "preset": "small", "inverter": "psp"},
    "linear-e4e": {"method": "linear", "variant": "", "preset": "small", "inverter": "e4e"},
    "mapping": {"method": "mapping", "variant": "ours", "preset": "small", "inverter": "psp"},
}
LEVEL = {"linear-psp": 8.0, "linear-e4e": 9.0, "mapping": 6.0}
PROTOCOLS = {"cross": {"batches": 2, "protocol": "cross"}, "self": {"batches": 1, "protocol": "self"}}


def pairs(protocol: str, batches: int) -> list[dict]:
    return [
        {
            "pair": f"p{d}{t}", "protocol": protocol, "batch": f"{t % batches:04d}-of-{batches:04d}",
            "driving_dataset": "faces", "driving_clip": f"d{d}", "frames": 10, "target_dataset": "faces",
            "target_clip": f"t{t}", "target_frame": 3,
        }
        for d in range(4)
        for t in range(2)
    ]  # fmt: skip


def score_rows(model: str, benchmark: str, pair: dict) -> list[dict]:
    d, t = int(pair["pair"][1]), int(pair["pair"][2])
    values = {
        "coverage": (0.9, 10, "dlib"),
        "pose_mae": (LEVEL[model] + 0.5 * d + 0.1 * t, 10, "hopenet"),
        "fl_corr": (0.6 if d else None, 8, "dlib"),
        "csim": (0.7 - LEVEL[model] / 100, 10, "sface"),
        "csim_inversion": (0.8, 10, "sface"),
        "inversion_csim": (0.83 if t else 0.79, 1, "sface"),
    }
    if benchmark == "self":
        values["ssim"] = (0.5 + LEVEL[model] / 100, 10, "")
    common = {"model": model, "benchmark": benchmark, "pair": pair["pair"], "version": 1}
    rows = [
        {**common, "metric": name, "value": value, "n": n, "networks": networks}
        for name, (value, n, networks) in values.items()
    ]
    frame = {**common, "metric": "pose_mae", "value": 1e6, "n": 1, "networks": "hopenet", "frame": 0}
    return [*rows, frame]


def write(folder, protocol: str, batches: int) -> None:
    rows = pairs(protocol, batches)
    write_table(folder / "pairs.parquet", "pairs", rows)
    for model in MODELS:
        for batch in (f"{i:04d}-of-{batches:04d}" for i in range(batches)):
            scores = [s for pair in rows if pair["batch"] == batch for s in score_rows(model, protocol, pair)]
            write_table(folder / model / "scores" / f"{batch}.parquet", "scores", scores)


@pytest.fixture
def folders(tmp_path):
    found = [tmp_path / "benchmarks" / name for name in PROTOCOLS]
    for folder in found:
        write(folder, PROTOCOLS[folder.name]["protocol"], PROTOCOLS[folder.name]["batches"])
    return found


def run(tmp_path, folders, **options):
    paths = [tmp_path / "out" / name for name in ("metrics.parquet", "metrics.csv", "tables.md")]
    summarize.run(folders, *paths, {"models": MODELS, "protocols": PROTOCOLS, **options})
    rows = read_table(paths[0], "metrics").to_pylist()
    index = {(row["benchmark"], row["model"], row["metric"]): row for row in rows}
    return index, paths[1].read_text(), paths[2].read_text()


def test_values_are_means_over_videos_of_all_batches(tmp_path, folders):
    index, _, _ = run(tmp_path, folders)
    row = index["cross", "mapping", "pose_mae"]
    assert row["value"] == pytest.approx(6 + 0.75 + 0.05)  # rows of single frames take no part
    assert row["low"] < row["value"] < row["high"]
    assert (row["clips"], row["networks"], row["version"], row["protocol"]) == (4, "hopenet", 1, "cross")


def test_interval_is_over_clips_not_videos(tmp_path, folders):
    index, _, _ = run(tmp_path, folders)
    row = index["cross", "mapping", "pose_mae"]
    # Four clips with means 6.05, 6.55, 7.05, 7.55: the standard error is 0.56 / 2.
    assert row["high"] - row["low"] == pytest.approx(2 * 1.96 * 0.28, rel=0.15)


def test_missing_values_lower_the_clips_and_the_coverage_is_per_metric(tmp_path, folders):
    index, _, _ = run(tmp_path, folders)
    row = index["cross", "mapping", "fl_corr"]
    assert row["value"] == pytest.approx(0.6)
    assert row["clips"] == 3
    assert row["coverage"] == pytest.approx(0.8)
    assert index["cross", "mapping", "csim"]["coverage"] == 1


def test_ceiling_has_a_row_of_its_own_for_each_inverter(tmp_path, folders):
    index, _, _ = run(tmp_path, folders)
    row = index["cross", "inversion:psp", "csim"]
    assert row["value"] == pytest.approx((0.83 + 0.79) / 2)  # each target counts once
    assert row["clips"] == 2
    assert ("cross", "inversion:e4e", "csim") in index
    assert not any(metric == "inversion_csim" for _, _, metric in index)


def test_fitted_targets_have_a_ceiling_of_their_own_and_are_told(tmp_path, folders):
    fitted = {**MODELS, "mapping": {**MODELS["mapping"], "optimise": 30}}
    index, _, tables = run(tmp_path, folders, models=fitted)
    assert ("cross", "inversion:psp, fitted in 30 steps", "csim") in index
    assert ("cross", "inversion:psp", "csim") in index  # the baseline's
    said = "each target's latent was fitted to its frame in 30 steps"
    assert tables.count(f"mapping: {said}") == 2
    assert "fitted" not in run(tmp_path, folders)[2]


@pytest.mark.parametrize(("key", "what"), [("strength", "motion"), ("expression_strength", "expression")])
def test_a_strength_other_than_the_papers_is_told(tmp_path, folders, key, what):
    weaker = {**MODELS, "mapping": {**MODELS["mapping"], key: 0.8}}
    tables = run(tmp_path, folders, models=weaker)[2]
    assert tables.count(f"mapping: the {what} is multiplied by 0.8") == 2
    assert "multiplied" not in run(tmp_path, folders)[2]


def test_a_relative_expression_is_told(tmp_path, folders):
    own = {**MODELS, "mapping": {**MODELS["mapping"], "relative_expression": 0.8}}
    assert (
        run(tmp_path, folders, models=own)[2].count(
            "mapping: 80% of what the driving face rests at gives way"
        )
        == 2
    )
    assert "rests" not in run(tmp_path, folders)[2]


def test_csv_holds_the_same_rows(tmp_path, folders):
    index, text, _ = run(tmp_path, folders)
    rows = list(csv.DictReader(text.splitlines()))
    assert len(rows) == len(index)
    for row in rows:
        value = index[row["benchmark"], row["model"], row["metric"]]["value"]
        assert float(row["value"] or "nan") == pytest.approx(np.nan if value is None else value, nan_ok=True)


def test_table1_stands_beside_the_published_figures(tmp_path, folders):
    _, _, text = run(tmp_path, folders)
    lines = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("|")}
    assert "Pose (MAE)↓ (°) | P1 | FL (CORR)↑ | P1 | ID (CSIM)↑ | P1" in text
    assert "7.673" in lines["mapping (Ours)"]
    assert "8.491" in lines["linear-psp (Base pSp)"]
    assert "8.720" in lines["linear-e4e (Base e4e)"]
    assert "0.81" in lines["*Inversion ceiling of psp*"]
    assert "0.83" in lines["*Inversion ceiling of psp*"]
    assert "different data set" in text.replace("\n", " ")
    assert "hopenet" in text


def test_best_model_is_set_off_and_every_table_is_rectangular(tmp_path, folders):
    _, _, text = run(tmp_path, folders)
    row = next(line for line in text.splitlines() if line.startswith("| mapping (Ours)"))
    assert "**6.80 [" in row
    for block in text.split("\n\n"):
        lines = [line for line in block.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in lines}) <= 1


def test_differences_to_the_baseline_have_a_verdict(tmp_path, folders):
    _, _, text = run(tmp_path, folders)
    row = next(line for line in text.splitlines() if line.startswith("| mapping, Pose"))
    assert "-2.00 [-2.00, -2.00] | better | 8" in row
    row = next(line for line in text.splitlines() if line.startswith("| mapping, ID to the inversion"))
    assert "| open |" in row


def test_self_reenactment_has_image_metrics(tmp_path, folders):
    index, _, text = run(tmp_path, folders)
    assert index["self", "mapping", "ssim"]["value"] == pytest.approx(0.56)
    assert "SSIM↑" in text


def test_same_seed_same_table(tmp_path, folders):
    assert run(tmp_path, folders, seed=4)[1] == run(tmp_path, folders, seed=4)[1]


def test_names_cannot_break_a_table(tmp_path, folders):
    for folder in folders:
        (folder / "mapping").rename(folder / "a|b <i>")
    models = {"linear-psp": MODELS["linear-psp"], "a|b <i>": MODELS["mapping"]}
    _, _, text = run(tmp_path, folders, models=models)
    assert "a\\|b \\<i\\>" in text


def test_protocol_with_its_own_models_has_only_those(tmp_path, folders):
    shutil.rmtree(folders[1] / "linear-psp")
    protocols = {**PROTOCOLS, "self": {**PROTOCOLS["self"], "models": ["linear-e4e", "mapping"]}}
    index, _, text = run(tmp_path, folders, protocols=protocols)
    assert {model for benchmark, model, _ in index if benchmark == "self"} >= {"linear-e4e", "mapping"}
    assert not any(key[:2] == ("self", "linear-psp") for key in index)
    assert "Paired differences to linear-e4e" in text


def test_scores_of_two_definitions_are_refused(tmp_path, folders):
    path = folders[1] / "mapping" / "scores" / "0000-of-0001.parquet"
    rows = read_table(path, "scores").to_pylist()
    write_table(path, "scores", [{**row, "networks": "other"} for row in rows])
    with pytest.raises(VersionError, match=r"several definitions: .*pose_mae"):
        run(tmp_path, folders)


def test_missing_scores_and_models_are_named(tmp_path, folders):
    with pytest.raises(InputError, match="summarize: models"):
        run(tmp_path, folders, models={})
    with pytest.raises(InputError, match="newcomer"):
        run(tmp_path, folders, models={"newcomer": {}})
    with pytest.raises(InputError, match="not among the protocols"):
        run(tmp_path, folders, protocols={"cross": {"batches": 2}})


@pytest.mark.parametrize(
    ("entry", "row"),
    [
        ({"method": "mapping", "variant": "gen"}, "Ours Gen"),
        ({"method": "mapping", "variant": None}, "Ours"),
        ({"method": "linear", "inverter": "e4e-small"}, "Base e4e"),
        ({"method": "vq"}, None),
    ],
)
def test_rows_of_the_paper_are_found_by_method(entry, row):
    assert published_row(entry) == row


def test_main_parses_the_workflows_command_line(tmp_path, folders):
    import json

    out = tmp_path / "report"
    summarize.main(
        ["--benchmarks", *map(str, folders), "--output", f"{out}/m.parquet", "--csv", f"{out}/m.csv",
         "--tables", f"{out}/t.md", "--options", json.dumps({"models": MODELS, "protocols": PROTOCOLS})]
    )  # fmt: skip
    assert (out / "t.md").read_text().startswith("# Results")


def truth_rows(model: str, pair: dict) -> list[dict]:
    """Pose errors that rank the videos as the distance to the answer does, and a csim that does not."""
    d, t = int(pair["pair"][1]), int(pair["pair"][2])
    error = LEVEL.get(model, 0.0) + 0.5 * d + 0.1 * t
    values = {
        "coverage": 1.0,
        "pose_mae": error,
        "csim": 0.5 + 0.01 * ((3 * d + t) % 5),
        "truth_lpips": error / 20,
    }
    common = {
        "model": model,
        "benchmark": "truth",
        "pair": pair["pair"],
        "version": 1,
        "n": 10,
        "networks": "",
    }
    return [{**common, "metric": name, "value": value} for name, value in values.items()]


@pytest.fixture
def truth(tmp_path):
    folder, rows = tmp_path / "benchmarks" / "truth", pairs("truth", 1)
    write_table(folder / "pairs.parquet", "pairs", rows)
    for model in (*MODELS, *REFERENCES):
        scores = [s for pair in rows for s in truth_rows(model, pair)]
        write_table(folder / model / "scores" / "0000-of-0001.parquet", "scores", scores)
    return folder


def test_true_answers_have_references_and_agreement(tmp_path, folders, truth):
    options = {
        "models": MODELS | {name: {"reference": True} for name in REFERENCES},
        "protocols": {
            **{name: {**entry, "models": list(MODELS)} for name, entry in PROTOCOLS.items()},
            "truth": {"batches": 1, "protocol": "truth", "models": [*MODELS, *REFERENCES]},
        },
        "bootstrap": 100,
    }
    out = tmp_path / "report"
    summarize.run(
        [*folders, truth], out / "m.parquet", out / "m.csv", out / "t.md", options, out / "agreement.parquet"
    )
    rows = read_table(out / "agreement.parquet", "agreement").to_pylist()
    known = {(row["proxy"], row["truth"], row["scope"]): row for row in rows}
    assert {row["benchmark"] for row in rows} == {"truth"}
    agreed = known["pose_mae", "truth_lpips", "all"]
    assert (agreed["value"], agreed["videos"], agreed["clips"], agreed["models"]) == (
        pytest.approx(1),
        24,
        4,
        3,
    )
    assert abs(known["csim", "truth_lpips", "within"]["value"]) < 0.9
    measured = read_table(out / "m.parquet", "metrics").to_pylist()
    assert {r["model"] for r in measured if r["benchmark"] == "truth"} == {*MODELS, *REFERENCES}
    assert not {r["model"] for r in measured if r["benchmark"] == "cross"} & set(REFERENCES)
    text = (out / "t.md").read_text()
    section = text[text.index("## Cross-reenactment of rendered heads") :]
    assert "### Agreement with the truth" in section
    lines = {line.split(" | ")[0].strip("| "): line for line in section.splitlines() if line.startswith("| ")}
    # A reference is no method: it is never set off as the best one, nor compared with the baseline.
    assert "**" not in lines["the answer itself"]
    assert "**" in section[section.index("| mapping |") :].splitlines()[0]
    assert not [name for name in lines if name.startswith("the answer itself,")]
    assert "Table 1 of P1" not in section
