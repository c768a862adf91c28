"""The stage align on real files: every clip ends with frames or a status, and no work is ever lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from remime.archive import AlignedReader
from remime.errors import InputError
from remime.sources import Clip, write_clips
from remime.stages import align
from remime.tables import read_table
from tests import clips

OPTIONS = {"size": 64, "detect_size": 320}
pytestmark = pytest.mark.weights


@pytest.fixture(autouse=True)
def _predictor(weights: Callable) -> None:
    weights("dlib-landmarks-68")


def clip(path: Path, name: str = "", **fields: object) -> Clip:
    name = name or path.stem.replace(" ", "_")
    return Clip(name, name, f"who-{name}", "train", "video", str(path), **fields)  # type: ignore[arg-type]


class Job:
    """A shard's files in a folder."""

    def __init__(self, folder: Path, listed: Sequence[Clip]) -> None:
        self.clips, self.output = folder / "clips.tsv", folder / "aligned" / "0000-of-0001.h5"
        self.status, self.state = folder / "aligned" / "0000-of-0001.status.parquet", folder / "state"
        write_clips(self.clips, listed)

    def run(self, **options: object) -> dict[str, align.Outcome]:
        return align.run(self.clips, self.output, self.status, self.state, {**OPTIONS, **options})

    def command(self, **options: object) -> list[str]:
        files = {"clips": self.clips, "output": self.output, "status": self.status, "state": self.state}
        arguments = [text for name, path in files.items() for text in (f"--{name}", str(path))]
        command = [sys.executable, "-m", "remime.stages.align", *arguments]
        return [*command, "--options", json.dumps({**OPTIONS, **options})]

    def rows(self) -> dict[str, dict]:
        return {row["clip"]: row for row in read_table(self.status, "status").to_pylist()}


def face_clip(path: Path, n: int = 10, **how: object) -> Path:
    return clips.encode(path, clips.moving_face(n, 192, scale=0.9, swing=6), **how)  # type: ignore[arg-type]


