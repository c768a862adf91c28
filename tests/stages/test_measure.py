"""The stage measure: rows for every frame, resuming, and plausible figures on a real face."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from remime.archive import AlignedWriter, encode_jpeg
from remime.errors import InputError
from remime.faces import alignment
from remime.faces.mesh import BLENDSHAPES, MeshResult
from remime.stages import measure
from remime.tables import read_meta, read_table
from tests import clips


def aligned_portrait(size: int = 256) -> np.ndarray:
    return alignment.warp(clips.portrait(), alignment.quad(clips.LANDMARKS), size)[0]


def shard(path: Path, *counts: int, size: int = 64) -> Path:
    """A shard of clips with so many frames; every fifth is interpolated."""
    image = aligned_portrait(size)
    with AlignedWriter(path, {"resolution": size}) as writer:
        for i, n in enumerate(counts):
            frames = [encode_jpeg(np.roll(image, j, axis=1)) for j in range(n)]
            interpolated = np.arange(n) % 5 == 4
            writer.add_clip(
                *(f"clip-{i}", 25, "x", frames, np.zeros((n, 68, 2))),
                *(np.zeros((n, 2, 3)), np.arange(n) / 25, interpolated),
            )
    return path


def fake_networks(options: object) -> measure.Networks:
    """Networks whose answers depend on the image in a known way."""

    def pose(images: torch.Tensor) -> torch.Tensor:
        return torch.stack([images[:, c].mean((1, 2)) for c in range(3)], 1) * 10

    def mesh(images: torch.Tensor) -> MeshResult:
        n = len(images)
        scores = torch.where(images.mean((1, 2, 3)) > -0.9, 0.99, 0.01)
        return MeshResult(torch.zeros(n, 478, 3), scores, images.mean((1, 2, 3))[:, None].expand(n, 52).abs())

    def embed(images: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(images.flatten(1)[:, ::7], dim=1)

    return measure.Networks(pose, mesh, embed, torch.device("cpu"))


@pytest.fixture
def networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "load_networks", fake_networks)


@pytest.mark.usefixtures("networks")
@pytest.mark.parametrize("batch", [1, 4, 64])
def test_a_row_for_every_frame(tmp_path: Path, batch: int) -> None:
    aligned = shard(tmp_path / "a.h5", 7, 0, 3)
    assert measure.run(aligned, tmp_path / "m.parquet", tmp_path / "state", {"batch": batch}) == 10
    rows = read_table(tmp_path / "m.parquet", "measured").to_pylist()
    assert [(r["clip"], r["frame"], r["row"]) for r in rows] == [
        *(("clip-0", i, i) for i in range(7)),
        *(("clip-2", i, 7 + i) for i in range(3)),
    ]
    assert [r["time"] for r in rows[:7]] == pytest.approx([i / 25 for i in range(7)])
    assert [i for i, r in enumerate(rows) if not r["detected"]] == [4]
    image = torch.from_numpy(aligned_portrait(64)).float() / 127.5 - 1
    assert rows[0]["yaw"] == pytest.approx(float(image[..., 0].mean()) * 10, abs=0.1)
    assert rows[0]["roll"] == pytest.approx(float(image[..., 2].mean()) * 10, abs=0.1)
    assert len(rows[0]["blendshapes"]) == len(BLENDSHAPES)
    assert np.linalg.norm(rows[0]["identity_vector"]) == pytest.approx(1, abs=1e-5)
    assert read_meta(tmp_path / "m.parquet")["networks"]["identity"] == "sface"
    assert not (tmp_path / "state").exists()


@pytest.mark.usefixtures("networks")
def test_a_frame_without_a_face_is_not_detected(tmp_path: Path) -> None:
    with AlignedWriter(tmp_path / "a.h5", {"resolution": 64}) as writer:
        black = [encode_jpeg(np.zeros((64, 64, 3), np.uint8))]
        none = np.zeros(1, bool)
        writer.add_clip("a", 25, "x", black, np.zeros((1, 68, 2)), np.zeros((1, 2, 3)), np.zeros(1), none)
    measure.run(tmp_path / "a.h5", tmp_path / "m.parquet", tmp_path / "state", {})
    [row] = read_table(tmp_path / "m.parquet", "measured").to_pylist()
    assert not row["detected"]


@pytest.mark.parametrize("size", [128, 256, 512])
def test_sharpness_falls_with_blur_at_every_size(size: int) -> None:
    image = aligned_portrait(size)
    values = [
        measure.sharpness(np.asarray(cv2.GaussianBlur(image, (0, 0), s * size / 256), np.uint8))
        for s in (0.5, 1, 2, 4)
    ]
    assert values == sorted(values, reverse=True)
    assert values[0] > 5 * values[-1]


def test_sharpness_does_not_look_at_hair_and_background() -> None:
    image = aligned_portrait()
    other = image.copy()
    other[:50] = np.random.default_rng(0).integers(0, 255, other[:50].shape)
    assert measure.sharpness(other) == measure.sharpness(image)


@pytest.mark.usefixtures("networks")
def test_resuming_measures_only_what_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    aligned, state = shard(tmp_path / "a.h5", 3, 4, 2), tmp_path / "state"
    original, done = measure._rows, []

    def failing(reader: object, clip: measure.ClipEntry, *rest: object) -> list[dict]:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(clip.id)
        return original(reader, clip, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(measure, "_rows", failing)
    with pytest.raises(KeyboardInterrupt):
        measure.run(aligned, tmp_path / "m.parquet", state, {})
    parts = sorted(state.glob("*.parquet"))
    assert len(parts) == 2
    parts[0].write_bytes(parts[0].read_bytes()[:200])

    done.clear()
    monkeypatch.setattr(measure, "_rows", lambda r, c, *rest: done.append(c.id) or original(r, c, *rest))
    assert measure.run(aligned, tmp_path / "m.parquet", state, {}) == 9
    assert len(done) == 2  # the damaged one and the one that was not reached
    measure.run(aligned, tmp_path / "whole.parquet", tmp_path / "other", {})
    assert read_table(tmp_path / "m.parquet", "measured").equals(
        read_table(tmp_path / "whole.parquet", "measured")
    )


@pytest.mark.usefixtures("networks")
def test_parts_of_other_frames_or_options_are_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state"
    monkeypatch.setattr(measure, "concat", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        measure.run(shard(tmp_path / "a.h5", 3), tmp_path / "m.parquet", state, {})
    monkeypatch.undo()
    done: list[str] = []
    original = measure._rows
    monkeypatch.setattr(measure, "load_networks", fake_networks)
    monkeypatch.setattr(measure, "_rows", lambda r, c, *rest: done.append(c.id) or original(r, c, *rest))
    measure.run(shard(tmp_path / "a.h5", 4), tmp_path / "m.parquet", state, {})
    assert done == ["clip-0"]
    assert read_table(tmp_path / "m.parquet", "measured").num_rows == 4


def test_bad_input_is_refused(tmp_path: Path) -> None:
    run = measure.run
    with pytest.raises(InputError, match=r"measure: batsch(.|\n)*batch"):
        run(tmp_path / "a.h5", tmp_path / "m.parquet", tmp_path / "state", {"batsch": 3})
    with pytest.raises(InputError, match=r"mesh.*'other'"):
        run(tmp_path / "a.h5", tmp_path / "m.parquet", tmp_path / "state", {"mesh": "other"})
    with pytest.raises(InputError, match=r"a\.h5.*does not exist"):
        run(tmp_path / "a.h5", tmp_path / "m.parquet", tmp_path / "state", {})
    shard(tmp_path / "a.h5", 5)
    data = (tmp_path / "a.h5").read_bytes()
    (tmp_path / "a.h5").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"a\.h5.*damaged"):
        run(tmp_path / "a.h5", tmp_path / "m.parquet", tmp_path / "state", {})


@pytest.mark.weights
def test_a_real_face_and_kill_in_between(tmp_path: Path, weights: Callable) -> None:
    """With the real networks, in a process that is killed after its first clip and started again."""
    for name in ("hopenet-lite", "sface", "face-mesh", "blendshapes"):
        weights(name)
    aligned, state = shard(tmp_path / "a.h5", 2, 12, size=256), tmp_path / "state"
    command = [sys.executable, "-m", "remime.stages.measure", "--options", '{"batch": 1}']
    command += ["--aligned", str(aligned), "--output", str(tmp_path / "m.parquet"), "--state", str(state)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not list(state.glob("[!.]*.parquet")) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = {path: path.stat().st_mtime_ns for path in state.glob("[!.]*.parquet")}
    assert kept
    assert not (tmp_path / "m.parquet").exists()

    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = read_table(tmp_path / "m.parquet", "measured").to_pylist()
    assert len(rows) == 14
    straight, smile = rows[0], BLENDSHAPES.index("mouthSmileLeft")
    assert straight["detected"]
    assert max(abs(straight["yaw"]), abs(straight["pitch"])) < 25
    assert straight["blendshapes"][smile] > 0.5  # she smiles
    same = np.dot(rows[0]["identity_vector"], rows[1]["identity_vector"])
    assert same > 0.9
