"""Training in slices: as one run would have done it, on a machine with little on it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from remime import slices
from remime.errors import InputError, UnfinishedError
from remime.models import load_model
from remime.stages import train as stage
from remime.training import inverters
from remime.training.job import read_job
from remime.training.kit import pack_kit
from remime.training.parts import describe
from remime.training.state import load_state
from tests import tiny

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = {**tiny.INVERTER, "ema": 0.9, "pool": 8, "pool_batch": 2}


@pytest.fixture(autouse=True)
def cheap(monkeypatch, weights, tmp_path):
    weights("lpips-alex")
    monkeypatch.setenv("REMIME_MODELS", str(tmp_path))
    monkeypatch.setattr("remime.generators.load_generator", lambda *_, **__: tiny.generator())
    monkeypatch.setattr(inverters, "ImageLosses", tiny.Losses)
    monkeypatch.chdir(tmp_path)
    tiny.save_inverter(tmp_path / "restyle-psp-small.safetensors", seed=1)


@pytest.fixture
def dataset():
    return tiny.make_dataset(Path("results/faces"))


@pytest.fixture
def job(dataset):
    made = read_job("psp", OPTIONS, [dataset])
    pack_kit(made, [], Path("kit"))
    return made


def run(verb, *arguments):
    slices.main([verb, "psp", "--folder", "kit", *arguments])


def forget():
    """What a machine that was given back has forgotten."""
    for file in slices.state_of("psp").iterdir():
        file.unlink()


def finish(name, dataset):
    """What the workflow's rule does at home."""
    files = [Path(name) / file for file in ("model.safetensors", "history.parquet", "card.md")]
    stage.run("psp", *files, slices.state_of("psp"), OPTIONS, [dataset])
    return load_model(files[0])


def test_three_slices_on_bare_machines_make_the_model_of_one_run(job, dataset, capsys):
    whole = finish("whole", dataset)
    for number in (1, 2):
        with pytest.raises(UnfinishedError):
            run("slice", "--minutes", "1e-9", "--part-size", "4")
        assert describe(Path("kit"), "psp-state").about["step"] == number
        forget()
        capsys.readouterr()
    run("slice", "--minutes", "1e-9")
    report = json.loads(capsys.readouterr().out)
    forget()
    run("unpack")
    pool = Path("results/state/train/pool")
    for file in pool.iterdir():
        file.unlink()
    model = finish("sliced", dataset)
    assert list(pool.iterdir()) == [], "a finished training needs no pool"
    assert all(torch.equal(v, model.tensors[k]) for k, v in whole.tensors.items())
    assert model.meta == whole.meta
    assert report == json.loads(Path("kit/psp-evaluation.json").read_text())
    (note,) = model.meta["training"]
    assert (report["step"], report["steps"], report["best_step"]) == (3, 3, note["best_step"])
    assert report["validation"] == note["metrics"]


def test_evaluation_next_to_the_shipped_model(job, capsys):
    with pytest.raises(UnfinishedError):
        run("train", "--minutes", "1e-9")
    run("evaluate")
    report = json.loads(capsys.readouterr().out)
    assert report["shipped"]["model"].endswith("restyle-psp-small.safetensors")
    assert report["shipped"]["validation"].keys() == report["validation"].keys()
    assert report["shipped"]["validation"] != report["validation"]
    assert list(report["hardware"].values()) == [1]
    Path("restyle-psp-small.safetensors").unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("remime.slices._shipped", lambda _: None)
        run("evaluate")
    assert json.loads(capsys.readouterr().out)["shipped"] is None


def test_a_state_that_is_further_on_is_kept(job):
    with pytest.raises(UnfinishedError):
        run("slice", "--minutes", "1e-9")
    with pytest.raises(UnfinishedError):
        run("train", "--minutes", "1e-9")
    assert slices.unpack(job, Path("kit")) == 2
    forget()
    assert slices.unpack(job, Path("kit")) == 1


def test_the_parts_of_another_job_are_refused(job, dataset):
    with pytest.raises(UnfinishedError):
        run("slice", "--minutes", "1e-9")
    other = read_job("psp", {**OPTIONS, "seed": 5}, [dataset])
    with pytest.raises(InputError, match=r"psp-state\.json: belongs to a training with other options"):
        slices.unpack(other, Path("kit"))
    with pytest.raises(InputError, match="holds no state of this job"):
        slices.pack(other, Path("kit"), 2**24)
    with pytest.raises(InputError, match="holds no state of this job"):
        slices.evaluate(replace(job, name="none"))


