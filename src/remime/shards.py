"""Which shard a video belongs to, and what shards and other files are called."""

from __future__ import annotations

import hashlib
import re

_MAX_NAME = 160
SHARD_PATTERN = r"\d{4,}-of-\d{4,}"


def shard_name(index: int, total: int) -> str:
    """``0007-of-0032``: the name carries the total, so that two totals never mix."""
    if not 0 <= index < total:
        raise ValueError(f"shard index {index} is not in 0..{total - 1}")
    return f"{index:04d}-of-{total:04d}"


def shard_names(total: int) -> list[str]:
    """The names of all shards of a dataset."""
    return [shard_name(i, total) for i in range(total)]


def parse_shard(name: str) -> tuple[int, int]:
    """``(index, total)`` of a shard's name; ValueError when it is not one."""
    if not re.fullmatch(SHARD_PATTERN, name):
        raise ValueError(f"{name!r} is not a shard name such as 0007-of-0032")
    index, total = (int(part) for part in name.split("-of-"))
    shard_name(index, total)
    return index, total


def stable_hash(text: str, *, salt: str = "") -> int:
    """A 64-bit hash that is the same on every machine and in every run."""
    return int.from_bytes(hashlib.blake2b((salt + text).encode(), digest_size=8).digest(), "big")


def shard_of(video: str, total: int) -> int:
    """The shard of a video. All clips of a video share one, so that it is decoded by one job."""
    return stable_hash(video) % total


def split_of(identity: str, seed: int, fractions: tuple[float, float] = (0.8, 0.1)) -> str:
    """``train``, ``val`` or ``test`` of an identity (P1, Sec. 3.3: 80/10/10, identity-disjoint).

    It depends on the identity's name alone: adding data moves nobody to another split.
    """
    u = stable_hash(identity, salt=f"split:{seed}:") / 2**64
    if u < fractions[0]:
        return "train"
    return "val" if u < fractions[0] + fractions[1] else "test"


def batch_of(pair: str, total: int) -> str:
    """The name of the batch that a pair of a protocol belongs to."""
    return shard_name(stable_hash(pair, salt="batch:") % total, total)


def file_name(text: str) -> str:
    """A name for a text that is unique, safe in file names and no longer than 160 bytes."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", text)
    # The cleaned name alone may stand for two texts, so a digest follows it.
    return f"{name[: _MAX_NAME - 9]}-{stable_hash(text) & 0xFFFFFFFF:08x}"
