"""The experiments: whoever calls the commands of docs/experiments.md must not meet a refusal."""

import re
from pathlib import Path

import pytest

from remime.options import read_files, validate

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(ROOT.glob("experiments/*.yaml"))
# Laid over another experiment, not over config.yaml alone.
UPON = {"rendered.yaml": ["mapping.yaml"], "longer.yaml": ["mapping.yaml"]}


def layers(file):
    return [*(file.with_name(name) for name in UPON.get(file.name, [])), file]


@pytest.mark.parametrize("file", [*FILES, ROOT / "models/train.yaml"], ids=lambda file: file.name)
def test_it_can_be_run(file):
    assert validate(read_files([ROOT / "config.yaml", *layers(file)]), base=ROOT)


def test_the_shipped_models_can_be_trained_where_they_are_not(tmp_path):
    files = [ROOT / "config.yaml", ROOT / "models/train.yaml"]
    assert validate(read_files(files), base=tmp_path)
    calls = re.findall("^ *snakemake .*", (ROOT / "models/train.sh").read_text(), re.MULTILINE)
    assert calls
    assert all("--configfile models/train.yaml" in call for call in calls)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_it_names_its_command_which_the_docs_name_too(file):
    command = "snakemake --cores 2 --configfile " + " ".join(f"experiments/{f.name}" for f in layers(file))
    text = " ".join(line.removeprefix("# ") for line in file.read_text().splitlines())
    assert command in text
    assert command in (ROOT / "docs/experiments.md").read_text()