def test_every_clip_ends_with_frames_or_a_status(tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    face_clip(folder / "ünï cödé.mp4")
    Image.fromarray(clips.view(1.0, size=200)).save(folder / "still.png")
    clips.encode(folder / "wall.mp4", clips.no_face(9))
    clips.encode(folder / "tiny.mp4", [np.zeros((8, 8, 3), np.uint8)] * 5)
    clips.encode(folder / "far.mp4", [clips.view(0.5, size=192)] * 3)
    clips.encode(folder / "one.mp4", clips.moving_face(1, 192, scale=0.9))
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("not a video\n" * 100)
    clips.tone(folder / "sound.mp4")
    listed = [clip(path) for path in sorted(folder.iterdir())] + [clip(folder / "gone.mp4")]
    job = Job(tmp_path, listed)

    outcomes = job.run(min_frames=1, min_face=80)
    statuses = {name: outcome.status for name, outcome in outcomes.items()}
    assert statuses == {
        "ünï_cödé": "ok",
        "still": "ok",
        "one": "ok",
        "wall": "no_face",
        "tiny": "too_small",
        "far": "too_small",
        "empty": "unreadable",
        "text": "unreadable",
        "sound": "unreadable",
        "gone": "unreadable",
    }
    rows = job.rows()
    assert {name: row["status"] for name, row in rows.items()} == statuses
    assert all(row["detail"] for row in rows.values() if row["status"] != "ok")
    assert "only sound" in rows["sound"]["detail"]
    with AlignedReader(job.output) as reader:
        assert {entry.id: entry.count for entry in reader.clips} == {"ünï_cödé": 10, "still": 1, "one": 1}
        assert reader.resolution == 64
        assert reader.options["size"] == 64
        for entry in reader.clips:
            assert entry.identity == f"who-{entry.id}"
            assert rows[entry.id]["frames"] == entry.count
            eyes = reader.landmarks[entry.first][36:48].mean(0)
            # FFHQ puts the eyes a little above the middle.
            np.testing.assert_allclose(eyes, [31.5, 30.5], atol=2.5)
        frames = reader.frames(range(len(reader)))
        assert frames.shape == (12, 64, 64, 3)
        rows = reader.by_id["ünï_cödé"].rows
        np.testing.assert_allclose(reader.time[rows.start : rows.stop], np.arange(10) / 25, atol=1e-3)
    assert not job.state.exists()

    assert job.run(min_frames=2, min_face=80)["one"].status == "too_short"


def test_aligned_frames_show_the_source(tmp_path: Path) -> None:
    """The stored transform takes a pixel of the source to the same colour in the aligned frame."""
    path = tmp_path / "a.png"
    Image.fromarray(clips.portrait()).save(path)
    job = Job(tmp_path, [clip(path)])
    job.run(size=256)
    with AlignedReader(job.output) as reader:
        frame, transform = reader.frame(0), reader.transform[0]
    expected = cv2.warpAffine(clips.portrait(), transform, (256, 256), flags=cv2.INTER_CUBIC)
    assert np.abs(frame.astype(float) - expected).mean() < 3


def test_cuts_boxes_and_rotation_reach_the_frames(tmp_path: Path) -> None:
    pair = [
        np.hstack([a, b])
        for a, b in zip(clips.no_face(50, 192), clips.moving_face(50, 192, 0.9), strict=True)
    ]
    path = clips.encode(tmp_path / "pair.mp4", pair)
    turned = tmp_path / "turned.mp4"
    clips.ffmpeg(
        "-display_rotation", 90, "-i", face_clip(tmp_path / "up.mp4", 5), "-vf", "transpose=1", turned
    )
    job = Job(
        tmp_path,
        [
            clip(path, "cut", start=1.0, end=1.4),
            clip(path, "right", end=0.2, box=(192, 0, 192, 192)),
            clip(path, "left", end=0.2, box=(0, 0, 192, 192)),
            clip(path, "nowhere", box=(900, 0, 10, 10)),
            clip(path, "later", start=99.0),
            clip(turned),
        ],
    )
    outcomes = job.run()
    assert {name: (o.status, o.frames) for name, o in outcomes.items()} == {
        "cut": ("ok", 10),
        "right": ("ok", 5),
        "left": ("no_face", 0),
        "nowhere": ("unreadable", 0),
        "later": ("too_short", 0),
        "turned": ("ok", 5),
    }
    assert "outside" in outcomes["nowhere"].detail
    with AlignedReader(job.output) as reader:
        times = reader.time[:]
        entry = reader.by_id["cut"]
        np.testing.assert_allclose(times[entry.first : entry.first + 10], 1 + np.arange(10) / 25, atol=1e-3)


def test_the_longest_scene_is_used_and_two_faces_can_be_refused(tmp_path: Path) -> None:
    scenes = clips.moving_face(6, 192, 0.9) + clips.no_face(4, 192) + clips.moving_face(12, 192, 0.9)
    clips.encode(tmp_path / "scenes.mp4", scenes)
    two = [np.hstack([clips.view(0.9, size=192), clips.view(1.1, size=192)])] * 10
    clips.encode(tmp_path / "two.mp4", two)
    job = Job(tmp_path, [clip(tmp_path / "scenes.mp4"), clip(tmp_path / "two.mp4")])
    outcomes = job.run()
    assert outcomes["scenes"].frames == 12
    assert outcomes["scenes"].cuts == 2
    assert (outcomes["two"].status, outcomes["two"].faces, outcomes["two"].frames) == ("ok", 2, 10)
    refused = job.run(policy="reject", min_frames=13)
    assert refused["scenes"].status == "scene_cut"
    assert refused["two"].status == "many_faces"
    with AlignedReader(job.output) as reader:
        assert reader.clips == []


def test_gaps_are_counted(tmp_path: Path) -> None:
    frames = clips.moving_face(24, 192, 0.9, swing=3)
    for i in (10, 11):
        frames[i] = clips.no_face(1, 192)[0]
    clips.encode(tmp_path / "a.mp4", frames)
    job = Job(tmp_path, [clip(tmp_path / "a.mp4")])
    outcome = job.run(scene_threshold=1)["a"]
    assert (outcome.frames, outcome.interpolated) == (24, 2)
    with AlignedReader(job.output) as reader:
        assert np.flatnonzero(reader.interpolated[:]).tolist() == [10, 11]


def test_a_truncated_video_gives_what_it_has(tmp_path: Path) -> None:
    path = face_clip(tmp_path / "a.mp4", 40, codec=("-g", 8, "-crf", 12, "-movflags", "+faststart"))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.6)])
    job = Job(tmp_path, [clip(path)])
    outcome = job.run()["a"]
    assert outcome.status == "ok"
    assert 5 <= outcome.frames < 40
    assert "could not be decoded" in outcome.detail


