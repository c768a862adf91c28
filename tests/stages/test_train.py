"""The train stage: from scratch, from a model, and after a kill."""

from __future__ import annotations

import json
import re

import pytest
import torch

from remime.encoders.inverter import load_inverter
from remime.errors import InputError, UnfinishedError
from remime.faces.mesh import BLENDSHAPES
from remime.methods import load_method
from remime.models import load_model, save_model
from remime.sources.directions import ROWS
from remime.stages import train as stage
from remime.tables import read_table
from remime.training import inverters, job, lids, mapping
from remime.training.job import OPTIONS, _curve, read_start
from tests import tiny

pytestmark = pytest.mark.weights
INVERTER = tiny.INVERTER
MAPPING = {
    **{k: v for k, v in INVERTER.items() if k not in ("size", "refinements")},
    "kind": "method",
    "method": "mapping",
    "rank": 4,
    "inverter": "psp",
}


@pytest.fixture(autouse=True)
def cheap(monkeypatch, weights):
    weights("lpips-alex")
    monkeypatch.setattr("remime.generators.load_generator", lambda *_, **__: tiny.generator())
    monkeypatch.setattr("remime.faces.mesh.load_mesh", tiny.Mesh)
    monkeypatch.setattr(mapping, "SIZE", 32)
    for module in (inverters, mapping):
        monkeypatch.setattr(module, "ImageLosses", tiny.Losses)


@pytest.fixture
def dataset(tmp_path):
    return tiny.make_dataset(tmp_path / "results" / "faces")


@pytest.fixture
def run(tmp_path, dataset):
    """``run(name, options, **arguments)``: train with all files in a folder of that name."""

    def go(name, options, datasets=None, **arguments):
        folder = tmp_path / "models" / name
        files = folder / "model.safetensors", folder / "history.parquet", folder / "card.md", folder / "state"
        chosen = [dataset] if datasets is None else datasets
        stage.run(name, *files, options, chosen, **arguments)
        return load_model(files[0]), folder

    return go


def test_inverter(run):
    model, folder = run("psp", INVERTER)
    assert sorted(p.name for p in folder.iterdir()) == ["card.md", "history.parquet", "model.safetensors"]
    assert model.meta["kind"] == "inverter"
    structure = {"method": "restyle-psp", "preset": "small", "refinements": 2, "size": 64, "width": 8}
    assert structure.items() <= model.meta["options"].items()
    assert not {"steps", "batch", "seed"} & model.meta["options"].keys()
    inverter = load_inverter(folder / "model.safetensors", tiny.generator())
    assert inverter.invert(torch.zeros(1, 3, 64, 64)).shape == (1, tiny.ROWS, 512)
    rows = read_table(folder / "history.parquet", "history").to_pylist()
    assert [r["step"] for r in rows if (r["split"], r["name"]) == ("train", "loss")] == [1, 2, 3]
    assert [r["step"] for r in rows if (r["split"], r["name"]) == ("val", "score")] == [0, 2, 3]
    card = (folder / "card.md").read_text()
    for said in ("# psp", "restyle-psp", "data: faces", "steps: 3", "CPU", "lpips_real", "validate_every 2"):
        assert said in card
    (note,) = model.meta["training"]
    assert note["best_step"] in (0, 2, 3)
    assert "score" in note["metrics"]
    scores = [r["value"] for r in rows if (r["split"], r["name"]) == ("val", "score")]
    assert note["curve"] == [
        [step, pytest.approx(v, abs=1e-4)] for step, v in zip((0, 2, 3), scores, strict=True)
    ]
    assert f"score (less is better) by step: 0: {scores[0]:.4g}, 2: " in card


def test_long_curves_are_thinned_in_cards():
    rows = [
        {"step": 5 * i, "split": s, "name": "score", "value": -i}
        for i in range(100)
        for s in ("val", "train")
    ]
    curve = _curve(rows)
    assert len(curve) == 13
    assert (curve[0], curve[-1]) == ([0, 0], [495, -99])
    assert curve == sorted(curve)


