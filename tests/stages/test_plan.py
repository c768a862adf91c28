"""Pairs: disjoint identities, the same on every machine, stable when clips are added."""

from collections import Counter
from dataclasses import replace

import pytest

from remime.errors import InputError
from remime.stages import Dataset
from remime.stages.plan import OPTIONS, Clip, main, pair_name, plan, run
from remime.tables import read_table, write_table


def clips(identities: int, per_identity: int = 1, frames: int = 30) -> list[Clip]:
    return [
        Clip("d", f"i{i:02d}-c{c}", f"i{i:02d}", "0000-of-0001", frames, tuple(range(2, frames)))
        for i in range(identities)
        for c in range(per_identity)
    ]


def options(**changes) -> dict:
    return {**OPTIONS, "pairs": 1000, **changes}


def names(rows) -> set[str]:
    return {row["pair"] for row in rows}


@pytest.mark.parametrize("choice", ["each", "shared"])
def test_cross_pairs_never_share_an_identity(choice):
    rows = plan(clips(6, 3), options(target_choice=choice, targets=4))
    assert len(rows) == 18 * 4
    assert all(row["driving_identity"] != row["target_identity"] for row in rows)
    assert len(names(rows)) == len(rows)


def test_each_identity_is_a_target_before_any_is_one_twice():
    rows = plan(clips(5, 4), options(targets=4))
    for driving in {row["driving_clip"] for row in rows}:
        used = Counter(row["target_identity"] for row in rows if row["driving_clip"] == driving)
        assert set(used.values()) == {1}


def test_self_takes_the_first_kept_frame_of_the_same_clip():
    rows = plan(clips(3), options(protocol="self", target_frame="random"))
    assert len(rows) == 3
    for row in rows:
        assert row["driving_clip"] == row["target_clip"]
        assert row["target_frame"] == 2


def test_input_order_does_not_matter():
    some = clips(8, 2)
    assert plan(some, options()) == plan(some[::-1], options())


def test_seed_changes_the_pairs():
    assert names(plan(clips(9), options(seed=1))) != names(plan(clips(9), options(seed=2)))


@pytest.mark.parametrize("limit", [20, 1000])
@pytest.mark.parametrize("choice", ["each", "shared"])
def test_most_pairs_stay_when_a_clip_is_added(choice, limit):
    before, after = clips(20), clips(21)
    kept = []
    for seed in range(10):
        o = options(seed=seed, targets=2, target_choice=choice, pairs=limit)
        old, new = names(plan(before, o)), names(plan(after, o))
        kept.append(len(old & new) / len(old))
    assert sum(kept) / len(kept) > 0.8


def test_a_pair_keeps_its_batch_when_clips_are_added():
    o = options(batches=4)
    old = {row["pair"]: row["batch"] for row in plan(clips(10), o)}
    new = {row["pair"]: row["batch"] for row in plan(clips(14), o)}
    common = set(old) & set(new)
    assert common
    assert all(old[pair] == new[pair] for pair in common)
    assert set(old.values()) <= {f"{i:04d}-of-0004" for i in range(4)}


def test_limit_costs_targets_before_it_costs_driving_clips():
    rows = plan(clips(10), options(targets=3, pairs=10))
    assert len({row["driving_clip"] for row in rows}) == 10


def test_shared_targets_make_a_full_grid():
    rows = plan(clips(8), options(targets=4, target_choice="shared", random_identities=1, pairs=20))
    by_driving = {}
    for row in rows:
        by_driving.setdefault(row["driving_clip"], set()).add(row["target_clip"])
    assert all(len(targets) == 5 for targets in by_driving.values())
    assert len(set.intersection(*by_driving.values())) >= 2


def test_random_identities_come_on_top_and_need_no_second_person():
    rows = plan(clips(1), options(random_identities=2, seed=3))
    assert [row["target_clip"] for row in rows] == ["random:3000", "random:3001"]
    assert all(row["target_dataset"] == "" and row["target_frame"] == 0 for row in rows)


