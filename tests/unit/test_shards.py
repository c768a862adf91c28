"""Names of shards, and the stable choice of shard and split."""

from __future__ import annotations

import hashlib
import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remime.shards import (
    batch_of,
    file_name,
    parse_shard,
    shard_name,
    shard_names,
    shard_of,
    split_of,
    stable_hash,
)


def test_a_name_carries_index_and_total() -> None:
    assert shard_name(7, 32) == "0007-of-0032"
    assert shard_names(3) == ["0000-of-0003", "0001-of-0003", "0002-of-0003"]
    assert shard_name(12345, 20000) == "12345-of-20000"


@given(st.integers(1, 30000), st.data())
def test_names_are_parsed_back(total: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, total - 1))
    assert parse_shard(shard_name(index, total)) == (index, total)


@pytest.mark.parametrize("index", [-1, 4])
def test_an_index_out_of_range_is_refused(index: int) -> None:
    with pytest.raises(ValueError, match=r"not in 0\.\.3"):
        shard_name(index, 4)


@pytest.mark.parametrize(
    "name", ["7-of-32", "0007-of-32", "0032-of-0032", "x", "0007-of-0032 ", "../0007-of-0032"]
)
def test_what_is_no_shard_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not"):
        parse_shard(name)


def test_the_hash_is_that_of_blake2b() -> None:
    expected = hashlib.blake2b("saltnäme".encode(), digest_size=8).digest()
    assert stable_hash("näme", salt="salt") == int.from_bytes(expected, "big")


def test_shards_are_filled_evenly_and_never_depend_on_other_clips() -> None:
    counts = Counter(shard_of(f"video-{i}", 8) for i in range(8000))
    assert set(counts) == set(range(8))
    assert max(counts.values()) < 1.15 * min(counts.values())


def test_splits_are_80_10_10_and_follow_the_identity_alone() -> None:
    people = [f"person {i}" for i in range(5000)]
    splits = {person: split_of(person, 1) for person in people}
    shares = {name: count / len(people) for name, count in Counter(splits.values()).items()}
    assert shares == pytest.approx({"train": 0.8, "val": 0.1, "test": 0.1}, abs=0.02)
    assert {person: split_of(person, 1) for person in reversed(people)} == splits
    assert {person: split_of(person, 2) for person in people} != splits


def test_pairs_are_spread_over_all_batches() -> None:
    found = [batch_of(f"pair {i}", 4) for i in range(400)]
    assert set(found) == set(shard_names(4))
    assert min(map(found.count, found)) > 60
    assert batch_of("pair", 1) == "0000-of-0001"


def test_names_of_files_are_safe_and_unique() -> None:
    texts = ["a/b", "a b", "a-b", "ü" * 300, "ü" * 299 + "v", "../../etc/passwd"]
    names = [file_name(text) for text in texts]
    assert len(set(names)) == len(texts)
    for name in names:
        assert re.fullmatch(r"[A-Za-z0-9._-]{1,160}", name)
        assert not name.startswith("/")
