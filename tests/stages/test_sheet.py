"""Side-by-side videos and grids, checked by the colours that the fake methods draw."""

import json

import cv2
import numpy as np
import pytest

from remime import video
from remime.errors import InputError
from remime.reporting import pictures
from remime.stages import plan, sheet
from remime.tables import read_table
from tests.evaluation import (
    COLOURS,
    SIZE,
    Fake,
    face,
    make_dataset,
    motion,
    read_pairs,
    write_answers,
    write_videos,
)

MODELS = {"linear": {}, "mapping": {}}
OPTIONS = {"models": MODELS, "videos": 2, "identities": 2, "motions": 3, "resolution": SIZE}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    dataset = make_dataset(root / "results" / "faces")
    benchmark = root / "results" / "benchmarks" / "cross"
    options = {"pairs": 6, "targets": 2, "target_choice": "shared", "random_identities": 1}
    plan.run([dataset], benchmark / "pairs.parquet", options)
    write_videos(benchmark, "linear", Fake(offset=0.2))
    write_videos(benchmark, "mapping")
    return dataset, benchmark


def run(world, tmp_path, **options):
    dataset, benchmark = world
    output = tmp_path / "videos" / "cross"
    pairs = benchmark / "pairs.parquet"
    captions = sheet.run(pairs, benchmark, [dataset], output, {**OPTIONS, **options})
    return captions, output


def blue(image) -> float:
    return float(np.asarray(image)[..., 2].mean())


def tiles_of(image, columns: int, strip: int) -> list:
    height, width = strip + SIZE, SIZE
    rows = image.shape[0] // height
    return [
        image[r * height + strip : (r + 1) * height, c * width : (c + 1) * width]
        for r in range(rows)
        for c in range(columns)
    ]


def test_files_and_captions_belong_together(world, tmp_path):
    captions, output = run(world, tmp_path)
    assert json.loads((output / "sheet.json").read_text()) == captions
    assert {path.name for path in output.iterdir()} == {*captions, "sheet.json"}
    assert len([name for name in captions if name.endswith(".mp4")]) == 2
    assert {"methods.png", "grid_linear.png", "grid_mapping.png"} <= set(captions)


def test_comparison_shows_driving_target_and_each_model_in_step(world, tmp_path):
    captions, output = run(world, tmp_path)
    name = next(name for name in captions if name.endswith(".mp4"))
    pair = next(pair for pair in read_pairs(world[1]) if name.startswith(pair["pair"]))
    frames = [frame.image for frame in video.read(output / name)]
    assert len(frames) == pair["frames"]
    assert video.probe(output / name).fps == pytest.approx(25)
    yaws = [angles[0] for angles in motion(pair["driving_clip"], pair["frames"])]
    for image, yaw in zip(frames, yaws, strict=True):
        driving, target, linear, mapping = tiles_of(image, 4, pictures.LABEL)
        assert driving[..., 0].mean() == pytest.approx(128 + 100 * yaw, abs=4)
        assert mapping[..., 0].mean() == pytest.approx(128 + 100 * yaw, abs=4)
        assert linear[..., 0].mean() == pytest.approx(min(255, 148 + 100 * yaw), abs=4)
        assert blue(target) == pytest.approx(COLOURS.get(pair["target_identity"], 90), abs=4)
    assert video.provenance(output / name)["tiles"] == ["driving", "target", "linear", "mapping"]


def test_grid_keeps_identities_in_columns_and_motions_in_rows(world, tmp_path):
    captions, output = run(world, tmp_path)
    assert "grid_mapping.png" in captions
    image = cv2.imread(str(output / "grid_mapping.png"))[..., ::-1]
    columns = image.shape[1] // SIZE
    cells = tiles_of(image, columns, 0)
    rows = [cells[i : i + columns] for i in range(0, len(cells), columns)]
    assert len(rows) == 4
    assert columns == 3
    for row in rows[1:]:
        for top, cell in zip(rows[0][1:], row[1:], strict=True):
            assert blue(cell) == pytest.approx(blue(top), abs=5)
            assert cell[..., 0].mean() == pytest.approx(row[0][..., 0].mean(), abs=5)


