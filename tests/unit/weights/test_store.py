"""Conversion once, loading, and what is said about damaged files."""

import json
import sys
import types
from pathlib import Path

import pytest
import torch

from remime.errors import WeightsError
from remime.weights import ensure, load, original, originals, verify, weights_dir
from remime.weights.convert import convert

from .conftest import digest

DATA = bytes(range(12))


@pytest.fixture
def net(tmp_path, monkeypatch, use_table):
    """A row ``net`` whose original lies on disk and whose converter counts its runs."""
    source = tmp_path / "net.bin"
    source.write_bytes(DATA)
    use_table(
        {
            "name": "net",
            "role": "pose",
            "upstream": source.as_uri(),
            "member": "p/net.bin",
            "sha256": digest(DATA),
            "converter": "fake",
            "package_terms": "MIT",
            "weights_terms": "no Mondays",
            "terms": "research",
        }
    )
    module = types.ModuleType("fake")
    module.runs, module.VERSION = 0, 1

    def run(files):
        module.runs += 1
        values = torch.frombuffer(bytearray(files["net.bin"].read_bytes()), dtype=torch.uint8)
        return {"a.weight": values.float().view(3, 4).T, "index": values.long()}, {"graph": {"nodes": [1]}}

    module.convert = run
    monkeypatch.setitem(sys.modules, "remime.weights.convert.fake", module)
    module.folder = tmp_path / "w"
    return module


def test_convert_once_and_load(net):
    path = ensure("net", net.folder)
    assert path == net.folder / "net.safetensors"
    weights = load("net", net.folder)
    assert torch.equal(weights.tensors["a.weight"], torch.arange(12.0).view(3, 4).T)
    assert weights.tensors["index"].dtype == torch.int64
    assert weights.meta["graph"] == {"nodes": [1]}
    assert weights.meta["sha256"] == {"net.bin": digest(DATA)}
    assert weights.meta["source"]["net.bin"].startswith("file://")
    assert weights.meta["terms"]["weights"] == "no Mondays"
    assert weights.meta["shapes"] == {"a.weight": [4, 3], "index": [12]}
    assert original("net", net.folder).read_bytes() == DATA
    ensure("net", net.folder)
    assert net.runs == 1
    assert verify("net", net.folder)["safetensors"]["sha256"] == digest(path.read_bytes())


def test_a_newer_converter_converts_again_and_remembers_the_source(net):
    ensure("net", net.folder)
    source = load("net", net.folder).meta["source"]
    net.VERSION = 2
    with pytest.raises(WeightsError, match="another converter"):
        verify("net", net.folder)
    ensure("net", net.folder)
    assert net.runs == 2
    assert load("net", net.folder).meta["source"] == source


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: b"\xff" * len(data),
        lambda data: data[:-1],
    ],
    ids=["half", "empty", "garbage", "one byte"],
)
def test_a_damaged_file_is_told_and_mended(net, damage):
    path = ensure("net", net.folder)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(WeightsError, match=r"net\.safetensors: damaged") as error:
        load("net", net.folder)
    assert "delete it, then python -m remime.stages.weights --name net" in str(error.value)
    ensure("net", net.folder)
    assert net.runs == 2
    assert verify("net", net.folder)


def test_a_changed_file_is_found_by_verify(net):
    path = ensure("net", net.folder)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(WeightsError, match="was changed since it was made"):
        verify("net", net.folder)


def test_a_description_that_does_not_fit(net):
    ensure("net", net.folder)
    description = net.folder / "net.json"
    meta = json.loads(description.read_text())
    meta["shapes"]["index"] = [13]
    description.write_text(json.dumps(meta))
    with pytest.raises(WeightsError, match="other tensors than"):
        load("net", net.folder)
    for text in ("{", "[]", '{"name": "other", "shapes": {}}'):
        description.write_text(text)
        with pytest.raises(WeightsError, match=r"net\.json"):
            load("net", net.folder)
        ensure("net", net.folder)
        assert load("net", net.folder).meta["name"] == "net"


def test_absent_weights_say_where_to_get_them(net):
    with pytest.raises(WeightsError) as error:
        load("net", net.folder)
    text = str(error.value)
    assert "python -m remime.stages.weights --name net" in text
    assert digest(DATA) in text
    assert str(net.folder / "originals" / "net" / "net.bin") in text
    with pytest.raises(WeightsError, match="originals"):
        original("net", net.folder)
    with pytest.raises(WeightsError, match="no weights are called"):
        load("other", net.folder)


def test_a_changed_original_is_refused(net):
    ensure("net", net.folder)
    originals("net", net.folder)["net.bin"].write_bytes(b"other")
    with pytest.raises(WeightsError, match="is not the file with sha256"):
        original("net", net.folder)


def test_the_policy_is_checked_before_anything_is_fetched(net):
    with pytest.raises(WeightsError, match=r"'net' are refused by licence: permissive"):
        ensure("net", net.folder, licence="permissive")
    assert not net.folder.exists()
    ensure("net", net.folder, licence="research")


def test_a_failing_converter_leaves_nothing_behind(net):
    def fail(_files):
        raise WeightsError("net.bin: holds something else")

    net.convert = fail
    with pytest.raises(WeightsError, match="something else"):
        ensure("net", net.folder)
    assert [path.name for path in net.folder.iterdir()] == ["originals"]


def test_weights_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("REMIME_WEIGHTS", str(tmp_path / "mine"))
    assert weights_dir() == tmp_path / "mine"
    monkeypatch.delenv("REMIME_WEIGHTS")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert weights_dir() == tmp_path / ".cache" / "remime" / "weights"
    (tmp_path / "resources" / "weights").mkdir(parents=True)
    assert weights_dir() == Path("resources/weights")


def test_converters_that_are_missing(monkeypatch):
    with pytest.raises(WeightsError, match=r"'nonesuch' of workflow/weights\.tsv does not exist"):
        convert("nonesuch", {})
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.delitem(sys.modules, "remime.weights.convert.onnx", raising=False)
    with pytest.raises(WeightsError, match="needs the Python package 'onnx'"):
        convert("onnx", {})
