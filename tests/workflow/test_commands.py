"""The command lines of the rules are those that the stages understand."""

from __future__ import annotations

import argparse
import importlib
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from remime.versions import STAGES
from tests.workflow.project import ROOT, Project


class Called(Exception):
    """A stage's command line was understood; its work would begin."""


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[list[str]]]:
    """The arguments of all jobs of the default configuration and more, by stage."""
    folder = tmp_path_factory.mktemp("project")
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    (folder / "own clips").mkdir()
    (folder / "own clips" / "it's ü.mp4").touch()
    config["datasets"]["own"] = {"source": "folder", "path": "own clips", "terms": 'mine; "all" $rights'}
    (folder / "celebvhq_info.json").write_text("{}")
    config["datasets"]["real"] = {"source": "celebv_hq", "mode": "download", "metadata": "celebvhq_info.json"}
    config["protocols"]["cross"]["datasets"] += ["own", "real"]
    config["datasets"]["people"] = {"source": "heads", "shards": 1, "shared_motions": True}
    config["protocols"]["truth"] = {"kind": "truth", "datasets": ["people"], "inverter": "psp"}
    config["models"]["mapping"]["train"]["same_motion"] = ["people"]
    config["models"]["mapping"]["train"]["losses"]["same_motion"] = 1.0
    (folder / "their's $videos").mkdir()
    config["external"] = {"theirs": {"path": "their's $videos", "title": 'it\'s "theirs"'}}
    text = Project(folder, config).snakemake("--dry-run", "--printshellcmds")
    found: dict[str, list[list[str]]] = {stage: [] for stage in STAGES}
    for line in re.findall(r"python -m (remime\.stages\.\w+ .*) 2>&1 \| tee -i", text):
        module, *arguments = shlex.split(line)
        found[module.rpartition(".")[2]].append(arguments)
    return found


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_a_stage_understands_its_command_lines(
    commands: dict[str, list[list[str]]], stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module(f"remime.stages.{stage}")
    told: list[argparse.Namespace] = []
    parse = argparse.ArgumentParser.parse_args

    def remember(self: argparse.ArgumentParser, *arguments: Any) -> argparse.Namespace:
        told.append(parse(self, *arguments))
        raise Called

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", remember)
    assert commands[stage], f"no job of {stage}"
    for arguments in commands[stage]:
        monkeypatch.setattr("sys.argv", [stage, *arguments])
        with pytest.raises(Called):
            module.main()
    # An option that a stage does not know would have no effect. Sources and methods have their own.
    known = getattr(module, "OPTIONS", None)
    if stage not in ("train", "reenact", "manifest", "collect") and known is not None:
        unknown = {key for namespace in told for key in namespace.options if key not in known}
        assert not unknown, f"{stage} is told {sorted(unknown)} and knows {sorted(known)}"


def test_options_survive_the_shell(commands: dict[str, list[list[str]]]) -> None:
    manifest = next(line for line in commands["manifest"] if "own" in line)
    options = json.loads(manifest[manifest.index("--options") + 1])
    assert (options["path"], options["terms"]) == ("own clips", 'mine; "all" $rights')
    external = commands["external"][0]
    assert external[external.index("--folder") + 1] == "their's $videos"
    assert json.loads(external[external.index("--options") + 1])["title"] == 'it\'s "theirs"'


def test_only_downloads_are_told_how(commands: dict[str, list[list[str]]]) -> None:
    told = [line[line.index("--transport") + 1] for line in commands["collect"] if "--transport" in line]
    assert len(told) == 1
    assert json.loads(told[0])["url"] == "https://www.youtube.com/watch?v={video}"


def test_command_lines_stay_short(commands: dict[str, list[list[str]]]) -> None:
    """A job with 1024 shards needs no longer line; the system allows 128 KiB for one."""
    for lines in commands.values():
        for arguments in lines:
            assert not any(re.search(r"\d{4}-of-\d{4}.*\d{4}-of-\d{4}", text) for text in arguments)
            assert len(" ".join(arguments)) < 4000


def test_stage_modules_can_be_run(tmp_path: Path) -> None:
    for stage in STAGES:
        text = (ROOT / f"src/remime/stages/{stage}.py").read_text()
        assert text.rstrip().endswith('if __name__ == "__main__":\n    entry(main)'), stage
