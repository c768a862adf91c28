"""The state of a training run: it is either whole and the right one, or not used."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from remime.training.optimizers import Ranger
from remime.training.state import digest_of, full_moments, load_state, rounded_moments, save_state

STATE = {
    "step": 7,
    "module": {"w": torch.arange(5.0)},
    "history": [{"step": 1, "name": "loss", "value": 0.1}],
}


class Harmful:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return Path.touch, (Path("harmed"),)


def test_round_trip(tmp_path):
    save_state(tmp_path / "new folder", "a", STATE)
    loaded = load_state(tmp_path / "new folder", "a")
    assert loaded is not None
    assert torch.equal(loaded["module"]["w"], STATE["module"]["w"])
    assert (loaded["step"], loaded["history"]) == (7, STATE["history"])


def test_a_full_disk_is_told_as_such(tmp_path, monkeypatch):
    monkeypatch.setattr("remime.files.beside", lambda path: tmp_path / "full")
    (tmp_path / "full").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"No space left on device: '.*checkpoint.pt'"):
        save_state(tmp_path, "a", STATE)


def test_nothing_there(tmp_path):
    assert load_state(tmp_path, "a") is None


def test_other_run(tmp_path, capsys):
    save_state(tmp_path, "a", STATE)
    assert load_state(tmp_path, "b") is None
    assert "other options or data" in "".join(capsys.readouterr())


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_cut_off_anywhere(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("state")
    save_state(folder, "a", STATE)
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    assert load_state(folder, "a") is None


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("content", [b"", b"text", b"\x80\x04" + bytes(100), pickle.dumps([1, 2, 3])])
def test_foreign_file(tmp_path, content):
    save_state(tmp_path, "a", STATE)
    (path,) = tmp_path.iterdir()
    path.write_bytes(content)
    assert load_state(tmp_path, "a") is None


def test_no_code_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_state(tmp_path / "state", "a", STATE)
    (path,) = (tmp_path / "state").iterdir()
    torch.save({"digest": "a", "step": Harmful()}, path)
    assert load_state(tmp_path / "state", "a") is None
    assert not Path("harmed").exists()


def test_digest_depends_on_values_only():
    assert digest_of({"a": 1, "b": [2, 3]}) == digest_of({"b": [2, 3], "a": 1})
    assert (
        len({digest_of({"a": 1}), digest_of({"a": 2}), digest_of({"a": 1}, ""), digest_of([{"a": 1}])}) == 4
    )


@pytest.mark.parametrize(("kind", "moments"), [(Ranger, 2), (torch.optim.Adam, 2), (torch.optim.SGD, 0)])
def test_rounded_moments(kind, moments):
    parameter = torch.nn.Parameter(torch.linspace(-1, 1, 100))
    optimizer = kind([parameter], lr=0.1)
    parameter.square().sum().backward()
    optimizer.step()
    saved = {"main": optimizer.state_dict()}
    rounded = rounded_moments(saved)
    kinds = [
        v.dtype for s in rounded["main"]["state"].values() for v in s.values() if isinstance(v, torch.Tensor)
    ]
    assert kinds.count(torch.bfloat16) == moments
    back = full_moments(rounded)["main"]
    assert back["param_groups"] == saved["main"]["param_groups"]
    for i, state in saved["main"]["state"].items():
        for name, value in state.items():
            if isinstance(value, torch.Tensor):
                assert back["state"][i][name].dtype == value.dtype
                assert torch.allclose(back["state"][i][name], value, rtol=2**-8)
