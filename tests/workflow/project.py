"""A copy of the workflow in a folder of its own, with stages that only write files."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
STUB = Path(__file__).with_name("stub.py")


def render(folder: Path, people: Sequence[str], frames: int) -> None:
    """Clips of generated people, 256², one folder each; it takes the networks."""
    from remime.sources import Clip
    from remime.sources.puppets import collector

    make = collector({})
    for person in people:
        target = folder / person
        target.mkdir(parents=True)
        described = {
            "identity": person, "motion": person, "frames": frames, "fps": 25, "size": 256, "truncation": 0.5,
            "amplitude": 1.0, "generator": "mobile-ffhq",
        }  # fmt: skip
        clip = Clip(
            clip="talk", video="talk", identity=person, split="train", kind="render",
            path=json.dumps(described), terms="",
        )  # fmt: skip
        for path in make(clip, target):
            if path.suffix == ".npz":
                path.unlink()


class Project:
    """The workflow in an empty folder.

    Args:
        folder: where it runs; what it reads lies there as links to this checkout.
        config: laid over a small configuration without any of the default entries.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        self.folder = folder
        for name in ("Snakefile", "workflow", "src", "envs", "profiles"):
            (folder / name).symlink_to(ROOT / name)
        (folder / "models").mkdir()
        for name in ("mobile-preview", "puppet-directions"):
            (folder / "models" / f"{name}.safetensors").touch()
        (folder / "bin").mkdir()
        python = folder / "bin" / "python"
        python.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E {STUB} "$@"\n')
        python.chmod(0o755)
        self.configure(config)

    def configure(self, config: Mapping[str, Any]) -> None:
        """Write ``config.yaml`` and the start weights that it names."""
        (self.folder / "config.yaml").write_text(yaml.safe_dump(dict(config)))
        for section in ("inverters", "models"):
            for entry in config.get(section, {}).values():
                if isinstance(entry, dict) and entry.get("init"):
                    (self.folder / entry["init"]).touch()

    def snakemake(self, *arguments: str) -> str:
        """Run Snakemake and return all that it said; AssertionError when it fails."""
        done = self.attempt(*arguments)
        assert done.returncode == 0, done.stdout[-4000:]
        return done.stdout

    def attempt(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Snakemake; its output is all in ``stdout``."""
        environment = os.environ | {
            "PATH": f"{self.folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "REAL_PYTHON": sys.executable,
            "OMP_NUM_THREADS": "1",
        }
        return subprocess.run(
            [sys.executable, "-m", "snakemake", "--cores", "4", "--nolock", *arguments],
            cwd=self.folder,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            timeout=600,
        )

    def run(self) -> None:
        """What ``make run`` does."""
        self.snakemake("--quiet", "all", "--", "shards")
        self.snakemake("--quiet", "all")

    def plan(self, *arguments: str) -> dict[str, int]:
        """How many jobs of each rule a run would start."""
        text = self.snakemake("--dry-run", "--quiet", "rules", *arguments)
        table = re.search(r"Job stats:\n(.*?)\ntotal", text, re.DOTALL)
        if table is None:
            assert "Nothing to be done" in text, text[-2000:]
            return {}
        rows = (line.split() for line in table.group(1).splitlines()[2:])
        return {name: int(count) for name, count in rows if name not in ("all", "shards")}


def small_config(**datasets: Mapping[str, Any]) -> dict[str, Any]:
    """Every kind of thing that the workflow knows, as small as it gets."""
    names = list(datasets)
    return {
        "datasets": dict(datasets),
        "inverters": {
            "psp": {"method": "restyle-psp", "preset": "small", "init": "models/psp.safetensors"},
            "e4e": {"method": "restyle-e4e", "preset": "small", "init": "models/e4e.safetensors"},
        },
        "models": {
            "linear-psp": {"method": "linear", "inverter": "psp"},
            "linear-e4e": {"method": "linear", "inverter": "e4e"},
            "mapping": {
                "method": "mapping",
                "inverter": "psp",
                "train": {"datasets": names, "steps": 1},
            },
        },
        "protocols": {
            "cross": {"kind": "cross", "datasets": names[:1], "inverter": "psp"},
            "self": {"kind": "self", "datasets": names[:1], "inverter": "psp", "models": ["mapping"]},
        },
    }
