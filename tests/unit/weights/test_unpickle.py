"""The readers of foreign pickles: what they read, and that nothing runs."""

import argparse
import io
import os
import pathlib
import pickle
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from remime.weights import unpickle

from . import official


class Runs:
    """Runs a command when it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(5))
def test_plain_values_of_every_protocol(protocol):
    value = {
        "numbers": [0, -1, 255, 256, 65536, 2**40, -(2**70), 1.5, True, False, None],
        "text": ("", "é", "x" * 300),
        "bytes": b"\x00\xff",
        "nested": {"list": [[], [1], [1, 2, 3, 4]], "tuple": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4))},
        "ordered": OrderedDict(a=1, b=2),
        "empty": {},
        7: "number",
    }
    assert unpickle.read_pickle(pickle.dumps(value, protocol)) == value
    assert unpickle.read_pickle(pickle.dumps({1, 2}, protocol)) == [1, 2]


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "i4", "?", "u1", "f2"])
def test_arrays(protocol, dtype):
    for value in (np.arange(12).reshape(3, 4).astype(dtype), np.asfortranarray(np.ones((2, 3), dtype))):
        read = unpickle.array(unpickle.read_pickle(pickle.dumps(value, protocol)))
        np.testing.assert_array_equal(read, value)
        assert read.dtype == value.dtype


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_scalars_of_numpy(protocol):
    read = unpickle.array(unpickle.read_pickle(pickle.dumps(np.float64(2.5), protocol)))
    assert read.shape == ()
    assert read == 2.5


def test_arrays_of_python_2():
    """Byte strings of Python 2 are text in a pickle; so it wrote an array [1, 2] of float32 (protocol 2)."""
    data = np.array([1, 2], "<f4").tobytes()
    written = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x02\x85"
        b"cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U\x08" + data + b"tb."
    )
    np.testing.assert_array_equal(unpickle.array(unpickle.read_pickle(written)), [1, 2])


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_tensors_in_plain_pickles(protocol):
    whole = torch.arange(24.0).view(4, 6)
    value = {
        "plain": whole,
        "view": whole.T[1:3],
        "parameter": nn.Parameter(torch.ones(2, 3)),
        "scalar": torch.tensor(3.0),
        "empty": torch.zeros(0, 3),
        "half": torch.ones(3).half(),
        "integers": torch.tensor(5),
    }
    read = unpickle.read_pickle(pickle.dumps(value, protocol))
    for name, expected in value.items():
        tensor = unpickle.tensor(read[name])
        assert torch.equal(tensor, expected.detach())
        assert tensor.dtype == expected.dtype


def test_modules_and_their_names():
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ModuleList([nn.Linear(2, 2)]))
    read = unpickle.module_tensors(unpickle.read_pickle(pickle.dumps(module)))
    state = module.state_dict()
    assert read.keys() == state.keys()
    assert all(torch.equal(read[name], state[name]) for name in state)


HOSTILE = {
    "os.system": lambda marker: Runs(os.system, f"touch {marker}"),
    "builtins.eval": lambda marker: Runs(eval, f"open({str(marker)!r}, 'w')"),
    "builtins.exec": lambda marker: Runs(exec, f"open({str(marker)!r}, 'w')"),
    "builtins.getattr": lambda marker: Runs(getattr, "text", "upper"),
    "numpy.load": lambda marker: Runs(np.load, str(marker)),
    "torch.load": lambda marker: Runs(torch.load, str(marker)),
}


@pytest.mark.parametrize("protocol", range(5))
@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_runs(tmp_path, name, protocol):
    marker = tmp_path / "ran"
    last = name.rpartition(".")[2]
    data = pickle.dumps({"a": [1, {"b": HOSTILE[name](marker)}]}, protocol)
    with pytest.raises(pickle.UnpicklingError, match=rf"asks for [\w.]+\.{last}, which is not allowed"):
        unpickle.read_pickle(data)
    assert not marker.exists()


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_runs_in_files_of_torch(tmp_path, name, legacy):
    marker = tmp_path / "ran"
    path = official.save(tmp_path / "a.pt", {"a": torch.ones(2), "b": HOSTILE[name](marker)}, legacy)
    with pytest.raises(
        pickle.UnpicklingError, match=rf"asks for [\w.]+\.{name.rpartition('.')[2]}, which is not"
    ):
        unpickle.read_torch(path)
    assert not marker.exists()


def test_a_name_is_not_reached_through_another(tmp_path):
    """Names with several parts, as protocol 4 allows, lead nowhere."""
    marker = tmp_path / "ran"
    command = f"touch {marker}".encode()
    for module, name in ((b"torch", b"os.system"), (b"torch.nn.modules.module", b"torch.os.system")):
        data = b"\x80\x04\x8c" + bytes([len(module)]) + module + b"\x8c" + bytes([len(name)]) + name
        data += b"\x93\x8c" + bytes([len(command)]) + command + b"\x85R."
        with pytest.raises(pickle.UnpicklingError, match="not allowed"):
            unpickle.read_pickle(data)
    assert not marker.exists()


def test_a_pickle_inside_of_a_tensor_does_not_run(tmp_path):
    """torch's own ``_load_from_bytes`` unpickles what it is given, without restriction."""
    marker = tmp_path / "ran"
    for inner in (
        pickle.dumps(HOSTILE["os.system"](marker)),
        official.bytes_of(HOSTILE["os.system"](marker), legacy=True),
        official.bytes_of(HOSTILE["os.system"](marker)),
    ):
        record = unpickle.Record(
            "torch._utils._rebuild_tensor_v2",
            (unpickle.Record("torch.storage._load_from_bytes", (inner,)), 0, (1,), (1,), False, {}),
        )
        with pytest.raises(pickle.UnpicklingError):
            unpickle.tensor(record)
    assert not marker.exists()


