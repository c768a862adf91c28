"""Inverters from their files."""

from __future__ import annotations

import pytest
import torch

from remime.encoders.inverter import STEPS, build_inverter, load_inverter
from remime.errors import InputError
from remime.models import load_model, save_model
from tests import tiny

pytestmark = pytest.mark.weights
OPTIONS = {"method": "restyle-psp", "preset": "small", "size": 64, "width": 8}


@pytest.fixture(autouse=True)
def _alexnet(weights):
    weights("lpips-alex")


@pytest.fixture
def images():
    return torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_options_of_an_inverter(weights):
    inverter = build_inverter({**OPTIONS, "refinements": 3, "spread": 0.1}, tiny.generator())
    assert (inverter.steps, inverter.size, inverter.decode_resolution) == (3, 64, 32)
    assert (inverter.encoder.rows, inverter.encoder.spread, inverter.encoder.local.in_channels) == (8, 0.1, 8)
    default = build_inverter(OPTIONS, tiny.generator())
    assert default.steps == STEPS
    alexnet = weights("lpips-alex").tensors["convolutions.2.weight"]
    assert torch.equal(default.encoder.trunk.net.convolutions[2].weight, alexnet)
    assert torch.equal(default.latent_avg, tiny.generator().mean_latent.expand(8, -1))


def test_file_gives_the_same_inverter(tmp_path, images):
    path = tiny.save_inverter(tmp_path / "model.safetensors", seed=3)
    loaded = load_inverter(path, tiny.generator())
    again = load_inverter(tiny.save_inverter(tmp_path / "again.safetensors", seed=3), tiny.generator())
    other = load_inverter(tiny.save_inverter(tmp_path / "other.safetensors", seed=4), tiny.generator())
    w_plus = loaded.invert(images)
    assert w_plus.shape == (3, tiny.ROWS, 512)
    assert torch.equal(w_plus, again.invert(images))
    assert not torch.equal(w_plus, other.invert(images))
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    assert loaded.steps == 2


def test_half_precision_files_do(tmp_path, images):
    inverter = load_inverter(tiny.save_inverter(tmp_path / "model.safetensors"), tiny.generator())
    options = {**OPTIONS, "refinements": 2}
    tensors = load_model(tmp_path / "model.safetensors").tensors
    meta = {"kind": "inverter", "generator": "tiny", "options": options}
    save_model(tmp_path / "half.safetensors", tensors, meta, half=True)
    assert (tmp_path / "half.safetensors").stat().st_size < 0.6 * (
        tmp_path / "model.safetensors"
    ).stat().st_size
    halved = load_inverter(tmp_path / "half.safetensors", tiny.generator())
    expected = inverter.invert(images)
    assert (halved.invert(images) - expected).abs().max() < 0.02 * expected.abs().max()


def test_generator_is_named_by_the_file(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "remime.encoders.inverter.load_generator", lambda n: asked.append(n) or tiny.generator()
    )
    load_inverter(tiny.save_inverter(tmp_path / "model.safetensors"))
    assert asked == ["tiny"]


def test_incomplete_files_are_refused(tmp_path):
    model = load_model(tiny.save_inverter(tmp_path / "m.safetensors"))
    for wrong in (
        {k: v for k, v in model.tensors.items() if k != "encoder.local.weight"},
        {**model.tensors, "encoder.more": torch.zeros(1)},
        {**model.tensors, "encoder.local.bias": torch.zeros(3)},
    ):
        save_model(tmp_path / "wrong.safetensors", wrong, model.meta)
        with pytest.raises(InputError, match=r"(?s)wrong\.safetensors: does not fit.*encoder\."):
            load_inverter(tmp_path / "wrong.safetensors", tiny.generator())


def test_other_models_are_refused(tmp_path):
    save_model(tmp_path / "m.safetensors", {"a": torch.zeros(1)}, {"kind": "method", "options": {}})
    with pytest.raises(InputError, match=r"m\.safetensors.*'method'"):
        load_inverter(tmp_path / "m.safetensors", tiny.generator())