def test_thinned_curves_keep_the_best():
    rows = [
        {"step": 40 * i, "split": "val", "name": "score", "value": -1.0 if i == 22 else 0.0}
        for i in range(26)
    ]
    assert [880, -1.0] in _curve(rows)


def test_method(run, dataset):
    model, folder = run("mapping", MAPPING)
    assert {k.split(".")[0] for k in model.tensors} == {"method"}
    method = load_method(
        {"method": "mapping", "preset": "small"}, folder / "model.safetensors", tiny.generator()
    )
    identity = method.identify(tiny.latents("x", "who", 1)[0], torch.zeros(3, 32, 32))
    assert method.drive(identity, torch.zeros(2, 3, 32, 32)).shape == (2, tiny.ROWS, 512)


def test_training_goes_on_from_a_model(run):
    _, first = run("first", INVERTER)
    start = load_model(first / "model.safetensors")
    model, folder = run("second", {**INVERTER, "learning_rate": 1e-12}, init=first / "model.safetensors")
    assert all(torch.allclose(model.tensors[k], start.tensors[k], atol=1e-6) for k in start.tensors)
    assert [note["steps"] for note in model.meta["training"]] == [3, 3]
    assert (folder / "card.md").read_text().count("## Training run") == 2


def test_cards_tell_how_long_earlier_runs_took(run):
    _, first = run("first", INVERTER)
    card = first / "card.md"
    text = card.read_text()
    assert re.search(r"^- hardware: CPU.*, 0 min$", text, re.M)
    card.write_text(text.replace(", 0 min", ", 7 min"))
    _, second = run("second", INVERTER, init=first / "model.safetensors")
    _, third = run("third", {**INVERTER, "steps": 0}, datasets=(), init=second / "model.safetensors")
    told = re.findall(r"^- hardware: CPU.*, (\d+) min$", (third / "card.md").read_text(), re.M)
    assert told == ["7", "0"]
    shipped = third / "other.safetensors"
    (third / "model.safetensors").rename(shipped)
    (third / "card.md").rename(third / "other.md")
    _, fourth = run("fourth", {**INVERTER, "steps": 0}, datasets=(), init=shipped)
    assert "7 min" in (fourth / "card.md").read_text()


def test_training_goes_on_from_a_smaller_file(run):
    _, full = run("full", INVERTER)
    small, folder = run("small", {**INVERTER, "steps": 0, "rank": 4}, init=full / "model.safetensors")
    assert small.tensors["encoder.heads.0.weight"].shape[0] == 4
    model, _ = run("on", {**INVERTER, "learning_rate": 1e-12}, init=folder / "model.safetensors")
    assert model.tensors.keys() == small.tensors.keys()
    assert all(torch.allclose(model.tensors[k], v, atol=1e-6) for k, v in small.tensors.items())
    assert model.meta["options"]["rank"] == 4


def test_without_steps_a_model_is_passed_on(run, tmp_path):
    _, first = run("first", INVERTER)
    start = load_model(first / "model.safetensors")
    notes = tmp_path / "notes.md"
    notes.write_text("## Known weaknesses\n\nHats.\n")
    chosen = {"init": first / "model.safetensors", "half": True, "notes": notes}
    model, folder = run("same", {**INVERTER, "steps": 0}, datasets=(), **chosen)
    assert (folder / "card.md").read_text().endswith("\n\n## Known weaknesses\n\nHats.\n")
    assert all(
        torch.allclose(model.tensors[k], start.tensors[k], rtol=2e-3, atol=1e-4) for k in start.tensors
    )
    assert len(model.meta["training"]) == 1
    assert read_table(folder / "history.parquet", "history").num_rows == 0
    load_inverter(folder / "model.safetensors", tiny.generator())


