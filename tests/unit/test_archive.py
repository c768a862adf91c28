"""Shards: what goes in comes out, and nothing wrong is ever taken for right."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remime import archive
from remime.errors import InputError, RemimeError, VersionError

OPTIONS = {"resolution": 16, "smoothing": {"centre": 1.0}}


def clip(n: int, seed: int = 0) -> dict:
    rng = np.random.default_rng(seed)
    images = [np.full((16, 16, 3), rng.integers(0, 255), np.uint8) for _ in range(n)]
    return {
        "frames": [archive.encode_jpeg(image) for image in images],
        "landmarks": rng.normal(size=(n, 68, 2)).astype(np.float32),
        "transform": rng.normal(size=(n, 2, 3)),
        "time": np.arange(n) / 25,
        "interpolated": rng.random(n) < 0.3,
    }


def write_named(path: Path, **clips: dict) -> None:
    with archive.AlignedWriter(path, OPTIONS) as writer:
        for name, data in clips.items():
            writer.add_clip(name, 25, "x", **data)


def write(path: Path, *counts: int) -> list[dict]:
    clips = [clip(n, seed=i) for i, n in enumerate(counts)]
    with archive.AlignedWriter(path, OPTIONS) as writer:
        for i, data in enumerate(clips):
            writer.add_clip(f"clip {i} é", 29.97, "someone", **data, meta={"cuts": i})
    return clips


@settings(max_examples=8, deadline=None)
@given(counts=st.lists(st.integers(0, 70), max_size=4))
def test_aligned_round_trip(tmp_path_factory: pytest.TempPathFactory, counts: list[int]) -> None:
    path = tmp_path_factory.mktemp("round") / "a.h5"
    clips = write(path, *counts)
    with archive.AlignedReader(path) as reader:
        assert [entry.count for entry in reader.clips] == counts
        assert len(reader) == sum(counts)
        assert reader.options == OPTIONS
        assert reader.resolution == 16
        for i, (entry, data) in enumerate(zip(reader.clips, clips, strict=True)):
            rows = slice(entry.first, entry.first + entry.count)
            assert (entry.id, entry.identity, entry.fps, entry.meta) == (
                f"clip {i} é",
                "someone",
                29.97,
                {"cuts": i},
            )
            assert [reader.jpeg(row) for row in entry.rows] == data["frames"]
            for name in ("landmarks", "transform", "time", "interpolated"):
                np.testing.assert_array_equal(getattr(reader, name)[rows], data[name])


def test_frames_in_any_order(tmp_path: Path) -> None:
    write(tmp_path / "a.h5", 5)
    with archive.AlignedReader(tmp_path / "a.h5") as reader:
        frames = reader.frames([3, 0, 3])
        assert frames.shape == (3, 16, 16, 3)
        np.testing.assert_array_equal(frames[0], reader.frame(3))
        np.testing.assert_array_equal(frames[1], reader.frame(0))
        assert reader.frames([]).shape == (0, 16, 16, 3)


def test_jpeg_keeps_colour_order_and_detail() -> None:
    yy, xx = np.mgrid[:64, :64]
    image = np.stack([4 * xx, 4 * yy, 255 - 2 * (xx + yy)], axis=2).astype(np.uint8)
    decoded = archive.decode_jpeg(archive.encode_jpeg(image))
    assert np.abs(decoded.astype(int) - image).mean() < 1.5


def test_latent_round_trip(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    latents = rng.normal(size=(70, 16, 512)).astype(np.float32)
    with archive.LatentWriter(tmp_path / "l.h5", {"steps": 5}, 16, "restyle-psp", "abc") as writer:
        writer.add_clip("a", 25, "x", latents, np.arange(70) + 7, np.linspace(0, 1, 70))
    with archive.LatentReader(tmp_path / "l.h5") as reader:
        assert (reader.rows, reader.inverter, reader.weights) == (16, "restyle-psp", "abc")
        np.testing.assert_array_equal(reader.latents[:], latents)
        np.testing.assert_array_equal(reader.clip_row[:], np.arange(70) + 7)
        assert reader.error[69] == 1


def test_rows_of_another_shape_are_refused(tmp_path: Path) -> None:
    data = clip(2) | {"landmarks": np.zeros((2, 5, 2))}
    with pytest.raises(ValueError, match=r"landmarks.*\(68, 2\).*\(5, 2\)"):
        write_named(tmp_path / "a.h5", a=data)
    assert list(tmp_path.iterdir()) == []


def test_the_same_clip_twice_is_refused(tmp_path: Path) -> None:
    with archive.AlignedWriter(tmp_path / "a.h5", OPTIONS) as writer:
        writer.add_clip("a", 25, "x", **clip(1))
        with pytest.raises(ValueError, match="already"):
            writer.add_clip("a", 25, "x", **clip(1))


@pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 0.99])
def test_a_shard_cut_off_is_an_error_that_names_it(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "0000-of-0001.h5"
    write(path, 40)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(InputError, match=r"0000-of-0001\.h5.*damaged"):
        archive.AlignedReader(path)


def test_damaged_pixels_are_an_error_that_names_the_row(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    write(path, 3)
    with archive.AlignedReader(path) as reader:
        jpeg = reader.jpeg(1)
    data = path.read_bytes()
    assert data.count(jpeg) >= 1
    path.write_bytes(data.replace(jpeg, bytes(len(jpeg))))
    with archive.AlignedReader(path) as reader, pytest.raises(InputError, match="row 1"):
        reader.frame(1)


def test_missing_wrong_kind_and_wrong_version(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        archive.AlignedReader(tmp_path / "none.h5")
    write(tmp_path / "a.h5", 1)
    with pytest.raises(InputError, match=r"'aligned'.*\n.*'latents'"):
        archive.LatentReader(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file.attrs["version"] = 999
    with pytest.raises(VersionError, match="999"):
        archive.AlignedReader(tmp_path / "a.h5")
    (tmp_path / "text.h5").write_text("not a shard")
    with pytest.raises(InputError, match="damaged"):
        archive.AlignedReader(tmp_path / "text.h5")


def test_failure_while_writing_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="2 rows for 3 frames"):
        write_named(tmp_path / "a.h5", a=clip(3), b=clip(3) | {"time": np.zeros(2)})
    assert list(tmp_path.iterdir()) == []


def test_failure_keeps_the_previous_shard(tmp_path: Path) -> None:
    write(tmp_path / "a.h5", 2)
    before = (tmp_path / "a.h5").read_bytes()
    with pytest.raises(ValueError, match="2 rows for 3 frames"):
        write_named(tmp_path / "a.h5", a=clip(3) | {"time": np.zeros(2)})
    assert (tmp_path / "a.h5").read_bytes() == before


@pytest.mark.parametrize("when", ["append", "end"])
def test_a_full_disk_is_a_clear_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    def full(self: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(archive._Writer, "_flush" if when == "append" else "_write_clips", full)
    with pytest.raises(RemimeError, match=r"a\.h5: cannot be written.*No space left(.|\n)*free space"):
        write_named(tmp_path / "a.h5", a=clip(100))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(InputError, match=r"a\.h5.*Permission denied(.|\n)*may write"):
        write_named(tmp_path / "new" / "a.h5")


@pytest.mark.parametrize("limit", [100, 20_000, 200_000])
def test_a_really_full_device(tmp_path: Path, limit: int) -> None:
    """HDF5's own failing writes, at a file size limit that the kernel enforces."""
    code = f"""
import resource, signal, numpy as np
from remime import archive
from remime.errors import RemimeError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
try:
    with archive.LatentWriter({str(tmp_path / "l.h5")!r}, {{}}, 16, "i", "w") as writer:
        writer.add_clip("a", 25, "x", np.zeros((200, 16, 512)), np.arange(200), np.zeros(200))
except RemimeError as error:
    print("told:", error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "cannot be written" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_parts_resume_merge_and_go(tmp_path: Path) -> None:
    directory = archive.parts_directory(tmp_path / "0000-of-0001.h5")
    parts = archive.Parts(directory, archive.AlignedReader, {"options": OPTIONS})
    assert parts.open("b/ü") is None
    for seed, name in enumerate(["b/ü", "a"]):
        with archive.AlignedWriter(parts.path(name), OPTIONS) as writer:
            writer.add_clip(name, 25, "x", **clip(70, seed), meta={"status": "ok"})

    again = archive.Parts(directory, archive.AlignedReader, {"options": OPTIONS})
    with archive.AlignedWriter(tmp_path / "0000-of-0001.h5", OPTIONS) as writer:
        for name in ("a", "b/ü"):
            part = again.open(name)
            assert part is not None
            with part:
                writer.copy_clip(part, part.by_id[name])
    again.remove()
    assert not directory.exists()
    with archive.AlignedReader(tmp_path / "0000-of-0001.h5") as reader:
        assert [(entry.id, entry.count, entry.meta) for entry in reader.clips] == [
            ("a", 70, {"status": "ok"}),
            ("b/ü", 70, {"status": "ok"}),
        ]
        assert [reader.jpeg(row) for row in reader.by_id["a"].rows] == clip(70, 1)["frames"]
        np.testing.assert_array_equal(reader.landmarks[70:], clip(70, 0)["landmarks"])


def test_damaged_parts_are_made_anew(tmp_path: Path) -> None:
    parts = archive.Parts(tmp_path / "parts", archive.AlignedReader, {})
    with archive.AlignedWriter(parts.path("a"), OPTIONS) as writer:
        writer.add_clip("a", 25, "x", **clip(30))
    path = parts.path("a")
    path.write_bytes(path.read_bytes()[:3000])
    assert parts.open("a") is None
    assert not path.exists()


def test_parts_of_other_options_are_not_taken(tmp_path: Path) -> None:
    parts = archive.Parts(tmp_path / "parts", archive.AlignedReader, {"options": OPTIONS})
    with archive.AlignedWriter(parts.path("a"), OPTIONS) as writer:
        writer.add_clip("a", 25, "x", **clip(1))
    other = archive.Parts(
        tmp_path / "parts", archive.AlignedReader, {"options": OPTIONS | {"resolution": 32}}
    )
    assert other.open("a") is None
    assert parts.open("a") is not None


def answer_rows(n: int) -> list[dict]:
    rng = np.random.default_rng(0)
    return [
        {
            "frames": archive.encode_jpeg(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)),
            "labels": archive.encode_labels(rng.integers(0, 3, (16, 16), dtype=np.uint8)),
            "landmarks": rng.normal(size=(68, 2)).astype(np.float32),
            "pose": rng.normal(size=3).astype(np.float32),
            "coefficients": rng.random(52).astype(np.float32),
        }
        for _ in range(n)
    ]


def test_answers_round_trip(tmp_path: Path) -> None:
    rows = answer_rows(3)
    with archive.AnswerWriter(tmp_path / "a.h5", ("nothing", "skin", "hair")) as writer:
        writer.begin_clip("a--b", 25, "b")
        for row in rows:
            writer.append(**row)
    with archive.AnswerReader(tmp_path / "a.h5") as reader:
        assert reader.labels == ("nothing", "skin", "hair")
        assert reader.by_id["a--b"].rows == range(3)
        for i, row in enumerate(rows):
            np.testing.assert_array_equal(reader.frame(i), archive.decode_jpeg(row["frames"]))
            assert archive.encode_labels(reader.label_map(i)) == row["labels"]
            for name in ("landmarks", "pose", "coefficients"):
                np.testing.assert_array_equal(getattr(reader, name)[i], row[name])


def test_damaged_labels_name_the_row(tmp_path: Path) -> None:
    with archive.AnswerWriter(tmp_path / "a.h5", ("nothing",)) as writer:
        writer.begin_clip("a--b", 25, "b")
        writer.append(**{**answer_rows(1)[0], "labels": b"no picture"})
    with archive.AnswerReader(tmp_path / "a.h5") as reader, pytest.raises(InputError, match=r"a\.h5.*row 0"):
        reader.label_map(0)


def test_answers_are_no_aligned_frames(tmp_path: Path) -> None:
    write(tmp_path / "a.h5", 1)
    with pytest.raises(InputError, match="'answers' is needed"):
        archive.AnswerReader(tmp_path / "a.h5")
