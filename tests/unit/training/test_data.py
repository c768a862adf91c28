"""Training data: frames and latents come from the right rows, pairs never mix people up."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from remime.archive import decode_jpeg, encode_jpeg
from remime.errors import InputError
from remime.images import to_image
from remime.training import data
from remime.training.data import Crossings, Frames, Pairs, SameMotion, Sample, indexed_frames, selected_frames
from tests import tiny

EMPTY_TAR = bytes(10240)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return tiny.make_dataset(tmp_path_factory.mktemp("results") / "faces")


def people(*clips):
    """Frames of which only the names matter: (identity, clip, number) each."""
    samples = [Sample("d", "0", i, i, clip, who, "train") for who, clip, n in clips for i in range(n)]
    return Frames([], samples)


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
    """``rendered(shard, ...)``: the training frames of a dataset of which one shard was rendered."""

    def make(shard, split="train", **how):
        dataset = tiny.make_dataset(tmp_path / "results" / "faces")
        tiny.add_truth(dataset, dataset.shard_names[shard], **how)
        return indexed_frames([dataset], "psp", split), dataset.tar(dataset.shard_names[shard])

    return make


@pytest.mark.parametrize(("shard", "clips"), [(0, {"ann-1", "bob-1"}), (1, {"ann-2"})])
def test_true_latents_are_found_by_time(rendered, shard, clips):
    """The first frames of the clips were not aligned."""
    frames, tar = rendered(shard)
    for other in set(tar.parent.parent.glob("aligned/*.h5")) - {
        tar.parent.parent / "aligned" / f"{tar.stem}.h5"
    }:
        tar.with_name(f"{other.stem}.tar").write_bytes(EMPTY_TAR)
    found = {
        i: latent
        for where, latents in frames.true_latents()
        for i, latent in zip(where, latents, strict=True)
    }
    assert {frames.samples[i].clip for i in found} == clips
    assert sorted(found) == [i for i, s in enumerate(frames.samples) if s.clip in clips]
    for i, latent in found.items():
        sample = frames.samples[i]
        number = round((sample.time - 0.5) * 25) + 2
        assert torch.equal(latent, tiny.true_latents(sample.clip)[number])


def test_clips_without_truth(dataset, rendered):
    assert list(indexed_frames([dataset], "psp", "train").true_latents()) == []
    frames, tar = rendered(1, "val", without="cid-1")
    tar.with_name("0000-of-0002.tar").write_bytes(EMPTY_TAR)
    assert list(frames.true_latents()) == []


def test_face_units_of_rendered_heads(tmp_path):
    """At the frames' own moments."""
    dataset = tiny.make_dataset(tmp_path / "results" / "faces")
    for shard in dataset.shard_names:
        tiny.add_blinks(dataset, shard)
    frames = indexed_frames([dataset], "psp", "train")
    found = list(frames.face_units())
    assert sorted(i for units in found for i in units.where) == list(range(len(frames)))
    for units in found:
        jaw = units.values[:, units.names.index("jawOpen")]
        for i, value in zip(units.where, jaw.tolist(), strict=True):
            sample = frames.samples[i]
            expected = tiny.closed_lids(tiny.CLIPS[sample.clip][1])[round((sample.time - 0.5) * 25)]
            assert value == pytest.approx(1 - float(expected), abs=1e-6)
    assert list(frames.true_latents()) == []


def test_truth_that_cannot_be_used_is_named(rendered):
    frames, tar = rendered(0)
    whole = tar.read_bytes()
    tar.with_name("0001-of-0002.tar").write_bytes(EMPTY_TAR)
    for cut in (700, 1700):  # within a video, within a truth
        tar.write_bytes(whole[:cut])
        with pytest.raises(InputError, match=rf"(?s){tar.name}.*collected again"):
            list(frames.true_latents())
    tar.unlink()
    with pytest.raises(InputError, match=rf"(?s){tar.name}.*collected again"):
        list(frames.true_latents())


@pytest.mark.parametrize(
    ("how", "said"), [({"late": 0.02}, "other times"), ({"times": False}, "time is not")]
)
def test_truth_of_other_frames_is_refused(rendered, how, said):
    """Of other times, or written before times were stored."""
    frames, tar = rendered(0, **how)
    with pytest.raises(InputError, match=rf"(?s){tar.name}.*{said}"):
        list(frames.true_latents())


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


