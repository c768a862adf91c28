"""``remime weights``."""

import json

import pytest

from remime import weights as store
from remime.cli import networks


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
    assert found["edgeface-s"]["used_by"] == []
    code, out, _ = remime("weights", "list")
    assert len(out.splitlines()) == len(found)


def test_networks_of_the_defaults_are_in_the_table():
    assert set(networks.defaults()) <= set(store.read_registry())


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
