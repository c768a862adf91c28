"""Foreign pickles as inert data: nothing that a file names is imported, called or executed.

Two readers. ``read_torch`` is for what ``torch.save`` wrote (zip and legacy form): torch's own restricted
loader, with stand-ins for the few harmless classes that training options contain. ``read_pickle`` is for
plain pickles (NVIDIA's networks, FLAME): it walks through the opcodes and keeps every object as a ``Record``
of its name, arguments and state, so not even an allowed name leads to foreign code. Pickled source (NVIDIA's
``torch_utils.persistence``) and pickles within pickles (``torch.storage._load_from_bytes``) stay what they
are, bytes; the views below (``tensor``, ``array``, ``module_tensors``) read numbers out of records.

A file can hold no more numbers than it has bytes. That is checked, since sizes and strides in a pickle can
claim anything.

Why not a ``pickle.Unpickler`` with its own ``find_class``: it reserves memory for any memo index that a file
names (nine bytes, 16 GB), and hashes keys, which for a deeply nested tuple exhausts the stack of the process
(two megabytes, a segmentation fault). Neither can be kept from happening by a subclass.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

_DEPTH = 64  # levels of nested modules or dictionaries; published files have fewer than ten
_MOST = 200_000  # tensors and entries that a walk may meet; published files have a few thousand


@dataclass(frozen=True)
class Name:
    """A class or function that a pickle names; only its name."""

    path: str


@dataclass(eq=False)
class Record:
    """What a pickle says about an object that it would have made.

    Args:
        name: the dotted name of its class or of the function that returns it.
        args: the arguments.
        state: what would have been given to ``__setstate__``.
        items: what would have been set with ``[]``.
    """

    name: str
    args: tuple[Any, ...] = ()
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)


_PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}
_DICTIONARIES = ("builtins.dict", "collections.OrderedDict", "dnnlib.util.EasyDict", "dnnlib.EasyDict")
_COLLECTIONS = ("builtins.set", "builtins.frozenset", "builtins.list", "builtins.tuple")
_PLAIN = (
    *_DICTIONARIES,
    *_COLLECTIONS,
    "_codecs.encode",
    "builtins.object",
    "builtins.bytearray",
    "copyreg._reconstructor",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.ndarray",
    "numpy.dtype",
    "torch.Size",
    "torch.device",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
    "torch.nn.parameter.Parameter",
    "torch.storage._load_from_bytes",
    # NVIDIA's networks: StyleGAN2-ADA and later in PyTorch, StyleGAN2 in TensorFlow.
    "torch_utils.persistence._reconstruct_persistent_obj",
    "dnnlib.tflib.network.Network",
)
_FAMILIES = re.compile(
    r"torch\.(?:float|bfloat|u?int)\d+|torch\.bool"
    r"|torch\.nn\.modules\.[a-z_]+\.[A-Z]\w*"
    # FLAME and its relatives.
    r"|chumpy\.[a-z_.]+\.[A-Z]\w*"
    r"|scipy\.sparse\.(?:_?csc\.csc_matrix|_?csr\.csr_matrix)"
)


def is_allowed(name: str) -> bool:
    """Whether a pickle may name this class or function; a ``Record`` then stands for it."""
    return name in _PLAIN or _FAMILIES.fullmatch(name) is not None


def read_pickle(data: bytes | BinaryIO) -> Any:
    """Read a plain pickle of any protocol without buffers.

    Returns:
        Numbers, text, bytes, lists, tuples and dictionaries as such (sets as lists), objects as ``Record``,
        and names that stand alone as ``Name``. Byte strings of Python 2 are text in latin-1.

    Raises:
        pickle.UnpicklingError: it asks for a name that is not allowed, or for anything but data.
        ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError: damaged.
    """
    machine = _Machine()
    for name, argument in _opcodes(data):
        if name == "STOP":
            break
        machine.step(name, argument)
    return machine.pop()


def _opcodes(data: bytes | BinaryIO) -> Iterator[tuple[str, Any]]:
    """The opcodes with their arguments; STOP is the last one."""
    try:
        for opcode, argument, _position in pickletools.genops(data):
            yield opcode.name, argument
    except ValueError as error:
        raise pickle.UnpicklingError(f"it is damaged or cut off ({error})") from None


class _Machine:
    """The stack machine that a pickle is a program for, without the instructions that would run anything."""

    _IGNORED = ("PROTO", "FRAME")
    # Opcodes whose argument is the value itself.
    _ATOMS = re.compile(r"(?:BIN|SHORT_BIN)?(?:INT\d?|FLOAT|STRING|BYTES8?|UNICODE8?)|LONG[14]?|BYTEARRAY8")

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def pop(self) -> Any:
        if self.marks and len(self.stack) <= self.marks[-1]:
            raise ValueError("a value is taken from below a mark")
        return self.stack.pop()

    def pop_mark(self) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def step(self, name: str, argument: Any) -> None:
        if name in self._IGNORED:
            return
        if self._ATOMS.fullmatch(name):
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif name in _HANDLERS:
            _HANDLERS[name](self, argument)
        else:
            raise pickle.UnpicklingError(f"it uses the opcode {name}, which weights do not need")


_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_SET": list,
    "EMPTY_DICT": dict,
}


def _set_item(target: Any, key: Any, value: Any) -> None:
    items = target.items if isinstance(target, Record) else target
    if not isinstance(items, dict):
        raise pickle.UnpicklingError("it sets an item of something that is no dictionary")
    # Hashing a deeply nested tuple would exhaust the interpreter's stack.
    if not isinstance(key, (str, bytes, int, float, type(None))):
        raise pickle.UnpicklingError(f"it has a key of type {type(key).__name__}")
    items[key] = value


def _dictionary(pairs: list[Any]) -> dict[Any, Any]:
    result: dict[Any, Any] = {}
    if len(pairs) % 2:
        raise ValueError("a dictionary has a key without a value")
    for key, value in zip(pairs[::2], pairs[1::2], strict=True):
        _set_item(result, key, value)
    return result


def _find(module: Any, name: Any) -> Name:
    if not isinstance(module, str) or not isinstance(name, str):
        raise pickle.UnpicklingError("it asks for something without a name")
    path = f"{_PYTHON_2.get(module, module)}.{name}"
    if not is_allowed(path):
        raise pickle.UnpicklingError(f"it asks for {path[:200]}, which is not allowed")
    return Name(path)


def _make(function: Any, args: Any) -> Any:
    """What stands for the result of a call or for a new object."""
    if not isinstance(function, Name) or not isinstance(args, tuple):
        raise pickle.UnpicklingError("it calls something that is no name")
    if function.path in _DICTIONARIES:
        pairs = args[0] if args else []
        return _dictionary([part for pair in pairs for part in _pair(pair)])
    if function.path in _COLLECTIONS:
        return list(args[0]) if args else []
    if function.path == "_codecs.encode":
        # Bytes of protocols before 3.
        text, encoding = args
        if encoding != "latin1":
            raise pickle.UnpicklingError(f"it has bytes in the encoding {encoding!r}")
        return str.encode(text, "latin1")
    if function.path == "copyreg._reconstructor":
        return _make(args[0], ())
    return Record(function.path, args)


def _pair(pair: Any) -> tuple[Any, Any]:
    key, value = pair
    return key, value


def _list_of(machine: _Machine) -> list[Any]:
    target = machine.stack[-1]
    if not isinstance(target, list):
        raise pickle.UnpicklingError("it appends to something that is no list")
    return target


def _forget(machine: _Machine, _argument: Any) -> None:
    machine.pop()


def _forget_to_mark(machine: _Machine, _argument: Any) -> None:
    machine.pop_mark()


def _set_items(machine: _Machine, _argument: Any) -> None:
    for key, value in _dictionary(machine.pop_mark()).items():
        _set_item(machine.stack[-1], key, value)


def _set_one(machine: _Machine, _argument: Any) -> None:
    value, key = machine.pop(), machine.pop()
    _set_item(machine.stack[-1], key, value)


def _append(machine: _Machine, _argument: Any) -> None:
    value = machine.pop()
    _list_of(machine).append(value)


def _append_all(machine: _Machine, _argument: Any) -> None:
    values = machine.pop_mark()
    _list_of(machine).extend(values)


def _tuple_of(count: int) -> Callable[[_Machine, Any], None]:
    def handle(machine: _Machine, _argument: Any) -> None:
        values = [machine.pop() for _ in range(count)]
        machine.stack.append(tuple(reversed(values)))

    return handle


def _global(machine: _Machine, argument: Any) -> None:
    module, _, name = argument.partition(" ")
    machine.stack.append(_find(module, name))


def _stack_global(machine: _Machine, _argument: Any) -> None:
    name, module = machine.pop(), machine.pop()
    machine.stack.append(_find(module, name))


def _call(machine: _Machine, _argument: Any) -> None:
    args, function = machine.pop(), machine.pop()
    machine.stack.append(_make(function, args))


def _instance(machine: _Machine, argument: Any) -> None:
    """Old-style classes of Python 2: the name stands in the opcode."""
    module, _, name = argument.partition(" ")
    args = tuple(machine.pop_mark())
    machine.stack.append(_make(_find(module, name), args))


def _object(machine: _Machine, _argument: Any) -> None:
    function, *args = machine.pop_mark()
    machine.stack.append(_make(function, tuple(args)))


def _build(machine: _Machine, _argument: Any) -> None:
    state, target = machine.pop(), machine.stack[-1]
    if isinstance(target, Record):
        target.state = state
    elif not isinstance(target, dict):  # the attributes of a dictionary (``_metadata``) are not needed
        raise pickle.UnpicklingError("it gives a state to something that has none")


_HANDLERS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": lambda machine, _: machine.marks.append(len(machine.stack)),
    "POP": _forget,
    "POP_MARK": _forget_to_mark,
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    "LIST": lambda machine, _: machine.stack.append(machine.pop_mark()),
    "FROZENSET": lambda machine, _: machine.stack.append(machine.pop_mark()),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.pop_mark())),
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "DICT": lambda machine, _: machine.stack.append(_dictionary(machine.pop_mark())),
    "APPEND": _append,
    "APPENDS": _append_all,
    "ADDITEMS": _append_all,
    "SETITEM": _set_one,
    "SETITEMS": _set_items,
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "REDUCE": _call,
    "NEWOBJ": _call,
    "INST": _instance,
    "OBJ": _object,
    "BUILD": _build,
}


# --- numbers out of records


def array(record: Any) -> np.ndarray:
    """The numpy array that a record stands for; a numpy scalar is an array without axes.

    Raises:
        pickle.UnpicklingError: it is something else, or an array of objects.
    """
    shape: Any = ()
    fortran: Any = False
    if isinstance(record, Record) and record.name.endswith("multiarray.scalar"):
        dtype, data = record.args
    elif isinstance(record, Record) and record.name.endswith("multiarray._reconstruct"):
        _version, shape, dtype, fortran, data = record.state
    else:
        raise pickle.UnpicklingError(f"it holds {_describe(record)} in place of an array")
    if isinstance(data, str):  # written by Python 2
        data = data.encode("latin1")
    if not isinstance(data, bytes):
        raise pickle.UnpicklingError("it holds an array without plain data")
    return np.frombuffer(data, _dtype(dtype)).reshape(shape, order="F" if fortran else "C").copy()


def _dtype(record: Any) -> np.dtype:
    code = record.args[0] if isinstance(record, Record) and record.name == "numpy.dtype" else None
    if not isinstance(code, str) or not re.fullmatch(r"[biuf][1248]", code):
        raise pickle.UnpicklingError(f"it holds an array of type {code!r}")
    order = record.state[1] if record.state else "="
    return np.dtype({"<": "<", ">": ">", "|": "|", "=": "="}[order] + code)


def tensor(record: Any) -> Tensor:
    """The tensor that a record of ``torch._utils`` stands for; parameters too.

    Raises:
        pickle.UnpicklingError: it is something else, or reaches beyond its data.
    """
    if isinstance(record, Record) and record.name == "torch._utils._rebuild_parameter":
        record = record.args[0]
    if not isinstance(record, Record) or not record.name.startswith("torch._utils._rebuild_tensor"):
        raise pickle.UnpicklingError(f"it holds {_describe(record)} in place of a tensor")
    storage, offset, size, stride = record.args[:4]
    if not isinstance(storage, Record) or storage.name != "torch.storage._load_from_bytes":
        raise pickle.UnpicklingError("it holds a tensor without data of its own")
    values = _storage(storage.args[0])
    size, stride = _sizes(size), _sizes(stride)
    if math.prod(size) > len(values):
        raise pickle.UnpicklingError(f"a tensor of shape {size} has only {len(values)} numbers")
    # as_strided refuses what reaches beyond the data; set_ would make the data larger.
    return torch.as_strided(values, size, stride, offset).clone()


def _storage(data: Any) -> Tensor:
    """All numbers [n] of a storage that was pickled as bytes, themselves a file of ``torch.save``."""
    if not isinstance(data, bytes) or not data.startswith(LEGACY):
        raise pickle.UnpicklingError("it holds a tensor without data")
    storage = _load(io.BytesIO(data))
    if not isinstance(storage, torch.storage.TypedStorage):
        raise pickle.UnpicklingError("it holds a tensor whose data is none")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the class of old files is deprecated
        untyped = storage.untyped()
    if untyped.nbytes() > len(data):
        raise pickle.UnpicklingError("a tensor claims more numbers than there are")
    return torch.empty(0, dtype=storage.dtype).set_(untyped)


def _sizes(value: Any) -> tuple[int, ...]:
    if isinstance(value, Record) and value.name == "torch.Size":
        (value,) = value.args
    sizes = tuple(value)
    if len(sizes) > 8 or not all(type(n) is int and n >= 0 for n in sizes):
        raise pickle.UnpicklingError("it holds a tensor of an impossible shape")
    return sizes


def attributes(record: Any) -> dict[str, Any]:
    """The attributes of an object: its state, also where it was pickled by NVIDIA's ``persistence``."""
    state = record.state if isinstance(record, Record) else None
    if isinstance(record, Record) and record.name.endswith("._reconstruct_persistent_obj"):
        state = record.args[0].get("state")
    if not isinstance(state, dict):
        raise pickle.UnpicklingError(f"it holds {_describe(record)} in place of an object with attributes")
    return state


