"""What ``remime reenact`` refuses, and how it says so."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from remime import video, yuv
from remime.catalogue import EMBEDDED
from remime.cli import inputs, networks, reenact
from remime.errors import InputError
from remime.images import to_tensor
from remime.layout import APART
from remime.models import save_model
from remime.versions import __version__
from tests import clips
from tests.conftest import ROOT
from tests.unit.cli.conftest import describe


@pytest.fixture
def good(tmp_path):
    """Options that are all right as long as nobody looks for faces."""
    driving = clips.encode(tmp_path / "drivin g ü.mp4", clips.no_face(3))
    Image.fromarray(clips.portrait()).save(tmp_path / "target.png")
    return {"driving": driving, "target": tmp_path / "target.png", "output": tmp_path / "out" / "o.mp4"}


def arguments(options):
    return [part for key, value in options.items() for part in (f"--{key}", value)]


def text_as_video(folder):
    (folder / "a.mp4").write_text("this is no video\n" * 50)
    return folder / "a.mp4"


def empty(folder):
    (folder / "a.mp4").touch()
    return folder / "a.mp4"


def cut_image(folder):
    path = folder / "a.png"
    Image.fromarray(clips.portrait()).save(path)
    path.write_bytes(path.read_bytes()[:1000])
    return path


UNREADABLE = {
    "missing": (lambda folder: folder / "a.mp4", "is not a file"),
    "a folder": (lambda folder: folder, "is not a file"),
    "empty": (empty, "is empty"),
    "text": (text_as_video, "cannot be opened as a video"),
    "cut image": (cut_image, "cannot be read as an image"),
    "only sound": (lambda folder: clips.tone(folder / "a.mp4") or folder / "a.mp4", "only sound"),
}


SMALL = {"kind": "method", "method": "mapping", "preset": "small", "generator": EMBEDDED, "options": {}}


@pytest.fixture
def described(tmp_path, monkeypatch):
    """``described(changes)``: a model file whose description has these changes."""
    inverter = {"kind": "inverter", "method": "restyle-psp", "preset": "small", "options": {}}

    def make(**changes):
        meta = {**SMALL, **changes}
        path = tmp_path / "model.safetensors"
        save_model(path, {"x": torch.zeros(1)}, meta)
        save_model(
            tmp_path / "i.safetensors", {"x": torch.zeros(1)}, inverter | {"generator": meta["generator"]}
        )
        return reenact.Request(
            tmp_path, "random:1", tmp_path, model=path, inverter=tmp_path / "i.safetensors"
        )

    return make


DEFAULTS = {
    "expression_strength": reenact.EXPRESSION_STRENGTH,
    "relative_expression": reenact.RELATIVE_EXPRESSION,
}


@pytest.mark.parametrize("key", DEFAULTS)
@pytest.mark.parametrize(
    "changes",
    [{}, {"preset": "paper"}, {"generator": "stylegan2-x"}, {"options": {"correction": 8}}],
    ids=["small", "paper", "another generator", "correction"],
)
def test_expressions_are_held_back_where_they_can_be_told_from_turns(described, changes, key):
    request = described(**changes)
    assert getattr(reenact._files(request), key) == (APART if changes else DEFAULTS)[key]
    own = replace(request, **{key: 0.3})
    if changes:
        option = key.replace("_", "-")
        with pytest.raises(InputError, match=rf"--{option}: is 0\.3, but turns and expressions of"):
            reenact._files(own)
    else:
        assert getattr(reenact._files(own), key) == 0.3
    assert getattr(reenact._files(replace(request, **{key: APART[key]})), key) == APART[key]


@pytest.mark.parametrize("key", DEFAULTS)
def test_expressions_cannot_be_told_from_turns_by_linear(described, key):
    request = replace(described(), method="linear", model=None, **{key: 0.5})
    with pytest.raises(InputError, match=r"is 0\.5, but the method 'linear' has no such"):
        reenact._files(request)


def test_defaults_are_those_of_the_configuration():
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    assert {key: config["models"]["mapping"][key] for key in DEFAULTS} == DEFAULTS


@pytest.mark.parametrize("role", ["driving", "target"])
@pytest.mark.parametrize("case", UNREADABLE)
def test_unreadable_input(remime, good, models, tmp_path, role, case):
    make, said = UNREADABLE[case]
    folder = tmp_path / "bad one"
    folder.mkdir()
    good[role] = make(folder)
    code, out, err = remime("reenact", *arguments(good))
    assert code == 2
    assert err.startswith(f"error: {good[role]}: ")
    assert said in err
    assert out == ""
    assert not good["output"].exists()


OPTIONS = {
    "method": ({"method": "magic"}, "--method: 'magic' is unknown", "mapping"),
    "seed": ({"target": "random:abc"}, "'random:abc' has no seed", "random:7"),
    "resolution": ({"resolution": 300}, "--resolution: '300' is unknown", "256, 512, 1024"),
    "resolution type": ({"resolution": "big"}, "--resolution: 'big' is unknown", "256, 512, 1024"),
    "batch": ({"batch": 0}, "--batch", "1"),
    "device": ({"device": "tpu"}, "--device: 'tpu' is unknown", "auto, cpu, cuda"),
    "suffix": ({"output": "o.avi"}, "does not end in .mp4", "o.avi"),
    "no such model": ({"model": "nowhere.safetensors"}, "nowhere.safetensors", "there is no such model"),
    "no such inverter": (
        {"inverter": "nowhere.safetensors"},
        "nowhere.safetensors",
        "there is no such model",
    ),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_wrong_option(remime, good, models, case):
    changes, *said = OPTIONS[case]
    code, _, err = remime("reenact", *arguments({**good, **changes}))
    assert code == 2
    for text in said:
        assert text in err
    assert not good["output"].exists()


def test_missing_and_unknown_options(remime, good):
    assert remime("reenact", "--driving", good["driving"]).code == 2
    code, _, err = remime("reenact", *arguments(good), "--colour", "red")
    assert code == 2
    assert "--colour" in err


def test_output_folder_that_cannot_be_written_to(remime, good, models, tmp_path):
    (tmp_path / "file").touch()
    good["output"] = tmp_path / "file" / "o.mp4"
    code, _, err = remime("reenact", *arguments(good))
    assert code == 2
    assert "cannot be written to" in err


def test_output_over_the_driving_video(remime, good, models):
    before = good["driving"].read_bytes()
    code, _, err = remime("reenact", *arguments({**good, "output": good["driving"]}))
    assert code == 2
    assert "would be overwritten" in err
    assert good["driving"].read_bytes() == before


MISMATCHES = {
    "model of another method": ({"method": "linear", "model": "mapping"}, "not 'linear'"),
    "inverter as model": ({"model": "inverter"}, "--model takes a method's"),
    "method as inverter": ({"inverter": "mapping"}, "--inverter takes an inverter's"),
    "other generator": ({"model": "other"}, "'stylegan2-ffhq'"),
    "no model at all": ({"model": "text"}, "not a readable safetensors file"),
}


@pytest.mark.parametrize("case", MISMATCHES)
def test_models_that_do_not_fit(remime, good, models, case):
    changes, said = MISMATCHES[case]
    (models / "text.safetensors").write_text("no model")
    describe(models / "other.safetensors", "method", "mapping", "stylegan2-ffhq")
    files = {
        "mapping": models / "mapping-small.safetensors",
        "inverter": models / "restyle-psp-small.safetensors",
        "other": models / "other.safetensors",
        "text": models / "text.safetensors",
    }
    changes = {key: files.get(value, value) for key, value in changes.items()}
    code, _, err = remime("reenact", *arguments({**good, **changes}))
    assert code == 2
    assert said in err


@pytest.mark.weights
@pytest.mark.parametrize("role", ["driving", "target"])
@pytest.mark.parametrize("kind", ["image", "video"])
def test_no_face(remime, good, models, tmp_path, weights, role, kind):
    weights("dlib-landmarks-68")
    faceless = tmp_path / ("n f.png" if kind == "image" else "n f.mp4")
    if kind == "image":
        Image.fromarray(clips.no_face(1)[0]).save(faceless)
    else:
        clips.encode(faceless, clips.no_face(3))
    good["driving"] = good["target"]
    good[role] = faceless
    code, _, err = remime("reenact", *arguments(good))
    assert code == 2
    assert f"{faceless}: no face was found" in err
    assert not good["output"].parent.exists()


@pytest.mark.weights
@pytest.mark.parametrize("role", ["inverter", "model"])
def test_a_model_whose_tensors_do_not_fit(remime, good, models, weights, role):
    for name in networks.REENACT:
        weights(name)
    good["driving"] = good["target"]
    stub = models / "restyle-psp-small.safetensors"
    if role == "model":
        stub = models / "mapping-small.safetensors"
        good["inverter"] = ROOT / "models" / "restyle-psp-small.safetensors"
    code, _, err = remime("reenact", *arguments(good))
    assert code == 2
    assert str(stub) in err
    assert "fit" in err
    assert not good["output"].exists()


def test_networks_that_the_licence_refuses(remime, good, models):
    code, _, err = remime("reenact", *arguments({**good, "licence": "permissive"}))
    assert code == 1
    assert "'dlib-landmarks-68' are refused" in err
    code, _, err = remime("reenact", *arguments({**good, "licence": "mine"}))
    assert code == 2
    assert "allowed: any, research, permissive" in err


class FakeReenactor:
    """Its latents are the driving frames, and so is its result."""

    def __init__(self, pixel_format, said):
        self.pixel_format, self.said = pixel_format, said

    def drive(self, identity, images, latents, driving):
        self.said.append(("drive", torch.get_num_threads()))
        return torch.stack([torch.from_numpy(image) for image in images])

    def decode(self, w_plus):
        self.said.append(("decode", torch.get_num_threads()))
        for image in w_plus.numpy():
            yield image if self.pixel_format == "rgb24" else yuv.from_tensor(to_tensor(image[None]))[0]


class FakeEngine:
    def __init__(self, request, said):
        self.reenactor = FakeReenactor(request.pixel_format, said)


def film(tmp_path, monkeypatch, found, spare=True, said=None, **changes):
    """A film whose driving video has faces in ``found`` of its 10 frames; ``said`` hears what is done."""
    from remime.faces.stream import Faces, Moment

    said = [] if said is None else said
    driving = clips.encode(tmp_path / "d.mp4", clips.numbered(10, 256), fps=10, audio=True)
    request = reenact.Request(driving, "random:1", tmp_path / "o.mp4", **changes)
    model = tmp_path / "m.safetensors"
    meta = {"generator": "g"}
    files = reenact._Files("mapping", None, None, describe(model, "inverter", "x"), meta, 0, 1.0, 1.0, 0.0)
    moments = [m if m.index in found else Moment(m.index, m.time, None) for m in Faces(driving, aligned=True)]
    batches = [moments[:4], moments[4:8], moments[8:]]
    monkeypatch.setattr(reenact._Film, "_spare_core", lambda self: spare)
    made = reenact._Film(request, files, FakeEngine(request, said), clips.portrait()).make(
        batches, lambda: said.append("settle"), None, None, None
    )
    return made, request.output


@pytest.mark.parametrize(
    ("found", "numbers"),
    [
        (range(10), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ([2, 3, 6], [2, 2, 2, 3, 3, 3, 6, 6, 6, 6]),
        ([9], [9] * 10),
        ([0], [0] * 10),
    ],
)
@pytest.mark.parametrize("spare", [True, False])
def test_frames_without_a_face_repeat_their_neighbour(tmp_path, monkeypatch, found, numbers, spare):
    """Whether faces are found beside the networks or between two batches."""
    made, output = film(tmp_path, monkeypatch, found, spare)
    assert [clips.read_number(frame.image) for frame in video.read(output)] == numbers
    assert (made.frames, made.faceless) == (10, 10 - len(found))
    info = video.probe(output)
    assert (info.fps, info.has_audio) == (10, True)


def test_without_a_spare_core_nothing_works_beside_the_generator(tmp_path, monkeypatch):
    count = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        said = []
        film(tmp_path, monkeypatch, range(10), spare=False, said=said)
        assert said == [("drive", 1), "settle", ("decode", 2)] * 3
        said.clear()
        film(tmp_path, monkeypatch, range(10), spare=True, said=said)
        assert said == [("drive", 2), ("decode", 2)] * 3
    finally:
        torch.set_num_threads(count)


def test_a_video_says_where_it_comes_from(tmp_path, monkeypatch):
    _, output = film(tmp_path, monkeypatch, range(10))
    note = video.provenance(output)
    assert note["made_by"] == f"remime {__version__}"
    assert "generated" in note["synthetic"]
    assert (note["driving"], note["target"], note["layout"]) == ("d.mp4", "random:1", "aligned")
    assert note["precision"] == "float32"
    assert len(note["weights"]["inverter"]) == 64


def test_side_by_side_shows_three_labelled_pictures(tmp_path, monkeypatch):
    _, output = film(tmp_path, monkeypatch, range(10), side_by_side=True)
    frame = list(video.read(output))[5].image
    assert frame.shape == (256 + 22, 768, 3)
    pictures = [frame[22:, i * 256 : (i + 1) * 256] for i in range(3)]
    assert [clips.read_number(p) for p in pictures[1:]] == [5, 5]
    assert abs(pictures[0].mean() - clips.portrait().mean()) < 10
    assert video.provenance(output)["layout"] == "side-by-side"


def test_no_face_at_all_leaves_nothing(tmp_path, monkeypatch):
    with pytest.raises(Exception, match="no face"):
        film(tmp_path, monkeypatch, [])
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(("o.mp4", ".tmp.mp4"))]


def test_provenance_names_files_without_folders():
    request = reenact.Request(Path("/secret/d.mp4"), "/secret/t.png", Path("o.mp4"))
    assert request.target_name == "t.png"
    assert inputs.random_seed(request.target) is None
