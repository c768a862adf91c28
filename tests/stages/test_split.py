"""The stage ``split``."""

from __future__ import annotations

from pathlib import Path

from remime.shards import shard_name, shard_of
from remime.sources import Clip, read_clips
from remime.stages import split
from remime.tables import write_table


def clips(count: int) -> list[Clip]:
    """Clips of half as many videos."""
    return [
        Clip(
            f"clip-{i}", f"video-{i // 2}", f"who-{i}", "train", "video", f"{i}.mp4", box=(1.0, 2.0, 3.0, 4.0)
        )
        for i in range(count)
    ]


def shards(tmp_path: Path, members: list[Clip], total: int) -> dict[str, bytes]:
    write_table(tmp_path / "manifest.parquet", "manifest", [clip.row() for clip in members])
    split.run(tmp_path / "manifest.parquet", total, tmp_path / "shards")
    return {path.parent.name: path.read_bytes() for path in (tmp_path / "shards").glob("*/clips.tsv")}


def test_every_clip_is_in_the_shard_of_its_video(tmp_path: Path) -> None:
    members = clips(40)
    assert set(shards(tmp_path, members, 4)) == {shard_name(i, 4) for i in range(4)}
    found = {}
    for index in range(4):
        for clip in read_clips(tmp_path / "shards" / shard_name(index, 4) / "clips.tsv"):
            assert shard_of(clip.video, 4) == index
            found[clip.clip] = clip
    assert {name: clip.box for name, clip in found.items()} == {clip.clip: clip.box for clip in members}


def test_an_added_clip_changes_one_shard(tmp_path: Path) -> None:
    before = shards(tmp_path, clips(40), 8)
    after = shards(tmp_path, [*clips(40), Clip("new", "new", "new", "train", "video", "n.mp4")], 8)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {shard_name(shard_of("new", 8), 8)}


def test_the_order_of_the_manifest_does_not_matter(tmp_path: Path) -> None:
    assert shards(tmp_path, clips(20), 3) == shards(tmp_path, clips(20)[::-1], 3)


def test_empty_shards_have_a_list_too(tmp_path: Path) -> None:
    found = shards(tmp_path, clips(1), 16)
    assert len(found) == 16
    assert sum(len(read_clips(tmp_path / "shards" / name / "clips.tsv")) for name in found) == 1