@pytest.mark.parametrize("options", [INVERTER, MAPPING], ids=["inverter", "method"])
def test_without_steps_and_init_it_is_random(run, options):
    model, folder = run("random", {**options, "steps": 0}, datasets=())
    assert "Not trained" in (folder / "card.md").read_text()
    assert model.meta["training"] == []
    if options is INVERTER:
        load_inverter(folder / "model.safetensors", tiny.generator())
    else:
        load_method(options, folder / "model.safetensors", tiny.generator())


def test_a_correction_may_be_added_by_training_alone(run):
    _, first = run("first", {**MAPPING, "steps": 0}, datasets=())
    added = {**OPTIONS, **MAPPING, "correction": 4}
    assert read_start(first / "model.safetensors", {**added, "steps": 1}).tensors
    with pytest.raises(InputError, match=r"correction: 4: does not fit init.*which has 0"):
        run("second", {**MAPPING, "steps": 0, "correction": 4}, init=first / "model.safetensors")


def test_init_must_fit(run):
    _, first = run("first", {**INVERTER, "steps": 0}, datasets=())
    with pytest.raises(InputError, match=r"width: 16: does not fit init.*which has 8"):
        run("second", {**INVERTER, "width": 16}, init=first / "model.safetensors")
    with pytest.raises(InputError, match=r"init: does not fit.*encoder\."):
        run("second", {**INVERTER, "rank": 4}, init=first / "model.safetensors")
    with pytest.raises(InputError, match="kind 'inverter'"):
        run("third", MAPPING, init=first / "model.safetensors")
    with pytest.raises(InputError, match="no such model file"):
        run("fourth", INVERTER, init=first / "nothing.safetensors")


def test_unknown_method(run):
    with pytest.raises(InputError, match="'fomm'"):
        run("x", {**MAPPING, "method": "fomm"})


def fail_at(monkeypatch, task, step):
    batch = task.batch

    def cut(self, number):
        if number == step:
            raise KeyboardInterrupt
        return batch(self, number)

    monkeypatch.setattr(task, "batch", cut)
    return lambda: monkeypatch.setattr(task, "batch", batch)


def noted_steps(monkeypatch, task):
    """The steps that are trained from now on."""
    steps, batch = [], task.batch
    monkeypatch.setattr(task, "batch", lambda self, step: steps.append(step) or batch(self, step))
    return steps


@pytest.mark.parametrize(
    ("options", "task"),
    [(INVERTER, inverters.InverterTask), (MAPPING, mapping.MappingTask)],
    ids=["inverter", "method"],
)
def test_killed_training_ends_with_the_same_losses(run, monkeypatch, options, task):
    whole, folder = run("whole", options)
    mend = fail_at(monkeypatch, task, 2)
    with pytest.raises(KeyboardInterrupt):
        run("cut", options)
    mend()
    steps = noted_steps(monkeypatch, task)
    resumed, other = run("cut", options)
    assert steps == [2]
    assert all(torch.equal(whole.tensors[k], resumed.tensors[k]) for k in whole.tensors)
    assert {**whole.meta, "name": ""} == {**resumed.meta, "name": ""}
    assert re.search(r"hardware: CPU .*, \d+ min\n", (other / "card.md").read_text())
    rows = [
        read_table(f / "history.parquet", "history").drop(["seconds"]).to_pylist() for f in (folder, other)
    ]
    assert rows[0] == rows[1]


@pytest.mark.parametrize("options", [INVERTER, MAPPING], ids=["inverter", "method"])
def test_slices_make_the_model_of_one_run(run, tmp_path, options):
    whole, folder = run("whole", options)
    for _ in range(2):
        with pytest.raises(UnfinishedError):
            run("cut", options, deadline=0.0)
        assert [p.name for p in (tmp_path / "models" / "cut").iterdir()] == ["state"]
    resumed, other = run("cut", options, deadline=0.0)
    assert all(torch.equal(whole.tensors[k], resumed.tensors[k]) for k in whole.tensors)
    assert {**whole.meta, "name": ""} == {**resumed.meta, "name": ""}
    rows = [
        read_table(f / "history.parquet", "history").drop(["seconds"]).to_pylist() for f in (folder, other)
    ]
    assert rows[0] == rows[1]