def test_grid_search_finds_what_is_full():
    def pair(driver, target):
        return {
            "driving_dataset": "d", "driving_clip": driver, "target_dataset": "d", "target_clip": target,
            "target_frame": 0,
        }  # fmt: skip

    pairs = [pair("a", "x"), pair("b", "y"), pair("a", "y"), pair("b", "z"), pair("c", "y"), pair("c", "x")]
    grid = sheet.full_grid(pairs, 4, 4)
    assert {t.split("/")[1] for t in grid.targets} == {"x", "y"}
    assert {d.split("/")[1] for d in grid.drivers} == {"a", "c"}
    assert all((d, t) in grid.cells for d in grid.drivers for t in grid.targets)
    assert sheet.full_grid([], 4, 4) is None


def test_videos_are_of_different_clips(world):
    pairs = read_table(world[1] / "pairs.parquet", "pairs").to_pylist()
    drivers = {pair["driving_clip"] for pair in pairs}
    assert {pair["driving_clip"] for pair in sheet.varied(pairs, len(drivers))} == drivers
    assert len(sheet.varied(pairs, 99)) == len(pairs)


def test_self_reenactment_has_no_grid(world, tmp_path):
    benchmark = tmp_path / "self"
    plan.run([world[0]], benchmark / "pairs.parquet", {"protocol": "self", "pairs": 1})
    write_videos(benchmark, "mapping")
    options = {**OPTIONS, "models": {"mapping": {}}}
    captions = sheet.run(benchmark / "pairs.parquet", benchmark, [world[0]], tmp_path / "out", options)
    assert "methods.png" in captions
    assert not any(name.startswith("grid") for name in captions)


def test_missing_video_is_named_and_nothing_is_left(world, tmp_path):
    with pytest.raises(InputError, match="newcomer"):
        run(world, tmp_path, models={"newcomer": {}})
    assert not list((tmp_path / "videos").iterdir())


@pytest.mark.parametrize("wrong", [{"motions": 0}, {"resolution": 8}])
def test_wrong_option_is_named(world, tmp_path, wrong):
    with pytest.raises(InputError, match=f"sheet: {next(iter(wrong))}"):
        run(world, tmp_path, **wrong)


def test_distinct_frames_are_far_apart():
    points = np.repeat(face()[None], 20, axis=0)
    points[4] += 30
    points[15] -= 30
    assert pictures.distinct(points, 2) == [4, 15]
    assert pictures.distinct(points[:0], 2) == []
    assert len(pictures.distinct(points[:1], 3)) == 1


def test_labels_fit_and_know_other_alphabets():
    strip = pictures.label("Žofie " * 40, 100)
    assert strip.shape == (pictures.LABEL, 100, 3)
    assert (pictures.label("Ж", 60) != pictures.label("Я", 60)).any()


def test_main_parses_the_workflows_command_line(world, tmp_path):
    dataset, benchmark = world
    sheet.main(
        ["--pairs", f"{benchmark}/pairs.parquet", "--benchmark", str(benchmark), "--datasets",
         f"{dataset.folder}=1", "--output", f"{tmp_path}/out", "--options",
         json.dumps({**OPTIONS, "videos": 0})]
    )  # fmt: skip
    assert (tmp_path / "out" / "sheet.json").exists()


def test_true_answers_have_a_panel_of_their_own(world, tmp_path):
    dataset, _ = world
    benchmark = tmp_path / "results" / "benchmarks" / "truth"
    plan.run([dataset], benchmark / "pairs.parquet", {"protocol": "truth", "pairs": 2, "targets": 1})
    write_videos(benchmark, "linear", Fake(identity=50))
    write_videos(benchmark, "mapping", Fake(identity=50))
    write_answers(benchmark)
    captions, output = run((dataset, benchmark), tmp_path)
    assert not [name for name in captions if name.startswith("grid")]
    name, caption = next((n, c) for n, c in captions.items() if n.endswith(".mp4"))
    assert "driving, target, true answer, linear, mapping" in caption
    pair = next(pair for pair in read_pairs(benchmark) if name.startswith(pair["pair"]))
    assert video.provenance(output / name)["tiles"][2] == "true answer"
    yaws = [angles[0] for angles in motion(pair["driving_clip"], pair["frames"])]
    frames = [frame.image for frame in video.read(output / name)]
    assert len(frames) == pair["frames"]
    for image, yaw in zip(frames, yaws, strict=True):
        answer = tiles_of(image, 3, pictures.LABEL)[2]
        assert answer[..., 0].mean() == pytest.approx(128 + 100 * yaw, abs=4)
        assert blue(answer) == pytest.approx(COLOURS[pair["target_identity"]], abs=4)
    figure = cv2.imread(str(output / "methods.png"))
    assert figure.shape[0] == 5 * (SIZE + pictures.LABEL)