def test_clips_out_of_a_tar(tmp_path: Path) -> None:
    face_clip(tmp_path / "a.mp4")
    tar = tmp_path / "0000-of-0001.tar"
    with tarfile.open(tar, "w") as file:
        file.add(tmp_path / "a.mp4", "a.mp4")
    (tmp_path / "a.mp4").unlink()
    collected = tmp_path / "status.tsv"
    collected.write_text("clip\tstatus\tdetail\na\tok\t\nb\tdownload_failed\tprivate video\n")
    listed = [Clip(name, name, "x", "train", "render", "{}") for name in "abc"]
    job = Job(tmp_path, listed)
    outcomes = align.run(job.clips, job.output, job.status, job.state, OPTIONS, tar, collected)
    assert [(o.status, o.detail) for o in outcomes.values()] == [
        ("ok", ""),
        ("download_failed", "private video"),
        ("download_failed", "it was not collected"),
    ]
    tar.write_bytes(tar.read_bytes()[:700])
    with pytest.raises(InputError, match=r"0000-of-0001\.tar"):
        align.run(job.clips, job.output, job.status, job.state, OPTIONS, tar / "none", collected)


def test_an_empty_shard(tmp_path: Path) -> None:
    job = Job(tmp_path, [])
    assert job.run() == {}
    assert job.rows() == {}
    with AlignedReader(job.output) as reader:
        assert reader.clips == []


def contents(path: Path) -> tuple:
    with AlignedReader(path) as reader:
        pictures = [reader.jpeg(row) for row in range(len(reader))]
        return reader.clips, pictures, reader.landmarks[:].tobytes(), reader.transform[:].tobytes()


def test_a_killed_job_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """kill -9 of a real process; the rerun does only what is left, and the result is that of one run."""
    listed = [clip(face_clip(tmp_path / f"{i}.mp4", 40)) for i in range(3)]
    job, whole = Job(tmp_path / "killed", listed), Job(tmp_path / "whole", listed)
    process = subprocess.Popen(job.command(), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not list(job.state.glob("[!.]*.h5")) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    finished = len(list(job.state.glob("[!.]*.h5")))
    assert 1 <= finished < 3
    assert not job.output.exists()
    assert not job.status.exists()

    done: list[str] = []
    original = align.align_file

    def counted(path: Path, clip: Clip, *rest: object) -> object:
        done.append(clip.clip)
        return original(path, clip, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(align, "align_file", counted)
    job.run()
    assert done == [each.clip for each in listed[finished:]]
    assert not job.state.exists()
    whole.run()
    assert contents(job.output) == contents(whole.output)
    assert job.rows() == whole.rows()


def test_parts_that_are_damaged_or_of_another_file_are_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = [clip(face_clip(tmp_path / f"{i}.mp4", 4), stamp="1") for i in range(3)]
    job = Job(tmp_path, listed)
    monkeypatch.setattr(align, "_merge", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        job.run()
    monkeypatch.undo()
    parts = sorted(job.state.glob("*.h5"))
    assert len(parts) == 3
    parts[0].write_bytes(parts[0].read_bytes()[:1000])

    done: list[str] = []
    original = align.align_file
    monkeypatch.setattr(
        align, "align_file", lambda path, clip, *rest: done.append(clip.clip) or original(path, clip, *rest)
    )
    changed = [*listed[:2], clip(tmp_path / "2.mp4", stamp="2")]
    write_clips(job.clips, changed)
    job.run()
    assert "2" in done
    assert len(done) in (1, 2)  # the damaged part may be that of the changed file
    with AlignedReader(job.output) as reader:
        assert [entry.count for entry in reader.clips] == [4, 4, 4]


def test_a_full_disk_is_told_and_costs_nothing_that_was_done(tmp_path: Path) -> None:
    small, large = face_clip(tmp_path / "small.mp4", 2), face_clip(tmp_path / "large.mp4", 60)
    job = Job(tmp_path, [clip(small), clip(large)])
    limited = f"""
import resource, runpy, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (160_000, 160_000))
sys.argv = {job.command()[2:]!r}
runpy.run_module("remime.stages.align", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", limited], capture_output=True, text=True)
    assert done.returncode == 1
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert not job.output.exists()
    assert len(list(job.state.glob("[!.]*.h5"))) == 1  # the small clip is kept
    assert job.run()["large"].status == "ok"


def test_bad_options_and_lists_are_refused(tmp_path: Path) -> None:
    job = Job(tmp_path, [])
    with pytest.raises(InputError, match="align: sise"):
        job.run(sise=3)
    job.clips.write_text("nonsense")
    with pytest.raises(InputError, match=r"clips\.tsv"):
        job.run()


def test_command_line(tmp_path: Path) -> None:
    job = Job(tmp_path, [clip(face_clip(tmp_path / "a b.mp4", 3))])
    done = subprocess.run(job.command(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "1 clips: 1 ok" in done.stderr
    assert job.rows()["a_b"]["frames"] == 3
