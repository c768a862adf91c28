"""A published dataset from a server on this machine to aligned frames, by the workflow itself."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from remime.archive import AlignedReader
from remime.layout import Dataset
from remime.reporting.inventory import inventory
from remime.tables import read_table
from tests import clips
from tests.server import VideoServer, serving
from tests.unit.sources.test_hdtf import write_group
from tests.workflow.project import ROOT, small_config

pytestmark = pytest.mark.weights
SPEAKER, GONE, CUT = "SPEAKERone1", "GONEgoneGON", "SCENESscene"
SIZE, FPS = 480, 25
# The head, as the authors' boxes hold it: the still's face lies around the middle.
BOX = f"{SIZE // 4} {SIZE // 2} {SIZE // 4} {SIZE // 2}"
METADATA = {
    "video_url": "".join(
        f"{name} https://www.youtube.com/watch?v={video}\n"
        for name, video in (("Anna0", SPEAKER), ("Bob0", GONE), ("Cleo0", CUT))
    ),
    "resolution": "".join(f"{name}.mp4 {SIZE}\n" for name in ("Anna0", "Bob0", "Cleo0")),
    "annotion_time": "Anna0.mp4 00:01-00:03 00:10-00:12\nBob0.mp4 00:01-00:03\nCleo0.mp4 00:00-00:02\n",
    "crop_wh": "".join(f"{name}_{i}.mp4 {BOX}\n" for name in ("Anna0", "Bob0", "Cleo0") for i in (0, 1)),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VideoServer]:
    """A speaker of 13 s, and a video whose scene changes after one second."""
    pytest.importorskip("yt_dlp")
    folder = tmp_path_factory.mktemp("served")
    codec = ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", 16, "-g", 100, "-preset", "superfast")
    face = clips.moving_face(FPS, size=SIZE, scale=1.6)
    clips.encode(folder / f"{SPEAKER}.mp4", face * 13, FPS, codec)
    dark = [255 - frame for frame in clips.moving_face(FPS, size=SIZE, scale=1.3)]
    clips.encode(folder / f"{CUT}.mp4", [*dark, *face, *face], FPS, codec)
    with serving(folder) as running:
        yield running


@pytest.fixture(scope="module")
def project(server: VideoServer, tmp_path_factory: pytest.TempPathFactory, weights: Any) -> Path:
    """A project whose dataset is aligned."""
    weights("dlib-landmarks-68")
    folder = tmp_path_factory.mktemp("project")
    for name in ("Snakefile", "workflow", "src", "envs", "profiles", "models", "resources"):
        (folder / name).symlink_to(ROOT / name)
    write_group(folder / "HDTF_dataset", "WDA", **METADATA)
    entry: dict[str, Any] = {"source": "hdtf", "mode": "download", "metadata": "HDTF_dataset", "shards": 2}
    entry["download"] = {"url": server.url, "pause": 0.1, "min_height": 100}
    (folder / "config.yaml").write_text(yaml.safe_dump(start_weights(small_config(real=entry))))
    snakemake(folder, *(path for path in Dataset(Path("results/real"), 2).shard_names))
    return folder


def start_weights(config: dict[str, Any]) -> dict[str, Any]:
    for name in ("psp", "e4e"):
        config["inverters"][name]["init"] = f"models/restyle-{name}-small.safetensors"
    return config


def snakemake(folder: Path, *shards: str) -> str:
    targets = [str(Dataset(Path("results/real"), 2).status(shard)) for shard in shards]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "1", "--nolock", *targets],
        cwd=folder,
        env=os.environ | {"TMPDIR": str(folder), "PATH": path},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def found(project: Path) -> dict[str, dict[str, Any]]:
    dataset = Dataset(project / "results" / "real", 2)
    rows = [row for s in dataset.shard_names for row in read_table(dataset.status(s), "status").to_pylist()]
    return {row["clip"]: row for row in rows}


def test_every_clip_has_frames_or_a_reason(found: dict[str, dict[str, Any]]) -> None:
    statuses = {clip: row["status"] for clip, row in found.items()}
    assert statuses == {"Anna0_0": "ok", "Anna0_1": "ok", "Bob0_0": "removed", "Cleo0_0": "ok"}
    assert (found["Anna0_0"]["frames"], found["Anna0_0"]["fps"]) == (2 * FPS, FPS)
    assert "404" in found["Bob0_0"]["detail"]


def test_a_scene_cut_inside_a_clip_ends_its_track(found: dict[str, dict[str, Any]]) -> None:
    row = found["Cleo0_0"]
    assert row["cuts"] == 1
    assert row["frames"] <= FPS


def test_frames_look_like_those_of_the_file_itself(project: Path, server: VideoServer) -> None:
    """Cut and crop change nothing: the same frames as aligned straight from the served file."""
    from remime.archive import decode_jpeg
    from remime.faces.front import AlignOptions, align_clip
    from remime.video import read

    direct = list(align_clip(read(server.folder / f"{SPEAKER}.mp4", 10.0, 12.0), AlignOptions()))
    dataset = Dataset(project / "results" / "real", 2)
    for shard in dataset.shard_names:
        with AlignedReader(dataset.aligned(shard)) as reader:
            if (clip := reader.by_id.get("Anna0_1")) is None:
                continue
            assert clip.count == len(direct)
            for row, frame in zip(clip.rows, direct, strict=True):
                image = decode_jpeg(reader.file["frames"][row]).astype(float)
                points = reader.file["landmarks"][row]
                assert np.abs(points - frame.landmarks).mean() < 1.5
                assert np.abs(image - frame.image).mean() < 6
            return
    pytest.fail("the clip is in no shard")


def test_the_inventory_tells_it_all(project: Path) -> None:
    counts = inventory(Dataset(project / "results" / "real", 2))
    assert (counts.asked.clips, counts.got.clips, counts.lost) == (4, 3, {"removed": 1})
    assert counts.asked.hours == pytest.approx(8 / 3600)
    assert (counts.asked.identities, counts.got.identities, counts.lines) == (3, 2, {480: 3})


def test_a_second_run_asks_for_nothing(project: Path, server: VideoServer, found: Any) -> None:
    before = dict(server.asked)
    assert "Nothing to be done" in snakemake(project, *Dataset(Path("results/real"), 2).shard_names)
    assert dict(server.asked) == before
    status = (project / "results/real/clips").glob("*.status.tsv")
    rows = [row for path in status for row in csv.DictReader(path.open(), dialect="excel-tab")]
    assert {row["clip"] for row in rows} == set(found)
