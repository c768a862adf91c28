"""The index stage: where every latent lies and what is known of its frame."""

from __future__ import annotations

import pytest

from remime.errors import InputError
from remime.stages import index as stage
from remime.tables import read_meta, read_table, write_table
from tests import tiny


@pytest.fixture
def dataset(tmp_path):
    return tiny.make_dataset(tmp_path / "results" / "faces")


def run(dataset, **options):
    stage.run(dataset, "psp", dataset.index("psp"), options)
    return read_table(dataset.index("psp"), "latents").to_pylist()


def test_rows_tell_where_latents_lie(dataset):
    known = read_table(dataset.index("psp"), "latents").to_pylist()
    rows = run(dataset)
    keys = ("clip", "identity", "split", "shard", "row", "aligned_row", "frame", "time", "sampled")
    assert [[r[k] for k in keys] for r in rows] == [[r[k] for k in keys] for r in known]
    assert all(r["yaw"] == r["frame"] for r in rows)
    assert all(r["error"] == pytest.approx(0.01 * r["frame"]) for r in rows)
    assert read_meta(dataset.index("psp"))["inverter"] == "psp"


def test_sampled_clips_per_identity_are_limited(dataset):
    rows = run(dataset, sample_clips=1)
    sampled = {
        who: {r["clip"] for r in rows if r["identity"] == who and r["sampled"]} for who in ("ann", "bob")
    }
    assert {who: len(clips) for who, clips in sampled.items()} == {"ann": 1, "bob": 1}
    assert rows == run(dataset, sample_clips=1)
    assert {r["clip"] for r in run(dataset, sample_clips=2) if r["sampled"]} == tiny.CLIPS.keys()


def fail(dataset, clip, status):
    for shard in dataset.shard_names:
        rows = read_table(dataset.status(shard), "status").to_pylist()
        write_table(
            dataset.status(shard),
            "status",
            [{**r, "status": status} if r["clip"] == clip else r for r in rows],
        )


def test_yield(dataset):
    for clip, status in (("ann-1", "no_face"), ("ann-2", "no_face"), ("cid-1", "scene_cut")):
        fail(dataset, clip, status)
    with pytest.raises(InputError, match=r"faces: only 2 of 5 clips.*2 no_face.*1 scene_cut.*\n.*50%"):
        run(dataset)
    assert run(dataset, min_yield=0.4)


def test_missing_shard_is_named(dataset):
    dataset.latents("psp", dataset.shard_names[1]).unlink()
    with pytest.raises(InputError, match=dataset.shard_names[1]):
        run(dataset)


def test_command_line(dataset, tmp_path):
    stage.main(
        ["--dataset", f"{dataset.folder}=2", "--inverter", "psp", "--output", str(tmp_path / "i.parquet")]
    )
    assert read_table(tmp_path / "i.parquet", "latents").num_rows == 20
