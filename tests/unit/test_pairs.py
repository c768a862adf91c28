"""Pairs as pictures: which frames drive, which frame is the target."""

import numpy as np
import pytest

from remime.errors import InputError
from remime.layout import Dataset
from remime.pairs import TARGET_SIZE, Clips
from tests.evaluation import COLOURS, make_dataset, motion

PAIR = {
    "driving_dataset": "faces", "driving_clip": "bob-1", "driving_shard": "0000-of-0001", "frames": 4,
    "target_dataset": "faces", "target_clip": "cid", "target_shard": "0000-of-0001", "target_frame": 3,
}  # fmt: skip


@pytest.fixture
def dataset(tmp_path):
    return make_dataset(tmp_path / "faces")


def test_driving_frames_are_the_clips_first_ones(dataset):
    driving = Clips([dataset]).driving(PAIR)
    reds = [image[..., 0].mean() for image in driving.frames()]
    assert reds == pytest.approx([128 + 100 * yaw for yaw, _ in motion("bob-1", 4)], abs=2)
    assert driving.fps == 25


def test_the_target_is_the_frame_that_was_planned(dataset):
    clips = Clips([dataset])
    image = clips.target(PAIR)
    yaw, pitch = motion("cid", 4)[3]
    colour = [128 + 100 * yaw, 128 + 100 * pitch, COLOURS["cid"]]
    assert image.mean((0, 1)) == pytest.approx(colour, abs=2)
    assert clips.target_time(PAIR) == pytest.approx(3 / 25)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": 10}, "10 frames of bob-1 are needed, there are 9"),
        ({"driving_clip": "dan"}, "there is no clip 'dan'"),
        ({"driving_dataset": "other"}, "the pairs use 'other', which is not given"),
    ],
)
def test_pairs_that_do_not_fit_are_refused(dataset, change, message):
    with pytest.raises(InputError, match=message):
        Clips([dataset]).driving({**PAIR, **change})


def test_a_shard_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match="run the stage align"):
        Clips([Dataset(tmp_path / "faces", 1)]).driving(PAIR)


def test_invented_targets_are_those_of_the_models(dataset, weights):
    """The same picture as `reenact` makes for the same seed."""
    weights("mobile-ffhq")
    from remime.generators import load_generator
    from remime.reenactment import random_face

    image = Clips([dataset]).target({**PAIR, "target_clip": "random:1000", "target_dataset": ""})
    assert np.array_equal(image, random_face(load_generator(), 1000, TARGET_SIZE))