def test_a_damaged_part_is_named_and_nothing_is_replaced(job):
    with pytest.raises(UnfinishedError):
        run("slice", "--minutes", "1e-9")
    part = describe(Path("kit"), "psp-state").files[-1]
    part.write_bytes(part.read_bytes()[: part.stat().st_size // 2])
    forget()
    with pytest.raises(InputError, match=part.name):
        run("slice", "--minutes", "1e-9")
    assert load_state(slices.state_of("psp"), job.digest) is None


def test_rounded_moments_are_smaller_and_go_on(job):
    with pytest.raises(UnfinishedError):
        run("train", "--minutes", "1e-9")
    exact = slices.pack(job, Path("exact"), 2**24)
    run("pack", "--into", "rounded", "--moments", "bf16")
    rounded = describe(Path("rounded"), "psp-state")
    assert rounded.bytes < exact.bytes
    assert rounded.about["moments"] == "bf16"
    forget()
    slices.unpack(job, Path("rounded"))
    run("train")
    assert load_state(slices.state_of("psp"), job.digest)["step"] == 3


BARE = """
import sys
from tests import tiny

absent = {"h5py", "pyarrow", "dlib", "cv2", "av", "snakemake", "typer", "yaml", "lightning_fabric"}
for name in [*sys.modules]:
    if name.partition(".")[0] in absent or name in ("remime.archive", "remime.tables"):
        del sys.modules[name]

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
import remime.generators, remime.slices
from remime.training import inverters
remime.generators.load_generator = lambda *_, **__: tiny.generator()
inverters.ImageLosses = tiny.Losses
remime.slices.main(["slice", "psp", "--folder", "kit", "--minutes", "60"])
"""


def test_it_needs_no_packages_but_torch(job):
    """What reads datasets, and what the workflow needs, is left at home."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    done = subprocess.run([sys.executable, "-c", BARE], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["step"] == 3


@pytest.fixture
def workflow(monkeypatch, job):
    """The commands that ``prepare`` starts, in this project's folder."""
    monkeypatch.chdir(ROOT)
    calls, code = [], [0]

    def call(command, check):
        calls.append(command)
        return subprocess.CompletedProcess(command, code[0])

    monkeypatch.setattr(slices.subprocess, "run", call)
    monkeypatch.setattr(slices, "_job", lambda *_: job)
    return calls, code


def test_prepare(workflow, tmp_path):
    overlay = tmp_path / "own.yaml"
    overlay.write_text("inverters: {psp: {init: null, train: {datasets: [samples], steps: 5}}}\n")
    made = slices.prepare("psp", [overlay], tmp_path / "parts", 2**24, 3)
    shards, inputs = workflow[0]
    options = ["snakemake", "--cores", "3", "--quiet", "rules", "--configfile", str(overlay), "--"]
    assert shards == [*options, "shards"]
    assert inputs[: len(options)] == options
    assert "results/samples/selected/0000-of-0001.parquet" in inputs
    assert not any(path.startswith("models/") for path in inputs)
    assert made.about["name"] == "psp"
    workflow[1][0] = 1
    with pytest.raises(InputError, match="psp: its inputs could not be made"):
        slices.prepare("psp", [overlay], tmp_path / "parts", 2**24, 3)


def test_prepare_refuses_what_is_not_trained(workflow, tmp_path):
    with pytest.raises(InputError, match="psp: is not trained by this configuration\n  allowed: mapping"):
        slices.prepare("psp", [], tmp_path, 2**24, 1)
    assert workflow[0] == []


def test_prepare_names_the_files_of_a_wrong_configuration(workflow, tmp_path):
    overlay = tmp_path / "own.yaml"
    overlay.write_text("aling: {}\n")
    with pytest.raises(InputError, match=r"^config\.yaml, \S*own\.yaml: 1 problem"):
        slices.prepare("psp", [overlay], tmp_path / "parts", 2**24, 1)
    assert workflow[0] == []


def test_minutes_are_checked(job):
    with pytest.raises(InputError, match=r"--minutes: got 0\.0"):
        run("train", "--minutes", "0")
