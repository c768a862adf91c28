"""``remime weights``."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from remime import weights as store
from remime.cli import networks
from remime.errors import WeightsError
from remime.layout import Layout
from remime.options import validate

from ..weights import official

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def nothing(tmp_path, monkeypatch):
    """A folder without weights, and no network."""
    monkeypatch.setenv("REMIME_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("REMIME_OFFLINE", "1")
    return tmp_path / "weights"


def test_list_names_all_networks_with_state_and_terms(remime, nothing):
    code, out, _ = remime("weights", "list", "--json")
    assert code == 0
    found = {row["name"]: row for row in json.loads(out)}
    assert set(found) == set(store.read_registry())
    assert {row["state"] for row in found.values()} == {"missing"}
    assert found["sface"]["terms"] == store.find_entry("sface").terms
    assert found["sface"]["used_by"] == ["score"]
    assert found["lpips-vgg"]["used_by"] == []
    code, out, _ = remime("weights", "list")
    assert len(out.splitlines()) == len(found)


def test_networks_of_the_defaults_are_in_the_table():
    assert set(networks.defaults()) <= set(store.read_registry())


def test_a_default_run_uses_no_others():
    config = validate(yaml.safe_load((ROOT / "config.yaml").read_text()), base=ROOT)
    assert set(Layout(config).networks_used()) <= set(networks.defaults())


@pytest.mark.parametrize("command", ["fetch", "verify"])
def test_unknown_name(remime, nothing, command):
    code, _, err = remime("weights", command, "sface", "nope")
    assert code == 2
    assert "no weights are called nope" in err
    assert "mobile-ffhq" in err


def test_fetch_without_a_network_says_what_to_do(remime, nothing):
    code, _, err = remime("weights", "fetch", "sface")
    assert code == 1
    assert "fetching sface" in err
    assert str(nothing / "originals" / "sface") in err


def test_fetch_refuses_by_terms_before_it_fetches_anything(remime, nothing):
    code, _, err = remime("weights", "fetch", "sface", "hopenet-lite", "--licence", "permissive")
    assert code == 1
    assert "'hopenet-lite' are refused" in err
    assert "fetching" not in err


def test_verify_missing(remime, nothing):
    code, out, err = remime("weights", "verify", "sface")
    assert code == 1
    assert "sface: missing" in out
    assert "remime weights fetch sface" in err
    code, _, err = remime("weights", "verify")
    assert code == 0
    assert "remime weights fetch" in err


@pytest.mark.weights
def test_verify_finds_a_changed_file(remime, nothing, weights, monkeypatch):
    with monkeypatch.context() as original:
        original.delenv("REMIME_WEIGHTS")
        original.delenv("REMIME_OFFLINE")
        original.setenv(
            "REMIME_WEIGHTS", str(__import__("tests.conftest").conftest.ROOT / "resources" / "weights")
        )
        weights("blendshapes")
        source = store.weights_dir()
    nothing.mkdir()
    for suffix in (".safetensors", ".json"):
        (nothing / f"blendshapes{suffix}").write_bytes((source / f"blendshapes{suffix}").read_bytes())
    assert remime("weights", "verify", "blendshapes").out == "blendshapes: verified\n"
    path = nothing / "blendshapes.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    code, out, _ = remime("weights", "verify")
    assert code == 1
    assert "blendshapes: damaged" in out


def test_import_tells_what_a_file_is_and_lists_it(remime, nothing, tmp_path):
    path = official.nvidia_pickle(tmp_path / "ffhq.pkl", official.nvidia_generator(8))
    code, out, err = remime("weights", "import", path)
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "ffhq.pkl: stylegan2 (generator)"
    assert "use: in a configuration: generator: stylegan2-ffhq; in Python: remime.generators" in out
    assert f"file: {nothing / 'stylegan2-ffhq.safetensors'}" in out
    _, out, _ = remime("weights", "list", "--json")
    row = json.loads(out)[-1]
    assert (row["name"], row["role"], row["state"], row["terms"]) == (
        "stylegan2-ffhq",
        "generator",
        "present",
        "unknown",
    )
    assert remime("weights", "verify", "stylegan2-ffhq").out == "stylegan2-ffhq: verified\n"
    file = nothing / "stylegan2-ffhq.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    code, out, err = remime("weights", "verify")
    assert code == 1
    assert "stylegan2-ffhq: damaged" in out
    assert "remime weights import FILE --name stylegan2-ffhq" in err
    code, _, err = remime("weights", "fetch", "stylegan2-ffhq")
    assert code == 2
    assert "no weights are called stylegan2-ffhq" in err


def test_import_refuses_with_a_message_and_code_2(remime, nothing, tmp_path):
    good = official.nvidia_pickle(tmp_path / "good.pkl", official.nvidia_generator(8))
    cut, page, other = tmp_path / "cut.pkl", tmp_path / "page.pt", tmp_path / "other.pt"
    cut.write_bytes(good.read_bytes()[:5000])
    page.write_bytes(b"<html>")
    official.save(other, {"a": torch.zeros(1)})
    for arguments, told in (
        ((cut,), "cut.pkl: "),
        ((page,), "is a web page"),
        ((other,), "none of the known kinds"),
        ((tmp_path / "none.pt",), "no such file"),
        ((good, "--name", "sface"), "is a network of workflow/weights.tsv"),
        ((good, "--kind", "x"), "allowed: psp, e4e, restyle-psp, restyle-e4e"),
    ):
        code, out, err = remime("weights", "import", *arguments)
        assert (code, out) == (2, "")
        assert told in err
    assert not nothing.exists()


def test_commands_take_imported_generators_and_judge_their_terms(remime, nothing, tmp_path):
    ensure_all = networks.ensure_all
    path = official.nvidia_pickle(tmp_path / "ffhq.pkl", official.nvidia_generator(8))
    assert remime("weights", "import", path, "--name", "stylegan2-mine").code == 0
    assert ensure_all(["stylegan2-mine"]) == [nothing / "stylegan2-mine.safetensors"]
    with pytest.raises(WeightsError, match="'stylegan2-mine' are refused by licence: research"):
        ensure_all(["stylegan2-mine"], "research")
    with pytest.raises(WeightsError, match="remime weights import FILE --name stylegan2-ffhq-1024"):
        ensure_all(["stylegan2-ffhq-1024"])
    assert remime("weights", "import", path, "--name", "stylegan2-ffhq-1024").code == 0
    assert ensure_all(["stylegan2-ffhq-1024"], "research") == [nothing / "stylegan2-ffhq-1024.safetensors"]
    assert remime("weights", "verify", "stylegan2-ffhq-1024").out == "stylegan2-ffhq-1024: verified\n"
    rows = json.loads(remime("weights", "list", "--json").out)
    (row,) = (row for row in rows if row["name"] == "stylegan2-ffhq-1024")
    assert (row["state"], row["terms"]) == ("present", "noncommercial")
    code, _, err = remime("weights", "verify", "hopenet")
    assert code == 1
    assert "remime weights import FILE --name hopenet" in err
