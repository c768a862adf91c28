"""dlib's serialisation, against files that dlib itself wrote."""

import itertools
import random

import dlib
import numpy as np
import pytest

from remime.errors import WeightsError
from remime.weights.convert.dlib import DatReader, convert, parse_shape_predictor


def pack(value: int) -> bytes:
    """A packed integer, as dlib documents it."""
    size = max(1, (abs(value).bit_length() + 7) // 8)
    return bytes([size | (0x80 if value < 0 else 0)]) + abs(value).to_bytes(size, "little")


def pack_real(value: float) -> bytes:
    """A packed float32: a mantissa of 24 bits without trailing zero bytes, and its exponent."""
    if not np.isfinite(value):
        return pack(0) + pack(32002 if np.isnan(value) else 32000 if value > 0 else 32001)
    fraction, exponent = np.frexp(np.float32(value))
    mantissa, exponent = int(np.ldexp(float(fraction), 24)), int(exponent) - 24
    for _ in range(8):
        if mantissa % 256:
            break
        mantissa, exponent = mantissa // 256, exponent + 8
    return pack(mantissa) + pack(exponent)


@pytest.mark.parametrize("value", [0, 1, -1, 127, 255, 256, -256, 65535, 10**9, -(10**15), 2**63])
def test_integers(value):
    reader = DatReader(pack(value) + b"\x01\x07")
    assert reader.integer() == value
    assert reader.integer() == 7
    assert reader.at_end


def test_reals_of_every_length_in_one_run():
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, 5000, dtype=np.uint32).view(np.float32)
    values = np.concatenate(
        [bits[np.isfinite(bits)], [0, 1, -1, 0.5, 256, 1e-40, np.inf, -np.inf], bits[:9] * 0]
    )
    values = np.concatenate([values, rng.normal(size=1000)]).astype(np.float32)
    np.random.default_rng(1).shuffle(values)
    data = b"".join(pack_real(v) for v in values)
    reader = DatReader(data)
    np.testing.assert_array_equal(reader.reals(len(values)), values)
    assert reader.at_end
    one_by_one = DatReader(data)
    np.testing.assert_array_equal(np.array([one_by_one.real() for _ in values], np.float32), values)


def test_a_tensor_is_raw():
    values = np.arange(6, dtype="<f4")
    data = b"".join(map(pack, (2, 1, 2, 3, 1))) + values.tobytes()
    np.testing.assert_array_equal(DatReader(data).tensor(), values.reshape(1, 2, 3, 1))


@pytest.fixture(scope="module")
def predictor(tmp_path_factory) -> bytes:
    """A small shape predictor that dlib trained and saved."""
    rng = np.random.default_rng(0)
    images = list(rng.integers(0, 256, (4, 60, 60), dtype=np.uint8))
    box = dlib.rectangle(10, 10, 50, 50)
    truth = [
        [dlib.full_object_detection(box, [dlib.point(*map(int, p)) for p in rng.integers(10, 50, (5, 2))])]
        for _ in images
    ]
    options = dlib.shape_predictor_training_options()
    options.tree_depth, options.cascade_depth, options.num_trees_per_cascade_level = 2, 3, 4
    options.feature_pool_size, options.num_threads = 15, 1
    path = tmp_path_factory.mktemp("dlib") / "tiny.dat"
    dlib.train_shape_predictor(images, truth, options).save(str(path))
    return path.read_bytes()


def test_the_parts_of_a_shape_predictor(predictor, tmp_path):
    (tmp_path / "tiny.dat").write_bytes(predictor)
    tensors, meta = convert({"tiny.dat": tmp_path / "tiny.dat"})
    assert meta == {"points": 5}
    assert {name: tuple(value.shape) for name, value in tensors.items()} == {
        "initial_shape": (5, 2),
        "anchor": (3, 15),
        "delta": (3, 15, 2),
        "split_first": (3, 4, 3),
        "split_second": (3, 4, 3),
        "split_threshold": (3, 4, 3),
        "leaf_values": (3, 4, 4, 5, 2),
    }
    assert all(value.is_contiguous() for value in tensors.values())


def test_a_file_that_was_cut_anywhere(predictor, tmp_path):
    path = tmp_path / "tiny.dat"
    for length in itertools.chain(range(40), range(40, len(predictor), 97)):
        path.write_bytes(predictor[:length])
        with pytest.raises(WeightsError, match=r"tiny\.dat: not a dlib file"):
            convert({"tiny.dat": path})
    path.write_bytes(predictor + b"\0")
    with pytest.raises(WeightsError, match="1 bytes are left over"):
        convert({"tiny.dat": path})


def test_damage_is_refused_or_harmless(predictor):
    choose = random.Random(0)
    for _ in range(300):
        data = bytearray(predictor)
        for _ in range(choose.choice((1, 3, 30))):
            data[choose.randrange(len(data))] = choose.randrange(256)
        try:
            arrays = parse_shape_predictor(bytes(data))
        except (ValueError, OverflowError):
            continue
        assert arrays["anchor"].max() < len(arrays["initial_shape"])
        assert arrays["split_second"].max() < arrays["anchor"].shape[1]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (pack(1) + pack(13) + b"loss_metric_2", "ends early"),
        (pack(1) + pack(13) + b"loss_metric_9" + bytes(20), "'loss_metric_9' in place of"),
        (
            pack(1) + pack(13) + b"loss_metric_2" + 2 * pack_real(0.5) + pack(2) + pack(5) + b"other",
            "input is 'other'",
        ),
        (pack(7) + bytes(50), "version 7"),
        (b"<html>", "begin an integer"),
    ],
)
def test_other_files(tmp_path, data, told):
    (tmp_path / "net.dat").write_bytes(data)
    with pytest.raises(WeightsError) as error:
        convert({"net.dat": tmp_path / "net.dat"})
    assert told in str(error.value)


def test_two_files_are_one_too_many(tmp_path):
    with pytest.raises(WeightsError, match="takes one file"):
        convert({"a.dat": tmp_path, "b.dat": tmp_path})