def test_every_clip_drives_before_any_drives_again():
    frames = people(("a", "a0", 30), ("b", "b0", 3), ("c", "c0", 1), ("c", "c1", 5))
    crossings = Crossings(frames, None, 0)
    assert len(crossings) == 3
    chosen = [crossings.batch(i) for i in range(6)]
    assert chosen == [Crossings(frames, None, 0).batch(i) for i in range(6)]
    drive = [{frames.samples[i].clip for i in rows} for _, rows, _ in chosen]
    assert sorted(map(sorted, drive[:3])) == [["a0"], ["b0"], ["c1"]]
    assert drive[3:] == drive[:3]
    targets = [frames.samples[target].identity for _, _, target in chosen]
    for clips, target in zip(drive, targets, strict=True):
        assert not any(clip.startswith(target) for clip in clips)
    assert all(a != b for a, b in zip(targets[:3], targets[3:], strict=True))
    (longest,) = (rows for _, rows, _ in chosen[:3] if frames.samples[rows[0]].clip == "a0")
    assert len(longest) == 10
    assert (longest[0], longest[-1]) == (0, 29)


def test_further_clips_drive_and_are_no_targets():
    frames, further = people(("a", "a0", 2)), people(("h", "h0", 4), ("i", "i0", 2))
    driving, rows, target = Crossings(frames, further, 0).batch(5)
    assert driving is further
    assert rows == [0, 1, 2, 3]
    assert frames.samples[target].identity == "a"


@pytest.mark.parametrize("clips", [[("a", "a0", 9)], [("a", "a0", 2), ("b", "b0", 2)]])
def test_crossings_need_a_clip_and_somebody_else(clips):
    with pytest.raises(InputError, match=f"{len(clips)} identities with latents, and no clip"):
        Crossings(people(*clips), None, 0)


def shown(motion, fps=25.0):
    return json.dumps({"motion": motion, "scene": motion + 10, "identity": 0, "fps": fps})


def heads_like(folder, motions):
    """A dataset whose clips show these motions."""
    return tiny.make_dataset(folder, paths={clip: shown(motion) for clip, motion in motions.items()})


MOTIONS = {"ann-1": 5, "ann-2": 6, "bob-1": 5, "cid-1": 5, "dee-1": 6}


def test_frames_of_the_same_motion(tmp_path):
    """Only people of the split, and only motions that two of them show."""
    same = SameMotion.read([heads_like(tmp_path / "heads", MOTIONS)], "train", 0)
    samples = [[same.frames.samples[i] for i in group] for group in same.groups]
    # Both have more than four frames, of which the first is not kept.
    assert len(samples) == 4
    for group in samples:
        assert sorted(sample.clip for sample in group) == ["ann-1", "bob-1"]
        assert len({sample.time for sample in group}) == 1
    batch = same.batch(3, 6, 2)
    assert [len(moment) for moment in batch] == [2] * 6
    assert batch == same.batch(3, 6, 2) != same.batch(4, 6, 2)
    for moment in batch:
        assert any(set(moment) == set(group) for group in same.groups)
    # Fewer people than asked for appear again.
    assert [len(moment) for moment in same.batch(0, 2, 5)] == [5, 5]
    first = {s.clip: image for s, image in zip(samples[0], same.frames.images(same.groups[0]), strict=True)}
    for clip, who in (("ann-1", "ann"), ("bob-1", "bob")):
        assert np.abs(to_image(first[clip]).astype(int) - tiny.frames(clip, who, 2)[1]).mean() < 6


def test_motions_that_nobody_shares(tmp_path):
    alone = {clip: number for number, clip in enumerate(MOTIONS)}
    with pytest.raises(InputError, match="no motion is shown by two people of the split 'train'"):
        SameMotion.read([heads_like(tmp_path / "heads", alone)], "train", 0)


def test_motions_of_other_datasets(dataset):
    with pytest.raises(InputError, match=r"same_motion: faces: is no dataset of rendered heads"):
        SameMotion.read([dataset], "train", 0)
