"""What the workflow plans: everything at first, nothing the second time, and only what a change touches."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from remime.shards import batch_of, shard_name, shard_of
from tests.workflow.project import ROOT, Project, small_config
from tests.workflow.runs import LOG, kill, start

SHARDS = 4
ENTRY = {
    "ytb_id": "A" * 11,
    "duration": {"start_sec": 1.0, "end_sec": 2.0},
    "bbox": {"top": 0.1, "bottom": 0.9, "left": 0.1, "right": 0.9},
}
FILES = [f"person-{i}/clip.mp4" for i in range(6)]


def add_clip(folder: Path, name: str) -> None:
    path = folder / "clips" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(name.encode())


def folder_config(shards: int = SHARDS) -> dict[str, Any]:
    return small_config(
        mine={"source": "folder", "path": "clips", "shards": shards},
        puppets={"source": "puppets", "shards": 2},
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that ran to its end."""
    folder = tmp_path_factory.mktemp("finished")
    for name in FILES:
        add_clip(folder, name)
    Project(folder, folder_config()).run()
    return folder


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Project:
    """A copy of the finished project, free to be changed."""
    copy = Project(tmp_path / "copy", {}) if (tmp_path / "copy").mkdir() is None else None
    assert copy is not None
    copy.configure(folder_config())
    for name in ("results", "resources", "clips", ".snakemake", "models"):
        shutil.copytree(finished / name, copy.folder / name, dirs_exist_ok=True, symlinks=True)
    return copy


def test_default_configuration_reaches_every_rule(tmp_path: Path) -> None:
    project = Project(tmp_path, yaml.safe_load((ROOT / "config.yaml").read_text()))
    written = "".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    rules = set(re.findall(r"^rule (\w+):", written, re.MULTILINE)) | {
        "split_samples",
        "split_puppets",
        "split_heads",
    }
    assert set(project.plan()) == rules - {"external"}


def test_weights_that_are_only_copied_wait_neither_for_all_cores_nor_for_a_gpu(tmp_path: Path) -> None:
    project = Project(tmp_path, yaml.safe_load((ROOT / "config.yaml").read_text()))
    shown = project.snakemake("--dry-run", "--cores", "4")
    jobs = dict(re.findall(r"rule train:.*?wildcards: model=(\S+)\n(.*?resources: .*?)\n", shown, re.DOTALL))
    learns = {"psp": False, "e4e": False, "mapping": True}
    assert {name: "threads: 4" in job for name, job in jobs.items()} == learns
    assert {name: "gpu=1" in job for name, job in jobs.items()} == learns


def test_a_second_run_plans_nothing(project: Project) -> None:
    assert project.plan() == {}


def test_a_new_clip_reruns_one_shard_and_what_gathers_it(project: Project) -> None:
    add_clip(project.folder, "person-new/clip.mp4")
    project.snakemake("--quiet", "all", "--", "shards")
    shard = shard_name(shard_of("person-new/clip.mp4", SHARDS), SHARDS)
    assert "person-new" in (project.folder / f"results/mine/shards/{shard}/clips.tsv").read_text()
    plan = project.plan()
    one_shard = {"align": 1, "measure": 1, "select": 1, "invert": 2, "index": 2}
    gathered = {"train": 1, "plan": 2, "reenact": 4, "score": 4, "sheet": 2}
    assert plan == one_shard | gathered | {"summarize": 1, "figures": 1, "report": 1}
    assert f"results/mine/aligned/{shard}.h5" in project.snakemake("--dry-run")


def test_a_changed_and_a_removed_clip_rerun_their_shards(project: Project) -> None:
    changed, removed = FILES[0], FILES[1]
    shards = {shard_of(name, SHARDS) for name in (changed, removed)}
    path = project.folder / "clips" / changed
    path.write_bytes(b"other bytes")
    (project.folder / "clips" / removed).unlink()
    project.snakemake("--quiet", "all", "--", "shards")
    assert project.plan()["align"] == len(shards)


def test_touched_lists_rerun_nothing(project: Project) -> None:
    later = time.time() + 60
    for path in (project.folder / "results/mine/shards").rglob("clips.tsv"):
        os.utime(path, (later, later))
    assert project.plan() == {}


