"""The stage that fetches and converts one row of the table."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
from safetensors.torch import load_file

from remime.stages import status_of
from remime.stages.weights import main, run
from remime.weights.registry import COLUMNS

dlib = pytest.importorskip("dlib")


@pytest.fixture
def table(tmp_path):
    """A table with a small shape predictor that lies on disk."""
    points = [dlib.point(5, 5), dlib.point(12, 9)]
    image = np.arange(400).astype(np.uint8).reshape(20, 20)
    truth = [dlib.full_object_detection(dlib.rectangle(2, 2, 17, 17), points)]
    options = dlib.shape_predictor_training_options()
    options.tree_depth, options.cascade_depth, options.num_trees_per_cascade_level = 2, 2, 2
    options.feature_pool_size = 5
    source = tmp_path / "tiny.dat"
    dlib.train_shape_predictor([image], [truth], options).save(str(source))
    row = {
        "name": "tiny",
        "role": "landmarks",
        "upstream": source.as_uri(),
        "member": "models/tiny.dat",
        "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "converter": "dlib",
        "terms": "research",
    }
    path = tmp_path / "weights.tsv"
    path.write_text("\t".join(COLUMNS) + "\n" + "\t".join(row.get(c, "") for c in COLUMNS) + "\n")
    return path


@pytest.fixture
def command(monkeypatch):
    """Run the stage's command line in this process; returns its exit code."""

    def run_it(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["weights", *map(str, arguments)])
        return status_of(main)

    return run_it


def test_run(table, tmp_path):
    path = run("tiny", tmp_path / "weights", table)
    assert path == tmp_path / "weights" / "tiny.safetensors"
    assert load_file(path)["leaf_values"].shape == (2, 2, 4, 2, 2)
    assert json.loads(path.with_suffix(".json").read_text())["terms"]["class"] == "research"


def test_the_command_line(table, tmp_path, command, capfd):
    arguments = ("--name", "tiny", "--table", table, "--output", tmp_path / "out put")
    done = subprocess.run([sys.executable, "-m", "remime.stages.weights", *map(str, arguments)], check=False)
    assert done.returncode == 0
    assert (tmp_path / "out put" / "tiny.safetensors").is_file()
    capfd.readouterr()
    assert command(*arguments, "--licence", "research") == 0
    assert command(*arguments, "--licence", "permissive") == 1
    assert "'tiny' are refused by licence: permissive" in capfd.readouterr().err
    assert command(*arguments, "--licence", "none") == 2
    assert "allowed: any, research, permissive" in capfd.readouterr().err


def test_what_cannot_be_had(table, tmp_path, monkeypatch, command, capfd):
    monkeypatch.setenv("REMIME_OFFLINE", "1")
    assert command("--name", "tiny", "--table", table, "--output", tmp_path / "out") == 1
    said = capfd.readouterr().err
    assert "REMIME_OFFLINE is set" in said
    assert f"put it by hand at {tmp_path / 'out' / 'originals' / 'tiny' / 'tiny.dat'}" in said
    assert command("--name", "tinny", "--table", table, "--output", tmp_path / "out") == 1
    assert "known: tiny" in capfd.readouterr().err
