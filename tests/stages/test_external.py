"""Videos of other systems: fitted to the driving frames, scored and summed up like ours."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from remime import video
from remime.archive import AlignedWriter, encode_jpeg
from remime.errors import InputError
from remime.export import Export
from remime.faces.stream import LARGEST, Faces
from remime.stages import Dataset, external, figures, plan, score, sheet, summarize
from remime.tables import read_table, write_table
from tests import clips
from tests.evaluation import NETWORKS, SIZE, Fake, make_dataset, motion, read_pairs, write_videos

BATCH = "0000-of-0001"
OPTIONS = {"external": "theirs", "title": "Their | System", "align": False, "resolution": SIZE}


@pytest.fixture
def world(tmp_path):
    """A dataset and a cross benchmark over it."""
    results = tmp_path / "results"
    dataset = make_dataset(results / "faces")
    benchmark = results / "benchmarks" / "cross"
    plan.run([dataset], benchmark / "pairs.parquet", {"pairs": 4, "targets": 2})
    return dataset, benchmark


def exported(world, tmp_path):
    """The rows of the exported list, with their files as paths."""
    folder = tmp_path / "export"
    Export(world[1].parents[1], world[1].name, folder).run()
    rows = list(csv.DictReader((folder / "pairs.csv").open()))
    return [{**row, "target": folder / row["target"], "driving": folder / row["driving"]} for row in rows]


def encode(path, frames, fps=25.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = frames[0].shape[:2]
    with video.Writer(path, fps, (width, height), crf=1) as writer:
        for image in frames:
            writer.write(image)


def frames_of(path):
    return [frame.image for frame in video.read(path)]


def copies(world, tmp_path, folder):
    """A system that shows the driving video."""
    folder.mkdir(parents=True, exist_ok=True)
    for row in exported(world, tmp_path):
        shutil.copyfile(row["driving"], folder / row["output"])
    return folder


def stills(world, tmp_path, folder):
    """A system that shows the target as it is."""
    for row in exported(world, tmp_path):
        encode(folder / row["output"], [np.asarray(Image.open(row["target"]))] * int(row["frames"]))
    return folder


def run(world, folder, name="theirs", **options):
    dataset, benchmark = world
    output = benchmark / name / "videos" / BATCH
    return external.run(
        benchmark / "pairs.parquet", BATCH, [dataset], folder, output, folder.parent / "state" / name,
        {**OPTIONS, "external": name, **options},
    )  # fmt: skip


def scores(world, name):
    dataset, benchmark = world
    output = benchmark / name / "scores" / f"{BATCH}.parquet"
    score.run(
        benchmark / "pairs.parquet", BATCH, [dataset], benchmark / name / "videos" / BATCH, output,
        benchmark / name / "features" / f"{BATCH}.npz", {"model": name}, NETWORKS,
    )  # fmt: skip
    return read_table(output, "scores").to_pylist()


def summary(world, tmp_path, models):
    paths = [tmp_path / "report" / name for name in ("metrics.parquet", "metrics.csv", "tables.md")]
    protocols = {"cross": {"protocol": "cross", "batches": 1}}
    summarize.run([world[1]], *paths, {"models": models, "protocols": protocols})
    rows = read_table(paths[0], "metrics").to_pylist()
    return {(row["model"], row["metric"]): row for row in rows}, paths[2].read_text(), paths[0]


def clip_values(rows, metric):
    return {row["pair"]: row for row in rows if row["metric"] == metric and row["frame"] is None}


def first_pair(world):
    return max(read_pairs(world[1]), key=lambda pair: pair["frames"])


# The workflow hands over names in the order of the alphabet.
MODELS = {
    "copy": {"external": "Copy"},
    "ours": {"method": "linear", "inverter": "psp"},
    "still": {"external": "Still | picture"},
}


class TestTables:
    """Two trivial systems beside a model of ours."""

    @pytest.fixture
    def tables(self, world, tmp_path):
        write_videos(world[1], "ours", Fake(offset=0.1))
        for name, make in (("copy", copies), ("still", stills)):
            run(world, make(world, tmp_path, tmp_path / name), name, title=MODELS[name]["external"])
        for name in MODELS:
            scores(world, name)
        return summary(world, tmp_path, MODELS)

    def test_the_copy_has_the_motion_and_the_still_the_identity(self, tables):
        index, _, _ = tables
        assert index["copy", "pose_mae"]["value"] < 0.5
        assert index["copy", "fl_corr"]["value"] > 0.99
        assert index["copy", "csim"]["value"] < 0.9
        assert index["still", "csim"]["value"] > 0.999
        assert index["still", "pose_mae"]["value"] > 10
        assert index["still", "fl_corr"]["value"] is None  # nothing moves
        assert index["copy", "coverage"]["value"] == index["still", "coverage"]["value"] == 1

    def test_they_are_marked_and_what_needs_an_inversion_is_left_out(self, tables):
        index, text, _ = tables
        assert {name for (name, _), row in index.items() if row["external"]} == {"copy", "still"}
        assert ("ours", "csim_inversion") in index
        assert not any(metric == "csim_inversion" for name, metric in index if name != "ours")
        assert not any(name.startswith("inversion:") and row["external"] for (name, _), row in index.items())
        table = text.split("### Table 1 of P1\n\n")[1].split("\n\n")[0].splitlines()[2:5]
        firsts = [line.split(" | ")[0] for line in table]
        assert firsts == ["| ours (Base pSp)", "| Copy (external)", "| Still \\| picture (external)"]
        row = next(line for line in text.splitlines() if line.startswith("| Copy (external)"))
        assert row.count("|") == 11
        assert "| Still \\| picture (external), Pose" in text
        assert "are other people's systems" in text
        assert "Missing videos" not in text

    def test_pictures_and_plots_show_them(self, tables, world, tmp_path):
        options = {"models": MODELS, "videos": 1, "resolution": SIZE}
        pairs = world[1] / "pairs.parquet"
        captions = sheet.run(pairs, world[1], [world[0]], tmp_path / "sheet", options)
        name = next(name for name in captions if name.endswith(".mp4"))
        assert "ours, Copy (external), Still | picture (external)" in captions[name]
        assert {"grid_copy.png", "grid_still.png"} <= set(captions)
        options = {"models": MODELS, "protocols": {"cross": {"protocol": "cross", "batches": 1}}}
        figures.run(tables[2], [world[1]], [], None, tmp_path / "figures", options)
        for plot in ("cross_csim.svg", "cross_motion.svg"):
            assert "Copy (external)" in (tmp_path / "figures" / plot).read_text()


class TestLosses:
    """A bad video is counted; it never stops the others."""

    @pytest.fixture
    def broken(self, world, tmp_path):
        """Of four pairs: no file, no video, half of the frames, and one that is right."""
        folder = copies(world, tmp_path, tmp_path / "theirs")
        names = [pair["pair"] for pair in read_pairs(world[1])]
        (folder / f"{names[0]}.mp4").unlink()
        (folder / f"{names[1]}.mp4").write_bytes(b"not a video")
        half = frames_of(folder / f"{names[2]}.mp4")
        encode(folder / f"{names[2]}.mp4", half[: len(half) // 2])
        return folder, names

    def test_every_loss_has_a_status(self, world, broken):
        folder, names = broken
        outcomes = run(world, folder)
        assert [outcomes[name].status for name in names] == ["missing", "unreadable", "ok", "ok"]
        assert outcomes[names[0]].detail == f"no {names[0]}.mp4"
        assert "cannot be opened" in outcomes[names[1]].detail
        frames = {pair["pair"]: pair["frames"] for pair in read_pairs(world[1])}
        count = frames[names[2]]
        assert outcomes[names[2]].missing == tuple(range(count // 2, count))
        assert outcomes[names[2]].matched == "time"
        written = world[1] / "theirs" / "videos" / BATCH
        assert {path.name for path in written.glob("*.mp4")} == {f"{name}.mp4" for name in names[2:]}
        assert len(frames_of(written / f"{names[2]}.mp4")) == count
        assert len(list(written.glob("*.target.png"))) == 4

    def test_losses_are_counted_in_scores_and_tables(self, world, broken, tmp_path):
        folder, names = broken
        run(world, folder)
        rows = scores(world, "theirs")
        frames = {pair["pair"]: pair["frames"] for pair in read_pairs(world[1])}
        coverage = clip_values(rows, "coverage")
        for name in names[:2]:
            assert (coverage[name]["value"], coverage[name]["n"]) == (0, frames[name])
            assert clip_values(rows, "csim")[name]["value"] is None
        share = (frames[names[2]] // 2) / frames[names[2]]
        assert coverage[names[2]]["value"] == pytest.approx(share)
        assert clip_values(rows, "pose_mae")[names[2]]["value"] < 0.5
        assert clip_values(rows, "pose_mae")[names[2]]["n"] == frames[names[2]] // 2
        assert coverage[names[3]]["value"] == 1
        models = {"theirs": {"external": "Theirs"}}
        index, text, metrics = summary(world, tmp_path, models)
        assert index["theirs", "coverage"]["value"] == pytest.approx((share + 1) / 4)
        for name, status in zip(names, ("missing", "unreadable", "ok"), strict=False):
            line = next(
                line for line in text.splitlines() if line.startswith(f"| Theirs (external) | {name} |")
            )
            assert f"| {status} |" in line
        assert not any(names[3] in line for line in text.splitlines())
        options = {"models": models, "videos": 4, "resolution": SIZE}
        captions = sheet.run(world[1] / "pairs.parquet", world[1], [world[0]], tmp_path / "sheet", options)
        assert sum(name.endswith(".mp4") for name in captions) == 4
        options = {"models": models, "protocols": {"cross": {"protocol": "cross", "batches": 1}}}
        assert figures.run(metrics, [world[1]], [], None, tmp_path / "figures", options)

    def test_a_protocol_without_the_system_says_nothing_of_it(self, world, broken, tmp_path):
        run(world, broken[0])
        write_videos(world[1], "ours")
        scores(world, "ours")
        models = {"ours": {"method": "linear", "inverter": "psp"}, "theirs": {"external": "Theirs"}}
        paths = [tmp_path / name for name in ("m.parquet", "m.csv", "t.md")]
        protocols = {"cross": {"protocol": "cross", "batches": 1, "models": ["ours"]}}
        summarize.run([world[1]], *paths, {"models": models, "protocols": protocols})
        assert "external" not in paths[2].read_text()

    def test_a_long_list_of_losses_is_cut(self, world, tmp_path, monkeypatch):
        monkeypatch.setattr("remime.reporting.text._MOST_LOST", 1)
        (tmp_path / "nothing").mkdir()
        run(world, tmp_path / "nothing")
        scores(world, "theirs")
        index, text, _ = summary(world, tmp_path, {"theirs": {"external": "Theirs"}})
        frames = sum(pair["frames"] for pair in read_pairs(world[1])[1:])
        assert f"| Theirs (external) | and 3 more pairs | – | {frames} | – |" in text
        assert index["theirs", "coverage"]["value"] == 0
        assert index["theirs", "csim"]["value"] is None

    def test_a_video_that_is_not_square_needs_alignment(self, world, tmp_path):
        folder = copies(world, tmp_path, tmp_path / "theirs")
        pair = first_pair(world)
        encode(folder / f"{pair['pair']}.mp4", [np.zeros((64, 80, 3), np.uint8)] * pair["frames"])
        outcome = run(world, folder)[pair["pair"]]
        assert outcome.status == "not_square"
        assert "80×64 pixels; set align: true" in outcome.detail


def reds(path):
    return [image[..., 0].mean() for image in frames_of(path)]


def expected(pair):
    return [128 + 100 * yaw for yaw, _ in motion(pair["driving_clip"], pair["frames"])]


def test_equal_numbers_of_frames_are_matched_by_position(world, tmp_path):
    folder = copies(world, tmp_path, tmp_path / "theirs")
    pair = first_pair(world)
    path = folder / f"{pair['pair']}.mp4"
    encode(path, frames_of(path), fps=60)
    outcome = run(world, folder)[pair["pair"]]
    assert (outcome.matched, outcome.missing, outcome.source["fps"]) == ("position", (), 60)
    written = world[1] / "theirs" / "videos" / BATCH / path.name
    assert reds(written) == pytest.approx(expected(pair), abs=4)
    assert video.probe(written).fps == 25


@pytest.mark.parametrize("rate", [2, 3])
def test_other_rates_are_matched_by_time(world, tmp_path, rate):
    folder = copies(world, tmp_path, tmp_path / "theirs")
    pair = first_pair(world)
    path = folder / f"{pair['pair']}.mp4"
    encode(path, [image for image in frames_of(path) for _ in range(rate)], fps=25 * rate)
    outcome = run(world, folder)[pair["pair"]]
    assert (outcome.matched, outcome.missing) == ("time", ())
    assert reds(world[1] / "theirs" / "videos" / BATCH / path.name) == pytest.approx(expected(pair), abs=4)


def test_other_sizes_are_scaled_to_ours(world, tmp_path):
    folder = copies(world, tmp_path, tmp_path / "theirs")
    pair = first_pair(world)
    path = folder / f"{pair['pair']}.mp4"
    encode(path, [np.kron(image, np.ones((2, 2, 1), np.uint8)) for image in frames_of(path)])
    assert run(world, folder)[pair["pair"]].source["width"] == 2 * SIZE
    info = video.probe(world[1] / "theirs" / "videos" / BATCH / path.name)
    assert (info.width, info.height) == (SIZE, SIZE)


def test_the_protocols_own_folder_goes_first(world, tmp_path):
    folder = stills(world, tmp_path, tmp_path / "theirs")
    copies(world, tmp_path, folder / "cross")
    run(world, folder)
    assert np.mean([row["value"] for row in clip_values(scores(world, "theirs"), "pose_mae").values()]) < 0.5


def test_what_is_written_says_where_it_comes_from(world, tmp_path):
    folder = copies(world, tmp_path, tmp_path / "theirs")
    run(world, folder)
    pair = first_pair(world)["pair"]
    written = world[1] / "theirs" / "videos" / BATCH
    note = json.loads((written / f"{pair}.json").read_text())
    assert (note["external"], note["file"], note["status"]) == ("Their | System", f"{pair}.mp4", "ok")
    assert video.provenance(written / f"{pair}.mp4")["external"] == "theirs"


def test_a_killed_job_goes_on_and_a_changed_file_is_read_again(world, tmp_path, monkeypatch):
    folder = copies(world, tmp_path, tmp_path / "theirs")
    made, real = [], external.Faces

    def counting(path, *arguments):
        made.append(path.stem)
        if len(made) == 3:
            raise KeyboardInterrupt
        return real(path, *arguments)

    monkeypatch.setattr(external, "Faces", counting)
    with pytest.raises(KeyboardInterrupt):
        run(world, folder)
    assert not (world[1] / "theirs").exists()
    run(world, folder)
    assert len(made) == 5  # two before the end, the one that it hit, and two that were left
    state = folder.parent / "state"
    assert not list(state.rglob("*.mp4"))
    pair = first_pair(world)["pair"]
    (folder / f"{pair}.mp4").write_bytes(b"")
    assert run(world, folder)[pair].status == "unreadable"
    assert not (world[1] / "theirs" / "videos" / BATCH / f"{pair}.mp4").exists()


def test_pairs_that_do_not_fit_the_data_are_refused(world, tmp_path):
    folder = copies(world, tmp_path, tmp_path / "theirs")
    other = make_dataset(tmp_path / "other" / "faces", {"cid": ("cid", 3)})
    with pytest.raises(InputError, match="run plan again"):
        run((other, world[1]), folder)


def test_main_parses_the_workflows_command_line(world, tmp_path, capsys):
    folder = copies(world, tmp_path, tmp_path / "theirs")
    pair = first_pair(world)["pair"]
    (folder / f"{pair}.mp4").unlink()
    dataset, benchmark = world
    external.main(
        ["--pairs", f"{benchmark}/pairs.parquet", "--batch", BATCH, "--datasets", f"{dataset.folder}=1",
         "--folder", str(folder), "--output", f"{tmp_path}/out", "--state", f"{tmp_path}/state",
         "--options", json.dumps(OPTIONS)]
    )  # fmt: skip
    said = capsys.readouterr().out
    assert f"{pair}: missing: no {pair}.mp4" in said
    assert "external: 3 ok, 1 missing" in said


class TestAlignment:
    """Faces are cropped as ours are, whatever crop a system shows."""

    COUNT = 12

    @pytest.fixture
    def faces(self, tmp_path, weights):
        """A benchmark of one real face, and its frames before alignment."""
        weights("dlib-landmarks-68")
        path = clips.encode(tmp_path / "face.mp4", clips.moving_face(self.COUNT, size=320, scale=1.6))
        aligned = [moment.image for moment in Faces(path)]
        assert len(aligned) == self.COUNT
        dataset = Dataset(tmp_path / "results" / "faces", 1)
        shard = dataset.shard_names[0]
        n = self.COUNT
        with AlignedWriter(dataset.aligned(shard), {"resolution": LARGEST.size}) as writer:
            writer.add_clip(
                "face", 25.0, "eileen", [encode_jpeg(image) for image in aligned], np.zeros((n, 68, 2)),
                np.zeros((n, 2, 3)), np.arange(n) / 25, np.zeros(n, bool),
            )  # fmt: skip
        rows = [{"clip": "face", "stage": "align", "status": "ok", "frames": n}]
        write_table(dataset.status(shard), "status", rows)
        row = {"clip": "face", "identity": "eileen", "split": "test", "shard": shard, "row": 0, "frame": 0}
        write_table(dataset.index("psp"), "latents", [row])
        benchmark = tmp_path / "results" / "benchmarks" / "self"
        plan.run([dataset], benchmark / "pairs.parquet", {"protocol": "self", "pairs": 1})
        return (dataset, benchmark), path, aligned

    def fitted(self, world, folder, **options):
        outcome = next(iter(run(world, folder, resolution=256, **options).values()))
        pair = first_pair(world)["pair"]
        return outcome, frames_of(world[1] / "theirs" / "videos" / BATCH / f"{pair}.mp4")

    def test_the_uncropped_video_becomes_the_driving_frames(self, faces, tmp_path):
        world, path, aligned = faces
        folder = tmp_path / "theirs"
        folder.mkdir()
        shutil.copyfile(path, folder / f"{first_pair(world)['pair']}.mp4")
        outcome, images = self.fitted(world, folder, align=True)
        assert (outcome.status, outcome.missing) == ("ok", ())
        assert np.mean([np.abs(a.astype(int) - b).mean() for a, b in zip(images, aligned, strict=True)]) < 3
        _, raw = self.fitted(world, folder, align=False)
        assert np.mean([np.abs(a.astype(int) - b).mean() for a, b in zip(raw, aligned, strict=True)]) > 15

    def test_frames_without_a_face_are_missing_and_take_no_part(self, faces, tmp_path):
        world, path, _ = faces
        images = frames_of(path)
        images[-4:] = clips.no_face(4, size=320)
        pair = first_pair(world)["pair"]
        clips.encode(tmp_path / "theirs" / f"{pair}.mp4", images)
        outcome, written = self.fitted(world, tmp_path / "theirs", align=True)
        assert outcome.status == "ok"
        assert outcome.missing == tuple(range(self.COUNT - 4, self.COUNT))
        assert max(image.max() for image in written[-4:]) < 20
        rows = scores(world, "theirs")
        assert clip_values(rows, "pose_mae")[pair]["n"] == self.COUNT - 4

    def test_a_video_without_any_face_is_lost(self, faces, tmp_path):
        world, _, _ = faces
        pair = first_pair(world)["pair"]
        clips.encode(tmp_path / "theirs" / f"{pair}.mp4", clips.no_face(self.COUNT, size=320))
        outcomes = run(world, tmp_path / "theirs", align=True, resolution=256)
        assert outcomes[pair].status == "no_face"
        written = world[1] / "theirs" / "videos" / BATCH
        assert not (written / f"{pair}.mp4").exists()
        assert clip_values(scores(world, "theirs"), "coverage")[pair]["value"] == 0
