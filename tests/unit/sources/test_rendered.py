"""What rendered datasets have in common."""

from __future__ import annotations

import json

import pytest

from remime.errors import InputError
from remime.shards import split_of
from remime.sources import heads, puppets
from remime.sources.rendered import rendered_clips

OPTIONS = {"identities": 2, "clips": 2, "frames": 3, "fps": 0.5, "seed": 7}


def clips(together):
    return rendered_clips(
        "mine", "who", OPTIONS, lambda *names: {"who": names}, terms="none", together=together
    )


def test_clips_follow_from_their_names():
    found = clips(False)
    names = [f"who-7-0000{person}-00{clip}" for person in (0, 1) for clip in (0, 1)]
    assert [clip.clip for clip in found] == names
    assert [clip.identity for clip in found] == [name[:11] for name in names]
    assert [json.loads(clip.path) for clip in found] == [{"who": [name[:11], name]} for name in names]
    assert {(clip.kind, clip.terms) for clip in found} == {("render", "none")}
    assert [clip.split for clip in found] == [split_of(name[:11], 7) for name in names]


def test_a_persons_clips_share_a_shard_when_asked():
    assert [clip.video for clip in clips(False)] == [clip.clip for clip in clips(False)]
    assert [clip.video for clip in clips(True)] == [clip.identity for clip in clips(True)]


@pytest.mark.parametrize("source", [heads, puppets])
@pytest.mark.parametrize("key", ["identities", "clips", "frames", "fps"])
def test_nothing_to_render_is_an_error(source, key):
    with pytest.raises(InputError, match=rf"datasets\.mine\.{key}.*0"):
        source.clips("mine", {key: 0}, None)
