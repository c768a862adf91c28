"""The exported pairs: files that any system can read, written once."""

import csv
import os
import subprocess
import sys

import numpy as np
import pytest
import yaml
from PIL import Image

from remime import export, video
from remime.errors import InputError
from remime.export import Export, Options
from remime.stages import plan
from remime.tables import read_table, write_table
from tests import clips
from tests.evaluation import COLOURS, SIZE, make_dataset, motion, read_pairs, write_image


@pytest.fixture
def results(tmp_path):
    """A dataset whose clips have files with sound, except one, and a benchmark over it."""
    dataset = make_dataset(tmp_path / "results" / "faces")
    rows = read_table(dataset.manifest, "manifest").to_pylist()
    for row in rows:
        path = tmp_path / "clips" / f"{row['clip']}.mp4"
        clips.encode(path, clips.no_face(12, size=64), audio=row["clip"] != "cid")
        row |= {"path": str(path), "box": [1.0, 2.0, 30.0, 40.0] if row["clip"] == "bob-1" else None}
    write_table(dataset.manifest, "manifest", rows)
    benchmark = tmp_path / "results" / "benchmarks" / "cross"
    plan.run([dataset], benchmark / "pairs.parquet", {"pairs": 6, "targets": 2})
    return tmp_path / "results"


def run(results, protocol="cross", folder=None, **options):
    job = Export(results, protocol, folder or results.parent / "export", Options(**options))
    job.run()
    return job


def rows_of(folder):
    with (folder / "pairs.csv").open(newline="") as handle:
        return list(csv.DictReader(handle))


def stamps(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.*") if path.suffix in (".mp4", ".png")}


def test_every_pair_has_its_target_and_its_driving_video(results):
    folder = run(results).output
    rows = {row["pair"]: row for row in rows_of(folder)}
    pairs = read_pairs(results / "benchmarks" / "cross")
    assert set(rows) == {pair["pair"] for pair in pairs}
    for pair in pairs:
        row = rows[pair["pair"]]
        assert row["output"] == f"{pair['pair']}.mp4"
        target = np.asarray(Image.open(folder / row["target"]))
        assert target[..., 2].mean() == pytest.approx(COLOURS[pair["target_identity"]], abs=2)
        frames = [frame.image for frame in video.read(folder / row["driving"])]
        assert len(frames) == int(row["frames"]) == pair["frames"]
        reds = [image[..., 0].mean() for image in frames]
        yaws = [128 + 100 * yaw for yaw, _ in motion(pair["driving_clip"], pair["frames"])]
        assert reds == pytest.approx(yaws, abs=3)
        assert (row["fps"], row["driving_identity"]) == ("25", pair["driving_identity"])
        assert (row["sound"] == row["driving"]) == video.probe(folder / row["driving"]).has_audio
        assert bool(row["sound"]) == (pair["driving_clip"] != "cid")
    assert len(list((folder / "driving").iterdir())) == len({row["driving"] for row in rows.values()}) == 3


def test_frames_are_those_of_the_shard_without_loss(results):
    folder = run(results, frames=True).output
    row = rows_of(folder)[0]
    files = sorted((folder / row["driving_frames"]).iterdir())
    assert [file.name for file in files] == [f"{i:06d}.png" for i in range(int(row["frames"]))]
    pair = next(p for p in read_pairs(results / "benchmarks" / "cross") if p["pair"] == row["pair"])
    expected = export.Clips(list(export.datasets_of([pair], results).values())).driving(pair).frames()
    for file, image in zip(files, expected, strict=True):
        assert np.array_equal(np.asarray(Image.open(file)), image)


def test_originals_are_named_with_the_part_that_was_used(results):
    rows = rows_of(run(results, originals=True).output)
    row = next(row for row in rows if "bob-1.mp4" in row["driving_original"])
    assert row["driving_original"] == str(results.parent / "clips" / "bob-1.mp4")
    assert (float(row["driving_start"]), float(row["driving_end"])) == (0, pytest.approx(9 / 25))
    assert row["driving_box"] == "1 2 30 40"
    pair = next(p for p in read_pairs(results / "benchmarks" / "cross") if p["pair"] == row["pair"])
    assert float(row["target_time"]) == pytest.approx(pair["target_frame"] / 25)
    assert row["target_original"].endswith(f"{pair['target_clip']}.mp4")
    assert "driving_original" not in rows_of(run(results).output)[0]


def test_a_second_export_writes_nothing(results):
    first = run(results, frames=True)
    before = stamps(first.output)
    assert first.written == len(list((first.output / "targets").iterdir())) + 6
    assert run(results, frames=True).written == 0
    assert stamps(first.output) == before


def test_an_export_that_was_cut_off_goes_on(results, monkeypatch):
    whole, calls = run(results).written, []
    folder, real = results.parent / "other", video.Writer

    def dying(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(export, "Writer", dying)
    with pytest.raises(KeyboardInterrupt):
        run(results, folder=folder)
    assert not (folder / "pairs.csv").exists()
    done = len(stamps(folder))
    assert 0 < done < whole
    assert run(results, folder=folder).written == whole - done
    assert len(stamps(folder)) == whole


def test_what_has_changed_is_written_again_and_what_is_no_longer_used_goes(results):
    folder = run(results, frames=True).output
    (folder / "notes.txt").write_text("mine")
    lost = next((folder / "targets").iterdir())
    lost.unlink()
    assert run(results, frames=True).written == 1
    assert lost.exists()
    make_dataset(results / "faces")  # aligned anew
    job = run(results)
    assert job.written == len(stamps(folder))
    assert not list(folder.glob("frames/*"))
    assert (folder / "notes.txt").exists()


def test_a_folder_holds_one_protocol(results):
    run(results)
    dataset = make_dataset(results / "faces")
    plan.run([dataset], results / "benchmarks" / "self" / "pairs.parquet", {"protocol": "self", "pairs": 1})
    with pytest.raises(InputError, match="holds the export of protocol 'cross'"):
        run(results, "self")


def test_invented_targets_are_taken_from_a_models_videos(results):
    """Where a model has been run, no network is needed: its target is the picture that it was given."""
    benchmark = results / "benchmarks" / "invented"
    dataset = make_dataset(results / "faces")
    options = {"pairs": 2, "targets": 0, "random_identities": 1}
    plan.run([dataset], benchmark / "pairs.parquet", options)
    for pair in read_pairs(benchmark):
        picture = np.full((SIZE, SIZE, 3), 77, np.uint8)
        write_image(benchmark / "mapping/videos" / pair["batch"] / f"{pair['pair']}.target.png", picture)
    folder = results.parent / "invented"
    script = (
        "import sys; from pathlib import Path; from remime.export import Export\n"
        "Export(Path(sys.argv[1]), 'invented', Path(sys.argv[2])).run()\n"
        "assert not {'torch', 'dlib'} & set(sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", script, results, folder], check=True, env=environment)
    assert {int(np.asarray(Image.open(folder / row["target"])).mean()) for row in rows_of(folder)} == {77}


def test_the_readme_has_a_configuration_that_can_be_used(results):
    folder = run(results, frames=True, originals=True).output
    text = (folder / "README.md").read_text()
    for column in rows_of(folder)[0]:
        assert f"| `{column}` |" in text
    entry = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])["external"]["their-name"]
    assert set(entry) == {"path", "title", "align"}


def test_what_was_not_planned_is_named(results):
    with pytest.raises(InputError, match=r"(?s)does not exist.*planned: cross"):
        run(results, "self")
