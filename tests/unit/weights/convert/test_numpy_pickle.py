"""The restricted reader of numpy pickles."""

import os
import pickle

import numpy as np
import pytest

from remime.errors import WeightsError
from remime.weights.convert import numpy_pickle


class Runs:
    """Runs a command when it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def write(path, value, protocol=3):
    path.write_bytes(pickle.dumps(value, protocol))
    return path


@pytest.mark.parametrize("protocol", [3, 4])
def test_nested_arrays(tmp_path, protocol):
    rng = np.random.default_rng(0)
    value = {
        "trunk": {
            "kernel": rng.normal(size=(3, 3, 2, 4)).astype(np.float32),
            "bias": np.zeros(4, np.float32),
        },
        "fortran": np.asfortranarray(rng.normal(size=(3, 5))),
        "big endian": np.arange(5, dtype=">i4"),
        "bytes": np.arange(4, dtype=np.uint8),
        "flags": np.array([True, False]),
    }
    loaded = numpy_pickle.load(write(tmp_path / "a.ckpt", value, protocol))
    assert loaded.keys() == value.keys()
    for name in ("kernel", "bias"):
        np.testing.assert_array_equal(loaded["trunk"][name], value["trunk"][name])
    for name in ("fortran", "big endian", "bytes", "flags"):
        np.testing.assert_array_equal(loaded[name], value[name])
        assert loaded[name].dtype == value[name].dtype
        assert loaded[name].flags.writeable


def test_nothing_runs(tmp_path):
    marker = tmp_path / "ran"
    calls = [
        Runs(os.system, f"touch {marker}"),
        Runs(eval, f"open({str(marker)!r}, 'w')"),
        Runs(getattr, "text", "upper"),
        Runs(np.load, str(marker)),
    ]
    for call in calls:
        with pytest.raises(WeightsError, match="which is not allowed"):
            numpy_pickle.load(write(tmp_path / "evil.ckpt", {"a": np.zeros(3), "b": call}))
    assert not marker.exists()


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"a": np.array([{}, 1], object)}, "an array of type 'O8'"),
        ({"a": np.array(["x"])}, "an array of type"),
        ({"a": [1, 2]}, "a list in place of arrays"),
        ({1: np.zeros(2)}, "a dict in place of arrays"),
        (np.zeros(2), "a single array"),
        ("text", "a str in place of arrays"),
    ],
)
def test_other_contents(tmp_path, value, told):
    with pytest.raises(WeightsError) as error:
        numpy_pickle.load(write(tmp_path / "a.ckpt", value))
    assert told in str(error.value)


def test_damaged_files(tmp_path):
    path = write(tmp_path / "a.ckpt", {"a": np.arange(100.0)})
    data = path.read_bytes()
    for cut in (b"", data[:1], data[:50], data[:-40], b"<html>", b"\xff" * 40):
        path.write_bytes(cut)
        with pytest.raises(WeightsError, match=r"a\.ckpt: not a pickle of numpy arrays"):
            numpy_pickle.load(path)