def test_the_card_tells_all_hardware(run, monkeypatch):
    with pytest.raises(UnfinishedError):
        run("m", INVERTER, deadline=0.0)
    monkeypatch.setattr("remime.training.job._processor", lambda: "other")
    _, folder = run("m", INVERTER)
    assert re.search(
        r"hardware: CPU \(.*, \d+ cores\) \(1 steps\), CPU \(other, \d+ cores\) \(2 steps\),",
        (folder / "card.md").read_text(),
    )


def test_the_processor_has_its_name_or_that_of_its_architecture(monkeypatch):
    told = "processor\t: 0\nmodel name\t: Fast 3000: mobile\n\nmodel name\t: another\n"
    monkeypatch.setattr(job.Path, "read_text", lambda *_, **__: told)
    assert job._processor() == "Fast 3000: mobile"
    monkeypatch.setattr(job.Path, "read_text", lambda *_, **__: "CPU part\t: 0xd0c\n")
    assert job._processor() == job.platform.machine()


def test_patience_is_told_on_the_card(run, monkeypatch):
    scores = iter([1.0, 2.0, 3.0])
    monkeypatch.setattr(inverters.InverterTask, "validate", lambda self: {"score": next(scores)})
    model, _ = run("m", {**INVERTER, "validate_every": 1, "patience": 1})
    (note,) = model.meta["training"]
    assert (note["steps"], note["best_step"], note["options"]["patience"]) == (1, 0, 1)


@pytest.mark.parametrize("change", ["options", "data"])
def test_killed_training_of_something_else_is_not_continued(run, monkeypatch, tmp_path, change):
    mend = fail_at(monkeypatch, mapping.MappingTask, 2)
    with pytest.raises(KeyboardInterrupt):
        run("m", MAPPING)
    mend()
    steps = noted_steps(monkeypatch, mapping.MappingTask)
    options = MAPPING
    if change == "data":
        tiny.make_dataset(tmp_path / "results" / "faces", {**tiny.CLIPS, "gil-1": ("gil", 4)})
    else:
        options = {**MAPPING, "learning_rate": 1e-3}
    run("m", options)
    assert steps == [0, 1, 2]


def test_command_line(tmp_path, dataset):
    files = {k: tmp_path / "m" / k for k in ("output", "history", "card", "state")}
    arguments = ["--name", "psp", *(str(x) for k, v in files.items() for x in (f"--{k}", v))]
    options = json.dumps({**INVERTER, "steps": 1})
    stage.main([*arguments, "--options", options, "--datasets", f"{dataset.folder}=2", "--processes", "1"])
    assert load_model(files["output"]).meta["name"] == "psp"


def test_minutes(tmp_path, dataset):
    files = {k: tmp_path / "m" / k for k in ("output", "history", "card", "state")}
    arguments = ["--name", "psp", *(str(x) for k, v in files.items() for x in (f"--{k}", v))]
    arguments += ["--options", json.dumps(INVERTER), "--datasets", f"{dataset.folder}=2", "--minutes"]
    with pytest.raises(UnfinishedError, match=r"step 1 of 3") as end:
        stage.main([*arguments, "1e-9"])
    assert end.value.exit_code == 75
    stage.main([*arguments, "60"])
    assert load_model(files["output"]).meta["training"][0]["steps"] == 3
    with pytest.raises(InputError, match=r"--minutes: got 0\.0"):
        stage.main([*arguments, "0"])