def test_state_is_given_to_records_only():
    """BUILD would otherwise change attributes of what a name stands for."""
    for data in (b"\x80\x02cnumpy\nndarray\n}b.", b"\x80\x02]}b.", b"\x80\x02K\x01}b."):
        with pytest.raises(pickle.UnpicklingError, match="gives a state"):
            unpickle.read_pickle(data)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"\x80\x02K\x01Q.", "opcode BINPERSID"),
        (b"\x80\x02\x82\x01.", "opcode EXT1"),
        (b"\x80\x02K\x01)R.", "calls something that is no name"),
        (b"\x80\x02}]K\x01s.", "a key of type list"),
        (b"\x80\x02}" + b"K\x01" + b"\x85" * 100_000 + b"K\x01s.", "a key of type tuple"),
        (b"\x80\x02K\x01K\x02K\x03s.", "no dictionary"),
        (b"\x80\x02K\x01K\x02a.", "no list"),
    ],
)
def test_what_weights_do_not_need_is_refused(data, told):
    with pytest.raises((pickle.UnpicklingError, IndexError), match=told):
        unpickle.read_pickle(data)


def test_a_small_file_neither_crashes_nor_fills_the_memory():
    """Python's own unpickler ends the process on the first of these and asks for 16 GB on the second."""
    nested = b"\x80\x02}" + b")" + b"\x85" * 2_000_000 + b"K\x01s."
    with pytest.raises(pickle.UnpicklingError, match="a key of type tuple"):
        unpickle.read_pickle(nested)
    assert unpickle.read_pickle(b"\x80\x02Nr" + (2**31 - 10).to_bytes(4, "little") + b".") is None


def test_deep_and_wide_nesting_is_bounded():
    value = {}
    for _ in range(200):
        value = {"a": value}
    with pytest.raises(pickle.UnpicklingError, match="nested without end"):
        list(unpickle.leaves(value))
    value = {}
    for _ in range(60):  # 2^60 leaves in a few bytes
        value = {"a": value, "b": value}
    with pytest.raises(pickle.UnpicklingError, match="nested without end"):
        list(unpickle.leaves(value))
    circle = unpickle.Record("torch.nn.modules.container.Sequential")
    circle.state = {"_modules": {"a": circle}}
    with pytest.raises(pickle.UnpicklingError, match="nested without end"):
        unpickle.module_tensors(circle)


@pytest.mark.parametrize("legacy", [False, True])
def test_tensors_that_claim_more_than_the_file_has(tmp_path, legacy):
    for claim in (torch.zeros(1).expand(1 << 40), torch.zeros(2, 1).expand(2, 1 << 30)):
        path = official.save(tmp_path / "a.pt", {"a": claim}, legacy)
        assert path.stat().st_size < 10_000
        with pytest.raises(pickle.UnpicklingError, match="fewer numbers"):
            unpickle.read_torch(path)
    read = unpickle.read_pickle(pickle.dumps({"a": torch.zeros(1).expand(1 << 40)}))
    with pytest.raises(pickle.UnpicklingError, match="has only 1 numbers"):
        unpickle.tensor(read["a"])


def test_a_shape_beyond_its_data(tmp_path):
    """Nothing is made larger so that a shape fits."""
    source, path = io.BytesIO(official.bytes_of({"a": torch.zeros(1000)})), tmp_path / "a.pt"
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        for entry in old.infolist():
            data = old.read(entry)
            if entry.filename.endswith("data.pkl"):
                # The second 1000 is the shape, the first the length of the data.
                head, middle, tail = data.split(b"M\xe8\x03")
                data = head + b"M\xe8\x03" + middle + b"J\xff\xff\xff\x0f" + tail
            new.writestr(entry.filename, data)
    with pytest.raises((pickle.UnpicklingError, RuntimeError), match=r"resize|more bytes than the file"):
        unpickle.read_torch(path)


def test_training_options_are_read_without_their_classes(tmp_path):
    options = argparse.Namespace(
        size=256, lr=1e-4, number=np.float64(2.5), path=pathlib.PurePosixPath("x"), name="run"
    )
    for legacy in (False, True):
        content = unpickle.read_torch(official.save(tmp_path / "a.pt", {"args": options}, legacy))
        assert isinstance(content["args"], unpickle.Namespace)
        assert content["args"].state["size"] == 256
        assert content["args"].state["name"] == "run"
        assert isinstance(content["args"].state["number"], unpickle.Inert)


def test_archives_that_torch_did_not_write(tmp_path):
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "x")
    with pytest.raises(pickle.UnpicklingError, match="not one of torch"):
        unpickle.read_torch(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"\x00" * 10_000_000)
    with pytest.raises(pickle.UnpicklingError, match="compressed"):
        unpickle.read_torch(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"x")
        archive.writestr("a/constants.pkl", b"x")
    with pytest.raises(pickle.UnpicklingError, match="TorchScript"):
        unpickle.read_torch(path)


def test_a_stream_is_read_to_the_end_of_the_pickle():
    stream = io.BytesIO(pickle.dumps([1]) + pickle.dumps([2]))
    assert unpickle.read_pickle(stream) == [1]
    assert unpickle.read_pickle(stream) == [2]
    with pytest.raises(pickle.UnpicklingError, match="damaged or cut off"):
        unpickle.read_pickle(stream)
