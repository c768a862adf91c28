"""The whole workflow on rendered heads: they teach, validate, and are held against their true answers."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from remime.layout import REFERENCES
from tests.workflow.real import CONFIG, MESH, NETWORKS, make_project
from tests.workflow.runs import scores, start, watch

HEADS = ("head-anatomy", "head-parts")
ANSWERED = {
    **CONFIG,
    "datasets": {
        "puppets": {**CONFIG["datasets"]["puppets"], "seed": 5},  # type: ignore[dict-item, index]
        "heads": {
            "source": "heads",
            "identities": 3,
            "seed": 3,  # the third of them validates, as of the puppets
            "clips": 1,
            "frames": 6,
            "fps": 4,
            "size": 256,
            "shards": 1,
            "shared_motions": True,
            "select": {"min_frames": 2, "sample_interval": 0.1},
            "invert": {"frames": "sampled"},
        },
    },
    "models": {
        "linear-psp": {"method": "linear", "inverter": "psp"},
        "mapping": {
            "method": "mapping",
            "preset": "small",
            "inverter": "psp",
            "train": {
                "datasets": ["puppets", "heads"],
                "same_motion": ["heads"],
                "steps": 2,
                "latent_batch": 4,
                "image_every": 0,
                "learning_rate": 1.0e-3,
                "validate_every": 1,
                "validate_batches": 1,
                "losses": {"latent": 1.0, "same_motion": 1.0},
            },
        },
    },
    "protocols": {
        "truth": {
            "kind": "truth",
            "datasets": ["heads"],
            "inverter": "psp",
            "split": "all",
            "pairs": 2,
            "targets": 1,
        }
    },
}


@pytest.fixture(scope="module")
def answered(weights: Callable[[str], Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    for name in (*NETWORKS, *MESH, *HEADS):
        weights(name)
    folder = make_project(tmp_path_factory.mktemp("answered") / "run", None, ANSWERED)
    for arguments in (("--", "shards"), ()):
        watch(start(folder, "--quiet", "rules", *arguments), folder, lambda stage, process: False)
    return folder


def test_methods_and_references_are_held_against_the_answers(answered: Path) -> None:
    found = {(r["model"], r["pair"], r["metric"]): r["value"] for r in scores(answered) if r["frame"] is None}
    models = {model for model, _, metric in found if metric == "truth_lpips"}
    assert models == {"linear-psp", "mapping", *REFERENCES}
    pairs = {pair for _, pair, _ in found}
    assert len(pairs) == 2
    for pair in pairs:
        values = {model: found[model, pair, "truth_lpips"] for model in models}
        assert values["reference-answer"] == pytest.approx(0, abs=1e-6)
        assert min(v for k, v in values.items() if k != "reference-answer") > 0.02
        assert found["reference-driving", pair, "pose_mae"] == pytest.approx(0, abs=1e-6)
    page = (answered / "results/report/index.html").read_text()
    assert "the answer itself" in page


def test_heads_teach_and_validate(answered: Path) -> None:
    rows = pq.read_table(answered / "results/models/mapping/history.parquet").to_pylist()
    learnt = [r["value"] for r in rows if r["name"] == "same_motion"]
    assert len(learnt) == 2
    assert all(math.isfinite(value) for value in learnt)
    assert all(r["value"] for r in rows if (r["split"], r["name"]) == ("val", "score"))
    card = (answered / "results/models/mapping/card.md").read_text()
    assert "data: puppets, heads, heads (same motion)" in card
