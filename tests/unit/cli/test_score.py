"""``remime score``: matching of frames, values, tables, bad input."""

import json

import pyarrow.parquet as pq
import pytest

from remime import video
from remime.cli import score
from remime.cli.score import Matched
from remime.faces.stream import Moment
from remime.metrics.scorer import CROSS, SELF
from tests import clips
from tests.evaluation import NETWORKS, frame, motion


def moments(times, names=None):
    return (Moment(i, time, (names or list(range(len(times))))[i]) for i, time in enumerate(times))


def matched(driving, generated, by_position=False, chunk=3):
    """Which generated frame every driving frame meets, read in chunks as the scorer does."""
    pair = Matched(moments(driving), moments(generated), by_position, generated[1] - generated[0])
    left, right = pair.left(), pair.right()
    found = []
    for _ in range(0, len(driving), chunk):
        asked = [next(left, None) for _ in range(chunk)]
        found += [next(right, None) for each in asked if each is not None]
    return found


AT_25 = [i / 25 for i in range(10)]


def test_equal_rates_match_frame_by_frame():
    assert matched(AT_25, AT_25) == list(range(10))
    assert matched(AT_25, [t + 0.004 for t in AT_25]) == list(range(10))


def test_by_position_rates_do_not_matter():
    assert matched(AT_25, [i / 30 for i in range(10)], by_position=True) == list(range(10))


def test_half_the_rate_is_matched_by_time():
    assert matched(AT_25, [i / 12.5 + 0.005 for i in range(5)]) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_twice_the_rate_is_matched_by_time():
    assert matched(AT_25, [i / 50 for i in range(20)]) == list(range(0, 20, 2))


def test_a_video_that_ends_early_has_missing_frames():
    assert matched(AT_25, AT_25[:6]) == [0, 1, 2, 3, 4, 5, None, None, None, None]


@pytest.fixture
def pair(tmp_path, monkeypatch):
    """Aligned videos of known motion, and networks that read it from the colours."""
    monkeypatch.setattr(score, "_networks", lambda request, device: NETWORKS)
    monkeypatch.setattr(score.networks, "ensure_all", lambda names, licence: [])
    lossless = ("-c:v", "libx264rgb", "-qp", 0)
    driving = [frame(y, p, 60) for y, p in motion("a", 12)]
    return {
        "driving": clips.encode(tmp_path / "dri ving.mp4", driving, codec=lossless),
        "generated": clips.encode(
            tmp_path / "génération.mp4", [frame(y, p, 120) for y, p in motion("a", 12)], codec=lossless
        ),
        "target": clips.encode(tmp_path / "t.mp4", [frame(0, 0, 120)], codec=lossless),
        "output": tmp_path / "new" / "scores.parquet",
    }


def arguments(options):
    return [part for key, value in options.items() for part in (f"--{key}", value)]


def test_table_and_json(remime, pair):
    code, out, _ = remime("score", *arguments(pair), "--aligned", "--json", "-")
    assert code == 0
    summary = json.loads(out)
    assert (summary["frames"], summary["missing"]) == (12, 0)
    values = {name: found["value"] for name, found in summary["metrics"].items()}
    assert set(values) == set(CROSS) - {"csim_inversion", "inversion_csim"}
    assert values["pose_mae"] == pytest.approx(0, abs=0.5)
    assert values["yaw_corr"] == pytest.approx(1, abs=1e-3)
    assert values["csim"] == pytest.approx(1, abs=1e-3)
    assert summary["metrics"]["pose_mae"]["better"] == "low"
    rows = pq.read_table(pair["output"]).to_pylist()
    assert {row["model"] for row in rows} == {"génération"}
    assert sum(row["metric"] == "pose_mae" and row["frame"] is not None for row in rows) == 12
    whole = {row["metric"]: row["value"] for row in rows if row["frame"] is None}
    assert whole == values


def test_image_metrics_when_the_target_is_the_driving_person(remime, pair, tmp_path):
    code, out, _ = remime("score", *arguments(pair), "--aligned", "--self", "--json", tmp_path / "s.json")
    assert code == 0
    values = json.loads((tmp_path / "s.json").read_text())["metrics"]
    assert set(values) == set(SELF) - {"csim_inversion", "inversion_csim"}
    # Only blue differs, by 60 of 255 levels.
    assert values["l1"]["value"] == pytest.approx(20, abs=1)
    assert "l1" in out
    assert "12 frames, 0 missing" in out


def test_frames_that_the_generated_video_lacks(remime, pair, tmp_path):
    pair["generated"] = clips.encode(tmp_path / "short.mp4", [frame(y, p, 120) for y, p in motion("a", 7)])
    code, out, _ = remime("score", *arguments(pair), "--aligned", "--json", "-")
    assert code == 0
    assert json.loads(out)["missing"] == 5
    assert json.loads(out)["metrics"]["coverage"]["value"] == pytest.approx(7 / 12)


def test_what_remime_made_is_known_to_be_aligned(remime, pair, tmp_path):
    with video.Writer(tmp_path / "m.mp4", 25, (64, 64), metadata={"made_by": "remime 0"}) as writer:
        for y, p in motion("a", 12):
            writer.write(frame(y, p, 120))
    assert score._is_aligned(tmp_path / "m.mp4")
    assert not score._is_aligned(pair["generated"])


BAD = {
    "missing": ("generated", lambda folder: folder / "no.mp4", "is not a file"),
    "text": ("driving", lambda folder: _text(folder / "x.mp4"), "cannot be opened as a video"),
    "seed": ("target", lambda folder: "random:abc", "has no seed"),
    "suffix": ("output", lambda folder: folder / "o.csv", "does not end in .parquet"),
    "json": ("json", lambda folder: folder / "o.txt", "does not end in .json"),
    "device": ("device", lambda folder: "tpu", "'tpu' is unknown"),
}


def _text(path):
    path.write_text("no video")
    return path


@pytest.mark.parametrize("case", BAD)
def test_bad_input(remime, pair, tmp_path, case):
    key, make, said = BAD[case]
    pair[key] = make(tmp_path)
    code, _, err = remime("score", *arguments(pair), "--aligned")
    assert code == 2
    assert said in err
    assert not pair["output"].exists()


def test_side_by_side_videos_are_refused(remime, pair, tmp_path):
    note = {"made_by": "remime 0", "layout": "side-by-side"}
    with video.Writer(tmp_path / "m.mp4", 25, (64, 64), metadata=note) as writer:
        writer.write(frame(0, 0, 0))
    code, _, err = remime("score", *arguments({**pair, "generated": tmp_path / "m.mp4"}))
    assert code == 2
    assert "side by side" in err


@pytest.mark.weights
def test_a_video_without_a_face(remime, pair, weights):
    weights("dlib-landmarks-68")
    code, _, err = remime("score", *arguments(pair))
    assert code == 2
    assert "no face was found" in err