@pytest.mark.parametrize(
    ("change", "rerun"),
    [
        pytest.param(
            {"datasets": {"unused": {"source": "puppets", "shards": 3}}}, set(), id="unused dataset"
        ),
        pytest.param({"report": {"title": "Another"}}, {"report"}, id="title"),
        pytest.param({"sheet": {"videos": 1}}, {"sheet", "report"}, id="sheet"),
        pytest.param({"summarize": {"bootstrap": 10}}, {"summarize", "figures", "report"}, id="bootstrap"),
    ],
)
def test_a_key_reruns_only_what_uses_it(project: Project, change: dict[str, Any], rerun: set[str]) -> None:
    config = folder_config()
    for key, value in change.items():
        config[key] = config.get(key, {}) | value
    project.configure(config)
    assert set(project.plan()) == rerun


def test_how_downloads_are_done_reruns_nothing(tmp_path: Path) -> None:
    """But what is downloaded does; and metadata that changes is read again."""
    (tmp_path / "info.json").write_text(json.dumps({"clips": {f"{'A' * 11}_1": ENTRY}}))
    entry = {"source": "celebv_hq", "mode": "download", "metadata": "info.json", "shards": 2}
    project = Project(tmp_path, small_config(real=entry))
    plan = project.plan()
    assert (plan["manifest"], plan["collect"], plan["align"]) == (1, 2, 2)
    project.run()
    assert project.plan() == {}
    for download, rerun in (({"rate": 3, "retries": 9, "url": "http://a/{video}"}, 0), ({"height": 720}, 2)):
        project.configure(small_config(real={**entry, "download": download}))
        assert project.plan().get("collect", 0) == rerun
    project.configure(small_config(real=entry))
    (tmp_path / "info.json").write_text(json.dumps({"clips": {f"{'A' * 11}_2": ENTRY}}))
    assert project.plan()["manifest"] == 1


def test_resources_choose_the_number_of_processes_and_rerun_nothing(project: Project) -> None:
    several = ("--set-resources", "train:gpu=4", "train:mem_mb=20000")
    assert project.plan(*several) == {}
    said = project.snakemake("--dry-run", "--printshellcmds", "--forcerun", "train", *several)
    commands = [line for line in said.splitlines() if "remime.stages.train " in line]
    assert commands
    assert all(" --processes 4 " in command for command in commands)


class TestExternal:
    """Other people's systems: nothing of ours runs again, and of theirs only what has changed."""

    LAST: ClassVar = {"sheet": 2, "summarize": 1, "figures": 1, "report": 1}

    @pytest.fixture
    def scored(self, project: Project) -> Project:
        """The finished project with an external system in both protocols; cross has three batches."""
        config = folder_config()
        config["protocols"]["cross"]["batches"] = 3
        config["protocols"]["self"]["models"] = []
        project.configure(config)
        project.snakemake("--quiet", "all")
        (project.folder / "theirs" / "self").mkdir(parents=True)
        config["external"] = {"theirs": {"path": "theirs"}}
        project.configure(config)
        assert project.plan() == {"external": 4, "score": 4, **self.LAST}
        project.snakemake("--quiet", "all")
        assert project.plan() == {}
        return project

    def test_a_changed_video_reruns_its_batch(self, scored: Project) -> None:
        video = scored.folder / "theirs" / "some--pair.mp4"
        batch = batch_of("some--pair", 3)
        for change in (lambda: video.write_bytes(b"1"), lambda: video.write_bytes(b"22"), video.unlink):
            change()
            # A video of this place can be meant for both protocols.
            assert scored.plan() == {"external": 2, "score": 2, **self.LAST}
            assert f"results/benchmarks/cross/theirs/videos/{batch}" in scored.snakemake("--dry-run")
            scored.snakemake("--quiet", "all")
        assert scored.plan() == {}

    def test_a_video_of_one_protocol_leaves_the_other(self, scored: Project) -> None:
        (scored.folder / "theirs" / "self" / "some--pair.mp4").write_bytes(b"1")
        assert scored.plan() == {"external": 1, "score": 1, **self.LAST, "sheet": 1}

    def test_other_files_in_the_folder_rerun_nothing(self, scored: Project) -> None:
        (scored.folder / "theirs" / "notes.txt").write_text("rendered on Monday")
        (scored.folder / "theirs" / ".some--pair.part.mp4").write_bytes(b"1")
        assert scored.plan() == {}

    def test_how_it_is_read_reruns_it_alone(self, scored: Project) -> None:
        config = yaml.safe_load((scored.folder / "config.yaml").read_text())
        config["external"]["theirs"]["align"] = False
        scored.configure(config)
        assert scored.plan() == {"external": 4, "score": 4, **self.LAST}

    def test_protocols_can_name_it(self, scored: Project) -> None:
        config = yaml.safe_load((scored.folder / "config.yaml").read_text())
        config["external"]["others"] = {"path": "theirs"}
        config["protocols"]["cross"]["models"] = ["mapping", "theirs"]
        config["protocols"]["self"]["models"] = ["mapping", "others"]
        scored.configure(config)
        assert scored.plan() == {"external": 1, "score": 1, **self.LAST}


