"""Published checkpoints in the workflow: a generator, an inverter, pose and identity networks by name.

The files are written in their authors' formats with random values, so that the faces are none; what is tested
is that every stage takes them, and what is refused before anything runs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
import yaml

from remime import video
from remime.archive import LatentReader
from remime.weights.importing import import_file
from tests.unit.weights import official
from tests.workflow.project import ROOT
from tests.workflow.real import render

FRAMES, ROWS, RESOLUTION = 6, 4, 8
NETWORKS = ("mobile-ffhq", "dlib-landmarks-68", "lpips-alex", "face-mesh", "blendshapes")
CONFIG: dict[str, Any] = {
    # These three lines are what a default configuration changes.
    "generator": "stylegan2-ffhq-1024",
    "inverters": {
        "psp": {"method": "restyle-psp", "preset": "paper", "init": "restyle-psp-ffhq", "refinements": 1}
    },
    "models": {"linear": {"method": "linear", "inverter": "psp"}},
    "datasets": {
        "own": {"source": "folder", "path": "clips", "shards": 1, "select": {"min_frames": 2}},
    },
    "measure": {"pose": "hopenet", "identity": "ir-se50"},
    "score": {"pose": "hopenet", "identity": "arcface-tiny"},
    "protocols": {
        "cross": {"kind": "cross", "datasets": ["own"], "inverter": "psp", "split": "all", "pairs": 1},
        "self": {"kind": "self", "datasets": ["own"], "inverter": "psp", "split": "all", "pairs": 1},
    },
    "summarize": {"bootstrap": 10},
}


def _arcface_onnx(path: Path) -> Path:
    """A recogniser of InsightFace's form, as small as one can be."""
    onnx = pytest.importorskip("onnx")
    numbers = np.random.default_rng(0)
    weights = {
        "w": numbers.normal(size=(4, 3, 7, 7)),
        "g": numbers.normal(size=(64, 4 * 16 * 16)),
        "b": numbers.normal(size=64),
    }
    nodes = [
        onnx.helper.make_node("Conv", ["x", "w"], ["y"], strides=[7, 7]),
        onnx.helper.make_node("Flatten", ["y"], ["f"]),
        onnx.helper.make_node("Gemm", ["f", "g", "b"], ["out"], transB=1),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "g",
        [onnx.helper.make_tensor_value_info("x", 1, ["None", 3, 112, 112])],
        [onnx.helper.make_tensor_value_info("out", 1, [1, 64])],
        [onnx.numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 11)], ir_version=6)
    path.write_bytes(model.SerializeToString())
    return path


def _restyle(path: Path, generator: dict[str, torch.Tensor]) -> Path:
    state = {f"encoder.{k}": v for k, v in official.encoder(False, ROWS).items()}
    state |= {f"decoder.{k}": v for k, v in official.rosinality_state(generator).items()}
    average = generator["mapping.w_avg"].repeat(ROWS, 1)
    options = {"encoder_type": "BackboneEncoder", "output_size": RESOLUTION, "n_iters_per_batch": 5}
    return official.save(path, {"state_dict": state, "latent_avg": average, "opts": options})


def _hopenet(path: Path) -> Path:
    state = official.resnet50()
    for head in ("fc_yaw", "fc_pitch", "fc_roll"):
        state |= {
            f"{head}.weight": torch.zeros(66, 2048),
            f"{head}.bias": 9 * F.one_hot(torch.tensor(33), 66).float(),
        }
    return official.save(path, state, legacy=True)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, weights: Callable[[str], Any]) -> Path:
    """The workflow's folder with imported checkpoints and two generated people."""
    for name in NETWORKS:
        weights(name)
    folder = tmp_path_factory.mktemp("imported")
    for name in ("Snakefile", "workflow", "src", "envs", "profiles", "models"):
        (folder / name).symlink_to(ROOT / name)
    held = folder / "resources" / "weights"
    held.mkdir(parents=True)
    known = Path(os.environ["REMIME_WEIGHTS"])
    for name in NETWORKS:
        for suffix in (".safetensors", ".json"):
            (held / f"{name}{suffix}").symlink_to((known / f"{name}{suffix}").resolve())
    (held / "originals").symlink_to((known / "originals").resolve())
    render(folder / "clips", ("anna", "berta"), FRAMES)
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    generator = official.nvidia_generator(RESOLUTION)
    for path, name in (
        (official.tensorflow_pickle(folder / "config-f.pkl", generator), "stylegan2-ffhq-1024"),
        (_restyle(folder / "restyle.pt", generator), "restyle-psp-ffhq"),
        (_hopenet(folder / "hopenet.pkl"), "hopenet"),
        (official.save(folder / "ir.pth", official.arcface()), "ir-se50"),
        (_arcface_onnx(folder / "tiny.onnx"), "arcface-tiny"),
    ):
        import_file(path, name, directory=held)
        path.unlink()
    return folder


