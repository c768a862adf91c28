"""Model files: what goes in comes out, and nothing wrong is taken for right."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from remime import models
from remime.errors import InputError
from remime.models import load_model, read_meta, save_model, shipped

META = {"kind": "inverter", "method": "restyle-psp", "options": {"width": 8}}


@pytest.fixture
def tensors():
    source = torch.Generator().manual_seed(0)
    return {
        "weight": torch.randn(4, 3, 3, 3, generator=source).contiguous(memory_format=torch.channels_last),
        "view": torch.randn(6, 4, generator=source).T,
        "count": torch.tensor(7),
        "learned": torch.nn.Parameter(torch.randn(2, generator=source)),
    }


@pytest.mark.parametrize("half", [False, True])
def test_round_trip(tmp_path, tensors, half):
    save_model(tmp_path / "new" / "m.safetensors", tensors, META, half)
    model = load_model(tmp_path / "new" / "m.safetensors", "inverter")
    assert {k: v for k, v in model.meta.items() if k in META} == META
    assert model.tensors.keys() == tensors.keys()
    for name, tensor in model.tensors.items():
        expected = tensors[name].detach()
        if half and expected.is_floating_point():
            expected = expected.half().float()
        assert tensor.dtype == expected.dtype
        assert torch.equal(tensor, expected)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["m.safetensors"]


def test_meta_says_who_wrote_it(tmp_path, tensors):
    save_model(tmp_path / "m.safetensors", tensors, META)
    assert {"format", "stage", "remime"} <= read_meta(tmp_path / "m.safetensors").keys()


def test_wrong_kind(tmp_path, tensors):
    save_model(tmp_path / "m.safetensors", tensors, META)
    with pytest.raises(InputError, match=r"m\.safetensors.*'inverter'.*\n.*'method'"):
        load_model(tmp_path / "m.safetensors", "method")


def test_missing(tmp_path):
    with pytest.raises(InputError, match=r"m\.safetensors.*no such"):
        load_model(tmp_path / "m.safetensors")


@pytest.mark.parametrize("keep", [0, 4, 100, -8])
def test_cut_off(tmp_path, tensors, keep):
    path = tmp_path / "m.safetensors"
    save_model(path, tensors, META)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match="not a readable safetensors file"):
        load_model(path)


def test_foreign_file(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "m.safetensors")
    with pytest.raises(InputError, match="no description"):
        load_model(tmp_path / "m.safetensors")


def test_another_format(tmp_path, tensors, monkeypatch):
    monkeypatch.setattr(models, "FORMAT", 2)
    save_model(tmp_path / "m.safetensors", tensors, META)
    monkeypatch.undo()
    with pytest.raises(InputError, match="format 2"):
        load_model(tmp_path / "m.safetensors")


def test_shipped_models_are_found(tmp_path, tensors, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REMIME_MODELS", str(tmp_path / "mine"))
    with pytest.raises(InputError, match=r"mine.*models"):
        shipped("some-model")
    save_model(tmp_path / "models" / "some-model.safetensors", tensors, META)
    assert shipped("some-model").resolve() == tmp_path / "models" / "some-model.safetensors"
    save_model(tmp_path / "mine" / "some-model.safetensors", tensors, META)
    assert shipped("some-model") == tmp_path / "mine" / "some-model.safetensors"
    monkeypatch.delenv("REMIME_MODELS")
    assert shipped("some-model").resolve() == tmp_path / "models" / "some-model.safetensors"


def test_models_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REMIME_MODELS", raising=False)
    assert read_meta(shipped("mobile-preview"))["kind"] == "preview"