def test_still_image_is_a_target_but_never_drives():
    still = Clip("d", "photo", "someone", "0000-of-0001", 1, (0,))
    rows = plan([*clips(2), still], options(targets=5, min_frames=2))
    assert "photo" in {row["target_clip"] for row in rows}
    assert "photo" not in {row["driving_clip"] for row in rows}


def test_frames_are_limited():
    assert {row["frames"] for row in plan(clips(3), options(max_frames=12))} == {12}
    assert {row["frames"] for row in plan(clips(3), options(max_frames=0))} == {30}
    assert {row["frames"] for row in plan(clips(3), options(max_frames=99))} == {30}


def test_random_target_frame_stays_when_other_frames_are_dropped():
    clip, other = clips(2)
    frame = plan([clip, other], options(targets=1))[0]["target_frame"]
    assert frame in clip.kept
    fewer = [replace(c, kept=tuple(f for f in c.kept if f == frame or f % 2)) for c in (clip, other)]
    assert plan(fewer, options(targets=1))[0]["target_frame"] == frame


def test_pair_names_are_safe_short_and_distinct():
    strange = Clip("dätä", "a b/c" + "x" * 300, "i", "s", 3, (0,))
    name = pair_name(strange, strange, 0)
    assert len(name) <= 160
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
    one, two = Clip("a", "b-c", "i", "s", 3, (0,)), Clip("a-b", "c", "i", "s", 3, (0,))
    assert pair_name(one, one, 0) != pair_name(two, two, 0)


@pytest.fixture
def dataset(tmp_path) -> Dataset:
    folder = Dataset(tmp_path / "faces", 2)
    everyone = {"a": ("ok", 40), "b": ("ok", 10), "c": ("no_face", 0), "d": ("ok", 5)}
    for shard, members in zip(folder.shard_names, (("a", "b"), ("c", "d")), strict=True):
        rows = [
            {"clip": c, "stage": "align", "status": everyone[c][0], "frames": everyone[c][1]} for c in members
        ]
        write_table(folder.status(shard), "status", rows)
    where = (("a", "test", 0), ("b", "test", 0), ("d", "train", 1))
    index = [
        {"clip": c, "identity": f"person {c}", "split": split, "shard": folder.shard_names[s], "frame": f}
        for c, split, s in where
        for f in range(1, everyone[c][1])
    ]
    write_table(folder.index("psp"), "latents", index)
    return folder


def test_run_reads_the_index_and_the_frame_counts(dataset, tmp_path):
    output = tmp_path / "pairs.parquet"
    assert run([dataset], output, {"split": "test", "targets": 1}) == 2
    rows = {row["driving_clip"]: row for row in read_table(output, "pairs").to_pylist()}
    assert set(rows) == {"a", "b"}
    assert rows["a"]["frames"] == 40  # all aligned frames drive, also those without a latent
    assert rows["a"]["target_clip"] == "b"
    assert rows["a"]["driving_shard"] == "0000-of-0002"


def test_main_is_repeatable(dataset, tmp_path):
    texts = []
    for name in ("one", "two"):
        output = tmp_path / f"{name}.parquet"
        main(["--datasets", f"{dataset.folder}=2", "--output", str(output), "--options", '{"split": "all"}'])
        texts.append(read_table(output, "pairs").to_pylist())
    assert texts[0] == texts[1]
    assert len(texts[0]) == 6


def test_no_pair_is_an_error_that_says_why(dataset, tmp_path):
    with pytest.raises(InputError, match="1 clips of 1 identities in split 'train'"):
        run([dataset], tmp_path / "pairs.parquet", {"split": "train"})
    assert not (tmp_path / "pairs.parquet").exists()


@pytest.mark.parametrize(
    "wrong", [{"protocol": "both"}, {"pairs": 0}, {"target_choice": "x"}, {"batches": 0}]
)
def test_wrong_option_is_named(dataset, tmp_path, wrong):
    with pytest.raises(InputError, match=f"plan: {next(iter(wrong))}"):
        run([dataset], tmp_path / "pairs.parquet", wrong)


def test_pairs_with_true_answers_are_cross_pairs():
    some = clips(6, 2)
    cross, truth = plan(some, options()), plan(some, options(protocol="truth"))
    assert truth == [{**row, "protocol": "truth"} for row in cross]