def _snakemake(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "REMIME_WEIGHTS": str(folder / "resources" / "weights"),
    }
    return subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "1", *arguments],
        cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip


def test_the_whole_workflow(project: Path) -> None:
    done = _snakemake(project, "--quiet", "rules")
    assert done.returncode == 0, done.stdout[-6000:]
    shard = project / "results/own/latents/psp/0000-of-0001.h5"
    with LatentReader(shard) as latents:
        rows = np.asarray(latents.latents[:])
    state, average = official.encoder(False, ROWS), official.nvidia_generator(RESOLUTION)["mapping.w_avg"]
    offsets = torch.stack([state[f"styles.{row}.linear.bias"] for row in range(ROWS)])
    torch.testing.assert_close(torch.from_numpy(rows), (average + offsets).expand(2 * FRAMES, -1, -1))
    card = (project / "results/models/psp/card.md").read_text()
    assert "Imported from restyle.pt" in card
    films = sorted((project / "results/benchmarks").rglob("videos/*/*.mp4"))
    assert len(films) == 2
    for film in films:
        frames = [frame.image for frame in video.read(film)]
        assert len(frames) == FRAMES
        assert frames[0].shape == (256, 256, 3)
    table = project / "results/benchmarks/self/linear/scores/0000-of-0001.parquet"
    networks = {row["metric"]: row["networks"] for row in pq.read_table(table).to_pylist()}
    assert "arcface-tiny" in networks["csim"]
    assert "hopenet" in networks["pose_mae"]
    page = (project / "results/report/index.html").read_text()
    for told in ("stylegan2-ffhq-1024", "NVIDIA Source Code License-NC", "restyle-psp-ffhq", "tiny.onnx"):
        assert told in page
    # What was imported is nobody's output: it is neither made again nor removed.
    again = _snakemake(project, "--dry-run")
    assert "Nothing to be done" in again.stdout, again.stdout[-2000:]
    forced = _snakemake(project, "--dry-run", "--forceall")
    assert "network=lpips-alex" in forced.stdout
    assert "network=stylegan2" not in forced.stdout


def _refused(project: Path, change: dict[str, Any]) -> str:
    changed = project / "changed.yaml"
    changed.write_text(yaml.safe_dump(change))
    done = _snakemake(project, "--dry-run", "--configfile", str(changed))
    assert done.returncode
    return done.stdout


def test_what_belongs_to_another_generator_is_refused_at_once(project: Path) -> None:
    said = _refused(
        project,
        {
            "datasets": {"puppets": {"source": "puppets"}},
            "inverters": {"small": {"method": "restyle-psp", "preset": "small",
                                    "init": "models/restyle-psp-small.safetensors"}},
            "models": {"moved": {"method": "linear", "inverter": "small"}},
            "protocols": {"self": {"datasets": ["own", "puppets"]}},
        },
    )  # fmt: skip
    assert "datasets.puppets: puppets need motion directions of their own generator" in said
    assert (
        "inverters.small.init: 'models/restyle-psp-small.safetensors' was trained for the generator" in said
    )


def test_a_missing_file_is_told_with_where_to_get_it(project: Path) -> None:
    said = _refused(
        project, {"inverters": {"psp": {"method": "e4e", "init": "e4e-ffhq", "refinements": None}}}
    )
    assert "inverters.psp" in said
    change = {"inverters": {"other": {"method": "e4e", "init": "e4e-ffhq"}}}
    said = _refused(project, change)
    assert (
        "inverters.other.init: 'e4e-ffhq' has to be brought by hand: get e4e_ffhq_encode.pt (1,202 MB)"
        in said
    )
    assert "remime weights import FILE --name e4e-ffhq" in said


def test_a_checkpoint_of_another_generator_is_refused(project: Path) -> None:
    held = project / "resources" / "weights"
    other = official.nvidia_generator(RESOLUTION, seed=1)
    path = _restyle(project / "other.pt", other)
    import_file(path, "other-inverter", directory=held)
    path.unlink()
    change = {"inverters": {"psp": {"init": "other-inverter"}}}
    told = "inverters.psp.init: 'other-inverter' was trained for another generator"
    assert told in _refused(project, change)
    # Even where the description does not tell, the stage does.
    description = held / "other-inverter.json"
    meta = json.loads(description.read_text())
    del meta["fingerprint"]
    description.write_text(json.dumps(meta))
    (project / "changed.yaml").write_text(yaml.safe_dump(change))
    done = _snakemake(project, "--configfile", "changed.yaml", "--", "results/models/psp/model.safetensors")
    assert done.returncode
    assert "was trained for another generator than 'stylegan2-ffhq-1024'" in done.stdout
    for suffix in (".json", ".safetensors"):
        (held / f"other-inverter{suffix}").unlink()
