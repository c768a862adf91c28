"""True answers: in the driving clip's aligned frame, of the target's person, with what is true of them."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from remime.archive import AlignedReader
from remime.errors import InputError
from remime.heads import aligned
from remime.heads.take import motion_of
from remime.metrics.image import l1
from remime.sources import read_clips, write_clips
from remime.stages import Dataset, answer
from tests import answered
from tests.answered import FRAMES, small_kit  # noqa: F401


@pytest.fixture(scope="module")
def finished(tmp_path_factory, small_kit):  # noqa: F811
    return answered.make_dataset(tmp_path_factory.mktemp("results") / "heads")


@pytest.fixture
def world(finished, tmp_path):
    """A dataset that may be changed, its clips, and a folder for the benchmark."""
    dataset, clips = finished
    folder = shutil.copytree(dataset.folder, tmp_path / "heads")
    return Dataset(folder, 1), clips, tmp_path / "benchmarks" / "truth"


def run(world, rows, state="state"):
    dataset, _, benchmark = world
    return answered.render(dataset, benchmark, rows, benchmark / state)


def driving(world, clip):
    reader = AlignedReader(world[0].aligned("0000-of-0001"))
    return reader, reader.by_id[clip.clip].rows


def test_ones_own_answer_is_the_aligned_driving_clip(world):
    """The driving person in the own motion is what was driven with, up to the video's compression."""
    own, other = (world[1][0], world[1][0]), (world[1][0], world[1][1])
    answers = run(world, [answered.pair(*own), answered.pair(*other)])
    reader, rows = driving(world, world[1][0])
    mine, theirs = (answers.by_id[f"{a.clip}--{b.clip}"].rows for a, b in (own, other))
    for row, i, j in zip(rows, mine, theirs, strict=True):
        seen, known = reader.frame(row), answers.frame(i)
        assert l1(seen, known) < 6
        # A shift by a single pixel, or another person, is further away.
        assert l1(seen, np.roll(known, 1, axis=1)) > 1.5 * l1(seen, known)
        assert l1(seen, answers.frame(j)) > 1.5 * l1(seen, known)
    stored = reader.landmarks[rows.start : rows.stop]
    np.testing.assert_allclose(answers.landmarks[mine.start : mine.stop], stored, atol=1e-3)


def test_only_the_frames_that_are_scored_are_rendered(world, monkeypatch):
    rendered = []
    original = aligned.answer
    monkeypatch.setattr(
        aligned, "answer", lambda take, who, numbers: original(take, who, rendered.append(numbers) or numbers)
    )
    answers = run(world, [answered.pair(world[1][0], world[1][1], frames=2)])
    assert rendered == [[0, 1]]
    assert len(answers.landmarks) == 2


def test_labels_and_coefficients_are_those_of_the_motion(world):
    first, second = world[1][:2]
    answers = run(world, [answered.pair(first, second)])
    motion = motion_of(answered.take_of(first))
    np.testing.assert_allclose(answers.coefficients[:], motion.coefficients, atol=1e-6)
    labels = answers.label_map(0)
    assert labels.shape == (answered.SIZE, answered.SIZE)
    assert {answers.labels[n] for n in np.unique(labels)} >= {"background", "skin"}


class Interrupt(Exception):
    pass


def test_a_killed_job_resumes_with_the_same_answers(world, monkeypatch):
    rows = [answered.pair(a, b) for a in world[1] for b in world[1] if a is not b]
    expected = run(world, rows, "first").file["frames"][:]
    left, original, calls = [3], answer.encode_labels, []

    def dying(labels):
        calls.append(1)
        if left[0] * FRAMES < len(calls):
            raise Interrupt
        return original(labels)

    monkeypatch.setattr(answer, "encode_labels", dying)
    with pytest.raises(Interrupt):
        run(world, rows, "second")
    assert (world[2] / "second").is_dir()
    left[0] = 100
    calls.clear()
    again = run(world, rows, "second")
    assert len(calls) == (len(rows) - 3) * FRAMES
    assert all(np.array_equal(a, b) for a, b in zip(again.file["frames"][:], expected, strict=True))
    assert not (world[2] / "second").exists()


def test_clips_that_were_not_rendered_have_no_answer(world):
    dataset, clips, _ = world
    path = dataset.clips("0000-of-0001")
    write_clips(path, [type(c)(**{**c.row(), "box": (), "path": "film.mp4"}) for c in read_clips(path)])
    with pytest.raises(InputError, match=r"was rendered from\n.*source heads"):
        run(world, [answered.pair(clips[0], clips[1])])


def test_frames_of_another_take_are_refused(world):
    dataset, clips, _ = world
    path = dataset.clips("0000-of-0001")
    short = [
        type(c)(**{**c.row(), "box": (), "path": json.dumps({**json.loads(c.path), "frames": 3})})
        for c in read_clips(path)
    ]
    write_clips(path, short)
    with pytest.raises(InputError, match="times of Take"):
        run(world, [answered.pair(clips[0], clips[1])])
