"""The command line for real: networks, ffmpeg, processes and signals."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from remime import video
from remime.cli import execute, networks, reenact
from remime.cli.ahead import Ahead
from remime.errors import InputError
from tests import clips

pytestmark = pytest.mark.weights

FACELESS, FACES = 2, 6


def _untrained(folder: Path) -> list[str]:
    """Options that name freshly initialised models, while the project ships none."""
    from remime.stages.train import run

    common = {"preset": "small", "generator": "mobile-ffhq", "steps": 0}
    for name, own in {
        "inverter": {"kind": "inverter", "method": "restyle-psp"},
        "model": {"kind": "method", "method": "mapping"},
    }.items():
        files = [folder / f"{name}{suffix}" for suffix in (".safetensors", ".parquet", ".md")]
        run(name, *files, folder / "state", {**common, **own})
    return ["--inverter", str(folder / "inverter.safetensors"), "--model", str(folder / "model.safetensors")]


@pytest.fixture(scope="module")
def models(weights, tmp_path_factory) -> list[str]:
    """Options for inverter and model; none where the shipped ones serve."""
    from remime.models import shipped

    for name in networks.defaults():
        weights(name)
    try:
        for name in (networks.INVERTER, networks.MODELS["mapping"]):
            shipped(str(name))
    except InputError:
        return _untrained(tmp_path_factory.mktemp("models"))
    return []


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    """Driving videos: faceless at both ends, long, and of one frame; and a target still."""
    folder = tmp_path_factory.mktemp("in puts ü")
    around = clips.no_face(FACELESS)
    frames = around + clips.moving_face(FACES) + around
    clips.encode(folder / "drivin g é.mp4", frames, fps=12, audio=True)
    clips.encode(folder / "one.mp4", clips.moving_face(1))
    clips.encode(folder / "long.mp4", clips.moving_face(12) * 25)
    Image.fromarray(clips.portrait()).save(folder / "tar get ö.png")
    return folder


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "remime.cli", *map(str, arguments)]


@pytest.fixture(scope="module")
def made(inputs, models, tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A real reenactment by the program itself."""
    output = tmp_path_factory.mktemp("out") / "new földer" / "re sult ß.mp4"
    done = subprocess.run(
        command(
            *("reenact", "--driving", inputs / "drivin g é.mp4", "--target", inputs / "tar get ö.png"),
            *("--output", output, *models),
        ),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return output, done


def test_reenactment_keeps_frames_rate_and_sound(made):
    output, done = made
    info = video.probe(output)
    assert (info.width, info.height, info.fps) == (256, 256, 12)
    assert info.has_audio
    frames = [frame.image for frame in video.read(output)]
    assert len(frames) == FACES + 2 * FACELESS
    # Before the first and after the last face nothing moves but the codec's rounding.
    for still in (frames[: FACELESS + 1], frames[-FACELESS - 1 :]):
        assert max(np.abs(a.astype(int) - still[0]).mean() for a in still) < 3
    assert f"driving frames without a face: {2 * FACELESS}" in done.stderr
    assert f"reenact: {len(frames)}/{len(frames)} frames" in done.stderr


def test_reenactment_leaves_one_file_that_says_what_it_is(made):
    output, _ = made
    assert [path.name for path in output.parent.iterdir()] == [output.name]
    note = video.provenance(output)
    assert note["driving"] == "drivin g é.mp4"
    assert note["target"] == "tar get ö.png"
    assert note["method"] == "mapping"


def test_score_of_a_reenactment(made, inputs, tmp_path, capfd):
    output, _ = made
    code = execute(
        [
            *("score", "--driving", str(inputs / "drivin g é.mp4"), "--generated", str(output)),
            *(
                "--target",
                str(inputs / "tar get ö.png"),
                "--output",
                str(tmp_path / "s.parquet"),
                "--json",
                "-",
            ),
        ]
    )
    assert code == 0
    summary = json.loads(capfd.readouterr().out)
    assert summary["frames"] == FACES + 2 * FACELESS
    assert summary["metrics"]["coverage"]["value"] == pytest.approx(FACES / summary["frames"])
    assert 0 <= summary["metrics"]["pose_mae"]["value"] < 30
    assert -1 <= summary["metrics"]["csim"]["value"] <= 1
    assert {row["pair"] for row in pq.read_table(tmp_path / "s.parquet").to_pylist()} == {"drivin g é"}


def test_frames_are_those_of_the_method(inputs, models, tmp_path):
    """The command's film against the parts put together by hand."""
    from remime.encoders.inverter import load_inverter
    from remime.faces.spaced import spaced_faces
    from remime.faces.stream import Faces
    from remime.generators import load_generator
    from remime.images import to_tensor
    from remime.methods import load_method
    from remime.models import shipped
    from remime.optimisation import load_optimiser
    from remime.reenactment import REST_FRAMES, Reenactor, invert, random_face

    driving = inputs / "drivin g é.mp4"
    arguments = ["--driving", str(driving), "--target", "random:7", "--output", str(tmp_path / "o.mp4")]
    strengths = ["--strength", "0.7", "--expression-strength", "0.6", "--relative-expression", "0.5"]
    assert execute(["reenact", "--optimise", "3", *strengths, *arguments, *models]) == 0
    files = [models[1], models[3]] if models else [shipped(networks.INVERTER), shipped("mapping-small")]
    generator = load_generator()
    inverter = load_inverter(files[0], generator)
    options = {"strength": 0.7, "expression_strength": 0.6, "relative_expression": 0.5}
    method = load_method({"method": "mapping", **options}, files[1], generator)
    face = random_face(generator, 7, 256)
    reenactor = Reenactor(generator, method, 256)
    fitted = load_optimiser(generator, 3)(to_tensor(face), invert(inverter, face[None])[0])
    identity = reenactor.identify(fitted)
    images = [moment.image for moment in Faces(driving) if moment.image is not None]
    rest = reenactor.at_rest([image for image in spaced_faces(driving, REST_FRAMES) if image is not None])
    expected = list(reenactor.frames(identity, images, driving=rest))
    found = [frame.image for frame in video.read(tmp_path / "o.mp4")][FACELESS:-FACELESS]
    assert len(found) == len(expected) == FACES
    for a, b in zip(found, expected, strict=True):
        assert np.abs(a.astype(int) - b).mean() < 3


def test_the_driving_face_is_looked_at_while_the_target_is_fitted(inputs, models, tmp_path, monkeypatch):
    begun: list[Ahead[Any]] = []

    class Noted(Ahead[Any]):
        def __enter__(self) -> Noted:
            begun.append(self)
            return super().__enter__()

    fit = reenact._identity

    def fit_slowly(*arguments: Any) -> Any:
        # It is begun, and comes to its end without anybody asking for it.
        assert len(begun) == 2
        begun[1].settle()
        return fit(*arguments)

    monkeypatch.setattr("remime.cli.ahead.Ahead", Noted)
    monkeypatch.setattr(reenact, "_identity", fit_slowly)
    arguments = ["--driving", inputs / "one.mp4", "--target", "random:1", "--output", tmp_path / "o.mp4"]
    assert execute(["reenact", *map(str, arguments), *models]) == 0


def test_linear_method_with_a_target_video(inputs, models, tmp_path):
    """With the driving video as its own target, the linear method gives the inversions of its frames."""
    from remime.encoders.inverter import load_inverter
    from remime.faces.stream import Faces
    from remime.generators import load_generator
    from remime.models import shipped
    from remime.reenactment import Decoder, invert

    driving = inputs / "drivin g é.mp4"
    arguments = ["--driving", str(driving), "--target", str(driving), "--output", str(tmp_path / "o.mp4")]
    assert execute(["reenact", "--method", "linear", *arguments, *models[:2], "--batch", "4"]) == 0
    generator = load_generator()
    inverter = load_inverter(models[1] if models else shipped(networks.INVERTER), generator)
    images = np.stack([moment.image for moment in Faces(driving) if moment.image is not None])
    decoder = Decoder(generator, 256)
    expected = list(decoder.decode(invert(inverter, images)))
    found = [frame.image for frame in video.read(tmp_path / "o.mp4")]
    assert len(found) == FACES + 2 * FACELESS
    for a, b in zip(found[FACELESS:-FACELESS], expected, strict=True):
        assert np.abs(a.astype(int) - b).mean() < 3
    assert [path.name for path in tmp_path.iterdir()] == ["o.mp4"]


def test_a_clip_of_one_frame_side_by_side(inputs, models, tmp_path):
    arguments = ["--driving", inputs / "one.mp4", "--target", "random:1", "--output", tmp_path / "o.mp4"]
    assert execute(["reenact", *map(str, arguments), *models, "--side-by-side"]) == 0
    info = video.probe(tmp_path / "o.mp4")
    assert (info.width, info.frames, info.has_audio) == (768, 1, False)


def _wait(condition: Callable[[], object], process: subprocess.Popen[str], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_it_leaves_nothing(inputs, models, tmp_path, number, code):
    folder = tmp_path / "out"
    process = subprocess.Popen(
        command(
            *("reenact", "--driving", inputs / "long.mp4", "--target", inputs / "tar get ö.png"),
            *("--output", folder / "o.mp4", *models),
        ),
        stderr=subprocess.PIPE,
        text=True,
        # A test run in the background ignores Ctrl-C, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    _wait(lambda: folder.exists() and any(folder.iterdir()), process)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(number)
    _, said = process.communicate(timeout=120)
    assert process.returncode == code
    assert "Traceback" not in said
    assert list(folder.iterdir()) == []