@pytest.fixture
def started(monkeypatch, tmp_path):
    """``started(processes, **options)``: in how many processes the command line trains, and with what."""
    calls = []
    monkeypatch.setattr("remime.training.launch.launch", lambda *call: calls.append(call))
    monkeypatch.setattr(stage, "run", lambda *_: calls.append((1,)))
    for name in ("SLURM_JOB_ID", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)

    def go(processes, **options):
        arguments = ["--name", "m", "--processes", str(processes), "--state", str(tmp_path / "state")]
        for name in ("output", "history", "card"):
            arguments += [f"--{name}", str(tmp_path / name)]
        arguments += ["--options", json.dumps({**INVERTER, **options})]
        stage.main(arguments)
        (call,) = calls
        launched = ("remime.stages.train", arguments, tmp_path / "state" / "processes")
        assert call == (1,) or call[1:] == launched
        return call[0]

    return go


@pytest.mark.parametrize(("asked", "started_with"), [(0, 1), (1, 1), (3, 3)])
def test_as_many_processes_as_asked_for(started, asked, started_with):
    assert started(asked) == started_with


def test_as_many_processes_as_a_scheduler_granted_gpus(started, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert started(0) == 2


@pytest.mark.parametrize("options", [{"steps": 0}, {"kind": "directions", "pool": 8, "steps": 0}])
def test_what_is_not_trained_needs_no_processes(started, options):
    assert started(4, **options) == 1


def test_one_of_several_processes_starts_no_others(started, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    assert started(4) == 1


def test_number_of_processes_is_checked(started):
    with pytest.raises(InputError, match="--processes: got -1"):
        started(-1)


def test_lids_of_directions(run, tmp_path, monkeypatch):
    """Directions keep what they are, and are told what closes lids."""
    monkeypatch.setattr(lids, "load_mesh", tiny.Mesh)
    monkeypatch.setattr(lids, "ImageLosses", tiny.Losses)
    monkeypatch.setattr(lids, "SIZE", 32)
    names = ["yaw", *BLENDSHAPES[1:]]
    plain = {"basis": 0.02 * torch.randn(len(names), 512)} | {
        name: torch.ones(len(names)) for name in ("mean", "spread", "correlation")
    }
    note = {
        "datasets": [],
        "steps": 0,
        "best_step": 0,
        "seed": 0,
        "hardware": "cpu",
        "options": {},
        "metrics": {},
    }
    meta = {
        "kind": "directions",
        "generator": "mobile-ffhq",
        "method": "directions",
        "names": names,
        "options": {},
        "training": [note],
    }
    start = tmp_path / "plain.safetensors"
    save_model(start, plain, meta)
    options = {"kind": "directions", "steps": 2, "batch": 2, "learning_rate": 0.01, "validate_every": 1}
    model, folder = run("closing", options, datasets=[], init=start)
    assert model.meta["names"] == names
    assert len(model.meta["training"]) == 2
    assert all(torch.equal(model.tensors[name], value) for name, value in plain.items())
    assert model.tensors["lids"].shape == (ROWS, 512)
    assert "steps: 2" in (folder / "card.md").read_text()
    with pytest.raises(InputError, match="steps: is 2, but lids start from directions"):
        run("alone", options, datasets=[])


def test_people_who_share_motions(run, tmp_path):
    """They reach the training, and the card names them."""
    paths = {clip: json.dumps({"motion": 1, "scene": 2}) for clip in tiny.CLIPS}
    heads = tiny.make_dataset(tmp_path / "results" / "heads", paths=paths)
    options = {**MAPPING, "losses": {"same_motion": 1.0}}
    model, folder = run("same", options, same_motion=[heads])
    history = read_table(folder / "history.parquet", "history").to_pylist()
    assert {r["name"] for r in history} >= {"same_motion"}
    assert "data: faces, heads (same motion)" in (folder / "card.md").read_text()
    assert model.meta["training"][0]["datasets"] == ["faces", "heads (same motion)"]