def modules(record: Any, prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every module of a pickled ``nn.Module`` by its dotted name (with a final dot), and its attributes."""
    todo = [(prefix, record, 0)]
    met = 0
    while todo:
        name, module, depth = todo.pop()
        met += 1
        if depth > _DEPTH or met > _MOST:
            raise pickle.UnpicklingError("its modules are nested without end")
        inside = attributes(module)
        yield name, inside
        children = inside.get("_modules") or {}
        todo += [(f"{name}{key}.", child, depth + 1) for key, child in children.items() if child is not None]


def module_tensors(record: Any) -> dict[str, Tensor]:
    """The parameters and buffers of a pickled ``nn.Module`` under the names of its state dict."""
    found: dict[str, Tensor] = {}
    for prefix, inside in modules(record):
        held = {**(inside.get("_parameters") or {}), **(inside.get("_buffers") or {})}
        found |= {f"{prefix}{key}": tensor(value) for key, value in held.items() if value is not None}
    return found


def _describe(value: object) -> str:
    return value.name if isinstance(value, Record) else f"a {type(value).__name__}"


# --- files of torch.save


class Inert:
    """Stands for a class that options in a checkpoint may contain; keeps what it is given."""

    def __init__(self, *args: Any) -> None:
        self.args = args
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class Namespace(Inert):
    """Stands for ``argparse.Namespace``, of which training options are made."""


_STAND_INS: list[Any] = [
    (Namespace, "argparse.Namespace"),
    *(
        (Inert, name)
        for name in (
            "numpy.core.multiarray.scalar",
            "numpy._core.multiarray.scalar",
            "numpy.dtype",
            "pathlib.PosixPath",
            "pathlib.WindowsPath",
            "pathlib.PurePosixPath",
        )
    ),
]


LEGACY = bytes.fromhex("80 02 8a 0a 6c fc 9c 46 f9 20 6a a8 50 19")
"""How a file of ``torch.save`` before version 1.6 begins: its magic number as a pickle."""


def read_torch(path: Path) -> Any:
    """Read a file of ``torch.save``, zip or legacy, with torch's restricted loader.

    Returns:
        What was saved; tensors on the CPU, options as plain values, ``Namespace`` or ``Inert``.

    Raises:
        pickle.UnpicklingError: it asks for a name that is not allowed, or claims more than it holds.
        Exception: torch raises many kinds for damaged files.
    """
    if zipfile.is_zipfile(path):
        _check_zip(path)
    try:
        with torch.serialization.safe_globals(_STAND_INS):
            content = _load(path)
    except pickle.UnpicklingError as error:
        raise pickle.UnpicklingError(_refused(str(error))) from None
    _check_size(content, path.stat().st_size)
    return content


def _load(source: Path | BinaryIO) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the pickle's protocol and the classes of old files
        return torch.load(source, map_location="cpu", weights_only=True)


def _check_zip(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    names = {Path(entry.filename).name for entry in entries}
    if "data.pkl" not in names:
        raise pickle.UnpicklingError("it is a zip archive, but not one of torch.save")
    if "constants.pkl" in names:
        raise pickle.UnpicklingError("it is a TorchScript program, of which nothing is run")
    # torch.save never compresses; a small file could otherwise fill the memory.
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise pickle.UnpicklingError("it has compressed entries, which torch.save does not write")


def _refused(text: str) -> str:
    """The name that torch refused, out of its long message."""
    if found := re.search(r"GLOBAL (\S+) (?:was not|whose module)", text):
        name = found.group(1)
        return f"it asks for {name if '.' in name else f'builtins.{name}'}, which is not allowed"
    return text.partition("WeightsUnpickler error:")[2].strip().partition("\n")[0] or text.partition("\n")[0]


def leaves(content: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """All tensors in nested dictionaries and lists by their dotted names.

    Raises:
        pickle.UnpicklingError: nested without end.
    """
    todo, met = [(prefix, content, 0)], 0
    while todo:
        name, value, depth = todo.pop()
        met += 1
        if depth > _DEPTH or met > _MOST:
            raise pickle.UnpicklingError("its contents are nested without end")
        if isinstance(value, Tensor):
            yield name, value
        elif isinstance(value, (Mapping, list, tuple)):
            items = value.items() if isinstance(value, Mapping) else enumerate(value)
            start = f"{name}." if name else ""
            todo += [(f"{start}{key}", item, depth + 1) for key, item in items]


def _check_size(content: Any, limit: int) -> None:
    """Refuse tensors that together hold more bytes than the file, or more numbers than their data."""
    storages: dict[int, int] = {}
    for name, value in leaves(content):
        if value.layout is not torch.strided or value.is_quantized or value.device.type != "cpu":
            raise pickle.UnpicklingError(f"{name} is no plain tensor")
        data = value.untyped_storage()
        storages[data.data_ptr()] = data.nbytes()
        reach = value.storage_offset() * value.element_size() + value.numel() * value.element_size()
        if reach > data.nbytes():
            raise pickle.UnpicklingError(f"{name} has shape {list(value.shape)} but fewer numbers")
    if sum(storages.values()) > limit:
        raise pickle.UnpicklingError("its tensors claim more bytes than the file has")
