"""A run of the whole workflow with the real networks on tiny clips."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from remime.sources import Clip
from remime.sources.puppets import collector
from tests.workflow.project import ROOT

FRAMES = 8
PEOPLE = ("anna", "berta", "carla", "dora")
NETWORKS = ("mobile-ffhq", "dlib-landmarks-68", "dlib-resnet-id", "sface", "hopenet-lite", "lpips-alex")
MESH = ("face-mesh", "blendshapes")
CONFIG = {
    "datasets": {
        "own": {
            "source": "folder",
            "path": "clips",
            "shards": 2,
            "select": {"min_frames": 2, "sample_interval": 0.1},
        },
        "puppets": {
            "source": "puppets",
            "identities": 3,
            "frames": 6,
            "size": 256,
            "shards": 1,
            "select": {"min_frames": 2, "sample_interval": 0.04},
        },
    },
    "inverters": {
        "psp": {
            "method": "restyle-psp",
            "preset": "small",
            "refinements": 1,
            "init": "models/restyle-psp-small.safetensors",
        },
    },
    "models": {
        "linear-psp": {"method": "linear", "inverter": "psp"},
        "mapping": {
            "method": "mapping",
            "preset": "small",
            "inverter": "psp",
            "init": "models/mapping-small.safetensors",
            "train": {
                "datasets": ["own", "puppets"],
                "steps": 4,
                "batch": 1,
                "validate_every": 2,
                "checkpoint_every": 1,
            },
        },
    },
    "protocols": {
        "cross": {"kind": "cross", "datasets": ["own"], "inverter": "psp", "split": "all", "pairs": 2},
        "self": {
            "kind": "self",
            "datasets": ["own"],
            "inverter": "psp",
            "split": "all",
            "pairs": 1,
            "models": ["mapping"],
        },
    },
    "summarize": {"bootstrap": 100},
}


def render(folder: Path, people: Sequence[str] = PEOPLE, frames: int = FRAMES) -> None:
    """Clips of generated people, 256², one folder each; it takes the networks."""
    collected = collector({}, {})
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
        with collected.video([clip], folder) as make:
            paths = make(clip, target)
        for path in paths:
            if path.suffix == ".npz":
                path.unlink()


def render_all(folder: Path) -> None:
    """The clips of ``CONFIG``, and a file that is no video."""
    render(folder)
    (folder / PEOPLE[0] / "broken.mp4").write_text("not a video")


def make_project(folder: Path, clips: Path | None, config: Mapping[str, Any] = CONFIG) -> Path:
    """A folder to run the workflow in, on the clips of another."""
    folder.mkdir()
    for name in ("Snakefile", "workflow", "src", "envs", "profiles", "models", "resources"):
        (folder / name).symlink_to(ROOT / name)
    if clips is not None:
        (folder / "clips").symlink_to(clips)
    (folder / "config.yaml").write_text(yaml.safe_dump(dict(config)))
    return folder