class TestTruth:
    """Protocols with true answers: these are rendered once for all models."""

    PLAN: ClassVar = {"answer": 2, "score": 10, "sheet": 1, "summarize": 1, "figures": 1, "report": 1}

    @pytest.fixture
    def config(self) -> dict[str, Any]:
        config = folder_config()
        config["datasets"]["people"] = {"source": "heads", "shards": 1}
        config["protocols"]["truth"] = {
            "kind": "truth",
            "datasets": ["people"],
            "inverter": "psp",
            "models": ["linear-psp"],
            "batches": 2,
        }
        return config

    def test_answers_are_rendered_once_and_references_scored(
        self, project: Project, config: dict[str, Any]
    ) -> None:
        project.configure(config)
        plan = project.plan()
        assert {name: plan[name] for name in self.PLAN} == self.PLAN
        # The networks of the mesh and the heads are there for the first time.
        assert "train" not in plan
        project.snakemake("--quiet", "all", "--", "shards")
        project.snakemake("--quiet", "all")
        assert project.plan() == {}
        assert (project.folder / "results/report/agreement.parquet").is_file()
        config["protocols"]["truth"]["models"] = []
        project.configure(config)
        plan = project.plan()
        assert plan["reenact"] == plan["score"] == 4
        assert "answer" not in plan


def test_an_override_of_one_dataset_leaves_the_others(project: Project) -> None:
    config = folder_config()
    config["datasets"]["puppets"]["align"] = {"max_gap": 2}
    project.configure(config)
    plan = project.plan()
    assert (plan["align"], plan["invert"]) == (2, 2)
    assert "collect" not in plan


def test_a_model_may_be_called_like_a_folder(tmp_path: Path) -> None:
    """results/models is no dataset, and results/models/latents/history.parquet no index of its latents."""
    add_clip(tmp_path, "a/clip.mp4")
    config = folder_config()
    config["models"]["latents"] = config["models"].pop("mapping")
    config["protocols"]["self"]["models"] = ["latents"]
    assert "Exception" not in Project(tmp_path, config).snakemake("--dry-run")


