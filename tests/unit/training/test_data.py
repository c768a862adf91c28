"""Training data: frames and latents come from the right rows, pairs never mix people up."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from remime.archive import decode_jpeg, encode_jpeg
from remime.errors import InputError
from remime.training import data
from remime.training.data import Frames, Pairs, Sample, indexed_frames, selected_frames, to_image, to_tensor
from tests import tiny


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return tiny.make_dataset(tmp_path_factory.mktemp("results") / "faces")


def people(*clips):
    """Frames of which only the names matter: (identity, clip, number) each."""
    samples = [Sample("d", "0", i, i, clip, who, "train") for who, clip, n in clips for i in range(n)]
    return Frames([], samples)


def test_images_survive_the_way_to_tensors_and_back():
    image = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    image[..., 1] = 255 - image[..., 1]
    tensor = to_tensor(image[None])
    assert (tensor.shape, tensor.dtype) == ((1, 3, 16, 16), torch.float32)
    assert (tensor.min(), tensor.max()) == (-1, 1)
    assert tensor[0, 1, 0, 3] == pytest.approx((255 - 3) / 127.5 - 1)
    assert np.array_equal(to_image(tensor)[0], image)
    assert to_image(torch.tensor([-7.0, 9.0, 0.0]).view(3, 1, 1)).tolist() == [[[0, 255, 128]]]


def test_selected_frames(dataset):
    frames = selected_frames([dataset], "train")
    expected = {
        (c, f) for c, (who, n) in tiny.CLIPS.items() if tiny.SPLITS[who] == "train" for f in range(1, n, 2)
    }
    assert Counter(s.clip for s in frames.samples) == Counter(clip for clip, _ in expected)
    assert {s.identity for s in frames.samples} == {"ann", "bob"}
    assert {s.latent_row for s in frames.samples} == {-1}


@pytest.mark.parametrize(("sampled", "step"), [(True, 2), (False, 1)])
def test_indexed_frames(dataset, sampled, step):
    frames = indexed_frames([dataset], "psp", "val", sampled)
    expected = Counter({c: len(range(1, tiny.CLIPS[c][1], step)) for c in ("cid-1", "dee-1")})
    assert Counter(s.clip for s in frames.samples) == expected


def test_frames_and_latents_belong_together(dataset, monkeypatch):
    """Also when hardly any shard may stay open."""
    monkeypatch.setattr(data, "_OPEN_SHARDS", 1)
    frames = indexed_frames([dataset], "psp", "train")
    order = [*reversed(range(len(frames))), 0, 5, 1]
    images, latents = frames.images(order), frames.latents(order)
    position = Counter()
    truth = {}
    for i, sample in enumerate(frames.samples):
        position[sample.clip] += 1
        who, n = tiny.CLIPS[sample.clip]
        f = position[sample.clip]
        truth[i] = (tiny.frames(sample.clip, who, n)[f], tiny.latents(sample.clip, who, n)[f])
    for image, latent, i in zip(images, latents, order, strict=True):
        assert np.array_equal(to_image(image), decode_jpeg(encode_jpeg(truth[i][0], 100)))
        assert torch.equal(latent, truth[i][1])


@pytest.fixture
def rendered(tmp_path):
    """A dataset whose first shard was rendered, one of its clips without truth."""
    dataset = tiny.make_dataset(tmp_path / "results" / "faces")
    tiny.add_truth(dataset, dataset.shard_names[0], without="dee-1")
    return dataset


def test_true_latents_are_found_by_time(rendered):
    """The first frames of the clips were not aligned."""
    frames = indexed_frames([rendered], "psp", "train")
    where, latents = frames.true_latents()
    first = rendered.shard_names[0]
    assert where == [i for i, s in enumerate(frames.samples) if s.shard == first]
    assert len(where) == 9
    for i, latent in zip(where, latents, strict=True):
        sample = frames.samples[i]
        number = round((sample.time - 0.5) * 25) + 2
        assert torch.equal(latent, tiny.true_latents(sample.clip)[number])


def test_frames_without_known_latents(dataset, rendered):
    assert indexed_frames([dataset], "psp", "train").true_latents()[0] == []
    assert indexed_frames([rendered], "psp", "val").true_latents()[0] == []


def test_damaged_clips_are_named(rendered):
    tar = rendered.tar(rendered.shard_names[0])
    tar.write_bytes(tar.read_bytes()[:700])
    with pytest.raises(InputError, match=rf"(?s){tar.name}.*collected again"):
        indexed_frames([rendered], "psp", "train").true_latents()


def test_missing_tables_are_named(tmp_path):
    with pytest.raises(InputError, match="manifest"):
        selected_frames([tiny.Dataset(tmp_path / "nothing", 1)], "train")
    with pytest.raises(InputError, match=r"psp\.parquet"):
        indexed_frames([tiny.Dataset(tmp_path / "nothing", 1)], "psp", "train")


clip_lists = st.lists(
    st.tuples(st.sampled_from("abcd"), st.integers(0, 9), st.integers(1, 4)), min_size=1, max_size=8
)


@settings(max_examples=60, deadline=None)
@given(clip_lists, st.integers(0, 2**31), st.integers(0, 2**41))
def test_pairs_are_of_one_clip_and_of_different_people(clips, seed, step):
    frames = people(*{f"{who}{name}": (who, f"{who}{name}", n) for who, name, n in clips}.values())
    usable = {who for who, _, n in {(w, f"{w}{c}"): (w, c, n) for w, c, n in clips}.values() if n > 1}
    if len(usable) < 2:
        with pytest.raises(InputError, match=f"{len(usable)} identities"):
            Pairs(frames, seed)
        return
    batch = Pairs(frames, seed).batch(step, 6)
    assert batch == Pairs(frames, seed).batch(step, 6)
    for places in zip(*(batch[k] for k in ("s_a", "t_a", "s_b", "t_b")), strict=True):
        s_a, t_a, s_b, t_b = (frames.samples[i] for i in places)
        assert s_a.clip == t_a.clip
        assert s_b.clip == t_b.clip
        assert s_a.identity != s_b.identity
        assert places[0] != places[1]
        assert places[2] != places[3]


def test_pairs_depend_on_seed_and_step():
    frames = people(("a", "a0", 9), ("b", "b0", 9), ("c", "c0", 9))
    batches = [Pairs(frames, seed).batch(step, 4) for seed, step in ((0, 0), (0, 1), (1, 0))]
    assert batches[0] != batches[1]
    assert batches[0] != batches[2]


def test_every_usable_frame_is_drawn_sooner_or_later():
    frames = people(("a", "a0", 3), ("b", "b0", 2), ("b", "b1", 4), ("c", "c0", 1), ("c", "c1", 2))
    pairs = Pairs(frames, 0)
    drawn = {i for step in range(200) for rows in pairs.batch(step, 4).values() for i in rows}
    assert drawn == {i for i, s in enumerate(frames.samples) if s.clip != "c0"}


def test_people_of_the_same_name_in_two_datasets_are_two():
    samples = [Sample(d, "0", i, i, "clip", "anonymous", "train") for d in ("x", "y") for i in range(2)]
    batch = Pairs(Frames([], samples), 0).batch(0, 8)
    assert all(
        {samples[a].dataset, samples[b].dataset} == {"x", "y"}
        for a, b in zip(batch["s_a"], batch["s_b"], strict=True)
    )