def test_a_raised_stage_version_reruns_the_stage(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    source = (ROOT / "src/remime/versions.py").read_text()
    (project.folder / "src").unlink()
    shutil.copytree(ROOT / "src", project.folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    (project.folder / "src/remime/versions.py").write_text(source.replace('"select": ', '"select": 9'))
    monkeypatch.setenv("PYTHONPATH", str(project.folder / "src"))
    plan = project.plan()
    assert plan["select"] == SHARDS + 2
    assert not {"align", "measure", "collect"} & set(plan)


def test_many_shards_need_few_jobs(tmp_path: Path) -> None:
    add_clip(tmp_path, "a/clip.mp4")
    config = folder_config(shards=1024)
    config["models"] = {"linear-psp": config["models"]["linear-psp"]}
    config["protocols"] = {"cross": config["protocols"]["cross"]}
    start = time.monotonic()
    plan = Project(tmp_path, config).plan()
    print(f"planned {sum(plan.values())} jobs in {time.monotonic() - start:.1f} s")
    assert {plan[rule] for rule in ("align", "measure", "select", "invert")} == {1024}
    assert sum(plan.values()) < 4.1 * 1024


def test_a_published_dataset_is_planned_from_its_files(tmp_path: Path) -> None:
    """Its files are read in place: nothing is collected, and a new file makes the manifest anew."""
    for name in ("Radio11_0.mp4", "Radio11_1.mp4", "Radio12_0.mp4", "Radio12.mp4"):
        add_clip(tmp_path, name)
    metadata = tmp_path / "HDTF_dataset"
    metadata.mkdir()
    (metadata / "RD_annotion_time.txt").write_text(
        "Radio11.mp4 00:30-01:00 01:30-02:30\nRadio12.mp4 00:10-00:20\n"
    )
    entry = {"source": "hdtf", "path": "clips", "metadata": "HDTF_dataset", "shards": 2}
    project = Project(tmp_path, small_config(hdtf=entry))
    project.snakemake("--quiet", "all", "--", "shards")
    lists = [path.read_text() for path in (tmp_path / "results/hdtf/shards").rglob("clips.tsv")]
    assert sum(text.count("\nRadio") for text in lists) == 3
    problems = (tmp_path / "results/hdtf/manifest.problems.tsv").read_text()
    assert "unknown_name\tclips/Radio12.mp4" in problems
    plan = project.plan()
    assert (plan["align"], "collect" in plan, "manifest" in plan) == (2, False, False)
    add_clip(tmp_path, "Radio13_0.mp4")
    assert project.plan()["manifest"] == 1


def test_a_wrong_configuration_is_reported_without_a_traceback(tmp_path: Path) -> None:
    project = Project(tmp_path, {"seed": "one", **folder_config()})
    add_clip(tmp_path, "a/clip.mp4")
    (tmp_path / "own.yaml").write_text("aling: {}")
    done = project.attempt("--dry-run", "--configfile", "own.yaml")
    assert done.returncode != 0
    assert re.search(r"config.yaml, \S*own.yaml: 2 problem\(s\) in the configuration", done.stdout)
    assert "seed: 'one' is text; allowed: a whole number" in done.stdout
    assert "aling: unknown key" in done.stdout
    assert "did you mean 'align'?" in done.stdout
    assert "Traceback" not in done.stdout


def test_a_failed_stage_keeps_what_others_computed(tmp_path: Path) -> None:
    """A second run does only what the first one could not."""
    for name in FILES:
        add_clip(tmp_path, name)
    project = Project(tmp_path, folder_config())
    stub = project.folder / "bin" / "python"
    working = stub.read_text()
    stub.write_text(working.replace("exec", 'case "$2" in *.measure) exit 1;; esac; exec'))
    assert project.attempt("--quiet", "all", "--retries", "0").returncode != 0
    stub.write_text(working)
    plan = project.plan()
    assert plan["measure"] == SHARDS + 2
    assert not {"align", "collect", "weights", "manifest"} & set(plan)


@pytest.mark.parametrize("profile", ["workstation", "slurm"])
def test_profiles_are_understood(tmp_path: Path, profile: str) -> None:
    if profile == "slurm":
        pytest.importorskip("snakemake_executor_plugin_slurm")
    add_clip(tmp_path, "a/clip.mp4")
    project = Project(tmp_path, folder_config())
    options = yaml.safe_load((ROOT / f"workflow/profiles/{profile}/config.yaml").read_text())
    assert options["rerun-triggers"] == ["mtime", "params", "input"]
    assert project.plan("--workflow-profile", f"workflow/profiles/{profile}")["align"] == SHARDS + 2


def test_the_default_profile_is_the_workstations() -> None:
    """Only ``profiles/default`` is loaded without being named."""
    assert (ROOT / "profiles/default").resolve() == ROOT / "workflow/profiles/workstation"


def test_failed_stage_is_a_failed_job(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its messages go through a pipe to the log, which must not hide that it failed."""
    monkeypatch.setenv("FAILING_STAGE", "weights")
    shutil.rmtree(project.folder / "resources")
    done = project.attempt("--quiet", "rules", "--", "resources/weights/sface.safetensors")
    assert done.returncode != 0
    assert "CalledProcessError" in done.stdout
    assert not (project.folder / "resources/weights/sface.safetensors").exists()


def test_a_clock_that_jumped_is_made_good(project: Project) -> None:
    """Files of tomorrow, as a wrong clock left them, are told; what the guide says of them helps."""
    tomorrow = time.time() + 86400
    for path in (project.folder / "results/mine/aligned").iterdir():
        os.utime(path, (tomorrow, tomorrow))
    # Small files are compared by checksum; these stand for large ones.
    large = ("--max-checksum-file-size", "0")
    assert "clock skew" in project.attempt(*large).stdout
    guide = (ROOT / "docs/guide.md").read_text()
    (advice,) = re.findall(r"`(find results [^`]*)`", guide)
    subprocess.run(advice, shell=True, cwd=project.folder, check=True)
    assert not [p for p in (project.folder / "results").rglob("*") if p.stat().st_mtime > time.time()]
    assert "`snakemake --touch`" in guide
    project.snakemake("--touch", *large)
    assert project.plan(*large) == {}


def test_a_second_workflow_waits_outside(project: Project) -> None:
    """Two on one folder: the later one says so, and touches nothing."""
    shutil.rmtree(project.folder / "results")
    first = start(project.folder)
    locks = project.folder / ".snakemake/locks"
    while first.poll() is None and not (locks.is_dir() and any(locks.iterdir())):
        time.sleep(0.05)
    second = start(project.folder)
    try:
        assert second.wait(timeout=60) == 1
        assert first.poll() is None, "the first one was through before the second one could ask"
    finally:
        kill(first)
    said = (project.folder / LOG).read_text()
    assert "Directory cannot be locked" in said
    assert "--unlock" in said
