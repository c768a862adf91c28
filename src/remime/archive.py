"""HDF5 shards of aligned frames and of latents, written in a stream and read by row.

A shard holds flat datasets over all of its clips and a group ``clips`` that says which rows are whose.
Its attributes name the schema, the stage with its version and the options that it was computed with.
Only h5py's native types are used: nothing in a shard can execute code.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import cv2
import h5py
import numpy as np
from numpy.typing import NDArray

from remime.errors import InputError, RemimeError, VersionError
from remime.files import atomic
from remime.versions import STAGES, __version__

JPEG_QUALITY = 95
_BUFFERED_ROWS = 64

# name: (shape of one row, dtype); None as the dtype means bytes of any length.
Columns = Mapping[str, tuple[tuple[int, ...], Any]]

ALIGNED_COLUMNS: Columns = {
    "frames": ((), None),
    "landmarks": ((68, 2), np.float32),
    "transform": ((2, 3), np.float64),
    "time": ((), np.float64),
    "interpolated": ((), np.bool_),
}


def encode_jpeg(image: NDArray[np.uint8], quality: int = JPEG_QUALITY) -> bytes:
    """Compress an RGB image ``[H, W, 3]`` without chroma subsampling."""
    flags = [
        cv2.IMWRITE_JPEG_QUALITY,
        quality,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ]
    done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), flags)
    if not done:
        raise ValueError(f"an image of shape {image.shape} and type {image.dtype} cannot be a JPEG")
    return data.tobytes()


def decode_jpeg(data: bytes | NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The RGB image ``[H, W, 3]`` uint8 of JPEG bytes; ValueError when they are damaged."""
    raw = np.frombuffer(data, np.uint8)
    image = cv2.imdecode(raw, cv2.IMREAD_COLOR) if raw.size else None
    if image is None:
        raise ValueError(f"{raw.size} bytes are not a JPEG image")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def options_digest(options: Mapping[str, Any]) -> str:
    """A short name of a set of options, the same on every machine."""
    text = json.dumps(options, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


@dataclass(frozen=True)
class ClipEntry:
    """Which rows of a shard belong to a clip: ``first`` to ``first + count - 1``, in order of time."""

    id: str
    first: int
    count: int
    fps: float
    identity: str
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> range:
        """The clip's rows."""
        return range(self.first, self.first + self.count)


class _Sink(io.RawIOBase):
    """The file below an HDF5 writer, which fails only once.

    HDF5 retries a failed write whenever it closes anything, floods stderr and crashes the process at its end
    (seen with 1.14). So the first failure is kept in ``error``, and from then on writes go nowhere.
    """

    def __init__(self, path: Path) -> None:
        self._handle = path.open("w+b", buffering=0)
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view) and self.error is None:
            try:
                done += self._handle.write(view[done:])
            except OSError as error:
                self.error = error
        return len(view)

    def readinto(self, buffer: Any) -> int:
        return self._handle.readinto(buffer)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._handle.seek(offset, whence)

    def tell(self) -> int:
        return self._handle.tell()

    def truncate(self, size: int | None = None) -> int:
        try:
            return self._handle.truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self._handle.close()
        super().close()

    def check(self) -> None:
        """Raise the failure that was kept."""
        if self.error is not None:
            raise self.error


class _Writer:
    """A shard being written: rows are appended to the clip that was begun last."""

    def __init__(
        self, path: str | Path, schema: str, stage: str, columns: Columns, **attributes: Any
    ) -> None:
        self.path = Path(path)
        self._columns = columns
        self._attributes = {
            "schema": schema,
            "stage": stage,
            "version": STAGES[stage],
            "remime": __version__,
            **attributes,
        }
        self._stack = ExitStack()
        self._clips: list[ClipEntry] = []
        self._buffer: dict[str, list[Any]] = {name: [] for name in columns}
        self._rows = 0
        self._ids: set[str] = set()

    def __enter__(self) -> Self:
        with self._reported():
            temporary = self._stack.enter_context(atomic(self.path))
            self._sink = _Sink(temporary)
            self._file = h5py.File(self._sink, "w")
        self._file.attrs.update(self._attributes)
        for name, (shape, dtype) in self._columns.items():
            size = int(np.prod(shape)) if shape else 1
            self._file.create_dataset(
                name,
                shape=(0, *shape),
                maxshape=(None, *shape),
                dtype=h5py.vlen_dtype(np.uint8) if dtype is None else dtype,
                chunks=(max(1, min(256, 16384 // size)), *shape),
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            try:
                with self._reported():
                    self._flush()
                    self._write_clips()
                    self._file.close()
                    self._sink.check()
                    self._sink.close()
                    self._stack.close()
                return
            except BaseException as failure:
                self._abandon(failure)
                raise
        self._abandon(error or RuntimeError(str(kind)))

    def _abandon(self, error: BaseException) -> None:
        """Let ``atomic`` see the failure, whatever HDF5 still says about its unwritten pieces."""
        with suppress(OSError, RuntimeError, ValueError):
            self._file.close()
        self._sink.close()
        self._stack.__exit__(type(error), error, None)

    @contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            problem = f"cannot be written ({error})"
            if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise InputError(self.path, problem, "choose a folder that you may write to") from error
            raise RemimeError(
                f"{self.path}: {problem}\n  check its folder's free space and rights"
            ) from error

    def begin_clip(
        self, clip_id: str, fps: float, identity: str, meta: Mapping[str, Any] | None = None
    ) -> None:
        """Start a clip; the rows appended from now on are its."""
        if clip_id in self._ids:
            raise ValueError(f"{self.path}: the clip {clip_id!r} is already there")
        self._ids.add(clip_id)
        self._clips.append(ClipEntry(clip_id, self._rows, 0, float(fps), identity, dict(meta or {})))

    def append(self, **row: Any) -> None:
        """Append one row to the clip begun last; every column is needed."""
        if not self._clips:
            raise ValueError("begin_clip comes before the first append")
        if set(row) != set(self._columns):
            raise ValueError(f"a row needs {sorted(self._columns)}, got {sorted(row)}")
        for name, (shape, dtype) in self._columns.items():
            value = np.frombuffer(row[name], np.uint8) if dtype is None else np.asarray(row[name], dtype)
            if dtype is not None and value.shape != shape:
                raise ValueError(f"{name}: a row of shape {shape} is needed, got {value.shape}")
            self._buffer[name].append(value)
        self._rows += 1
        if len(next(iter(self._buffer.values()))) >= _BUFFERED_ROWS:
            with self._reported():
                self._flush()

    def annotate(self, **meta: Any) -> None:
        """Add to what is noted about the clip begun last; JSON values."""
        self._clips[-1].meta.update(meta)

    def copy_clip(self, reader: _Reader, entry: ClipEntry) -> None:
        """Append a clip of another shard of the same schema, unchanged."""
        self.begin_clip(entry.id, entry.fps, entry.identity, entry.meta)
        for start in range(entry.first, entry.first + entry.count, _BUFFERED_ROWS):
            block = slice(start, min(start + _BUFFERED_ROWS, entry.first + entry.count))
            values = {name: reader.file[name][block] for name in self._columns}
            for i in range(block.stop - block.start):
                self.append(**{name: value[i] for name, value in values.items()})

    def _flush(self) -> None:
        count = len(next(iter(self._buffer.values())))
        if not count:
            return
        for name, (_, dtype) in self._columns.items():
            data = self._file[name]
            data.resize(self._rows, axis=0)
            if dtype is None:
                for i, value in enumerate(self._buffer[name]):
                    data[self._rows - count + i] = value
            else:
                data[self._rows - count :] = np.stack(self._buffer[name])
            self._buffer[name].clear()
        self._sink.check()

    def _write_clips(self) -> None:
        ends = [entry.first for entry in self._clips[1:]] + [self._rows]
        firsts = [entry.first for entry in self._clips]
        group = self._file.create_group("clips")
        text = h5py.string_dtype()
        for name, values in {
            "id": [entry.id for entry in self._clips],
            "identity": [entry.identity for entry in self._clips],
            "meta": [json.dumps(entry.meta, sort_keys=True) for entry in self._clips],
        }.items():
            group.create_dataset(name, data=np.array(values, dtype=object), dtype=text)
        group["first"] = np.array(firsts, np.int64)
        group["count"] = np.array([b - a for a, b in zip(firsts, ends, strict=False)], np.int64)
        group["fps"] = np.array([entry.fps for entry in self._clips], np.float64)


class _Reader:
    """A finished shard, read by row. Not to be shared between processes: open one in each."""

    def __init__(self, path: str | Path, schema: str, stage: str, columns: Iterable[str]) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise InputError(self.path, "does not exist", f"run the stage {stage} that writes it")
        try:
            self.file = h5py.File(self.path, "r", locking=False)
            self.attributes: dict[str, Any] = dict(self.file.attrs)
        except OSError as error:
            raise self._damaged(error) from error
        try:
            self._check(schema, stage)
            missing = [name for name in columns if name not in self.file]
            if missing:
                raise self._damaged(f"no dataset {', '.join(missing)}")
            self.clips = self._read_clips()
        except (OSError, KeyError, ValueError, RuntimeError) as error:
            self.close()
            raise self._damaged(error) from error
        except RemimeError:
            self.close()
            raise
        self.by_id: dict[str, ClipEntry] = {entry.id: entry for entry in self.clips}

    def _damaged(self, problem: object) -> InputError:
        return InputError(self.path, f"is damaged ({problem})", "delete it and run again")

    def _check(self, schema: str, stage: str) -> None:
        found = self.attributes.get("schema")
        if found != schema:
            raise InputError(self.path, f"holds {found!r}", f"a shard of {schema!r} is needed")
        if int(self.attributes["version"]) != STAGES[stage]:
            raise VersionError(
                f"{self.path}: written by version {self.attributes['version']} of stage {stage}, this is "
                f"version {STAGES[stage]}\n  run the workflow again; it recomputes what is older"
            )

    def _read_clips(self) -> list[ClipEntry]:
        group = self.file["clips"]
        text = {name: group[name].asstr()[:] for name in ("id", "identity", "meta")}
        return [
            ClipEntry(str(i), int(first), int(count), float(fps), str(who), json.loads(meta))
            for i, first, count, fps, who, meta in zip(
                text["id"],
                group["first"][:],
                group["count"][:],
                group["fps"][:],
                text["identity"],
                text["meta"],
                strict=True,
            )
        ]

    @property
    def options(self) -> dict[str, Any]:
        """The options that the shard was computed with."""
        return json.loads(self.attributes["options"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self.file.close()


class AlignedWriter(_Writer):
    """Write a shard of aligned frames; nothing appears at ``path`` before all of it is there.

    Args:
        path: the HDF5 file.
        options: what the frames were computed with; ``options["resolution"]`` is the side in pixels.
    """

    def __init__(self, path: str | Path, options: Mapping[str, Any]) -> None:
        super().__init__(
            path,
            "aligned",
            "align",
            ALIGNED_COLUMNS,
            options=json.dumps(options, sort_keys=True),
            resolution=int(options["resolution"]),
        )

    def add_clip(
        self,
        clip_id: str,
        fps: float,
        identity: str,
        frames: Sequence[bytes],
        landmarks: NDArray[np.floating],
        transform: NDArray[np.floating],
        time: NDArray[np.floating],
        interpolated: NDArray[np.bool_],
        meta: Mapping[str, Any] | None = None,
    ) -> None:
        """Append a whole clip.

        Args:
            clip_id: unique in the shard.
            fps: nominal frames per second.
            identity: who is seen.
            frames: JPEG bytes, see ``encode_jpeg``.
            landmarks: ``[n, 68, 2]`` pixels of the aligned frame, x right, y down, pixel centres at integers.
            transform: ``[n, 2, 3]`` from source to aligned pixels.
            time: ``[n]`` seconds in the source.
            interpolated: ``[n]`` whether the landmarks were filled in.
            meta: JSON values kept with the clip.
        """
        columns = {
            "landmarks": landmarks,
            "transform": transform,
            "time": time,
            "interpolated": interpolated,
        }
        for name, values in columns.items():
            if len(values) != len(frames):
                raise ValueError(f"{name}: {len(values)} rows for {len(frames)} frames")
        self.begin_clip(clip_id, fps, identity, meta)
        for i, jpeg in enumerate(frames):
            self.append(frames=jpeg, **{name: values[i] for name, values in columns.items()})


class AlignedReader(_Reader):
    """Read a shard of aligned frames.

    Attributes:
        clips: a ``ClipEntry`` per clip; ``by_id`` finds one by its id.
        resolution: side of the frames in pixels.

    Raises:
        InputError: no such file, cut off, or of another kind.
        VersionError: written by another version of the stage.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(path, "aligned", "align", ALIGNED_COLUMNS)
        self.resolution = int(self.attributes["resolution"])

    def __len__(self) -> int:
        return int(self.file["time"].shape[0])

    def jpeg(self, row: int) -> bytes:
        """The compressed frame of a row."""
        try:
            return self.file["frames"][row].tobytes()
        except (OSError, RuntimeError) as error:
            raise self._damaged(error) from error

    def frame(self, row: int) -> NDArray[np.uint8]:
        """The RGB frame ``[H, W, 3]`` of a row."""
        try:
            return decode_jpeg(self.jpeg(row))
        except ValueError as error:
            raise self._damaged(f"row {row}: {error}") from error

    def frames(self, rows: Iterable[int]) -> NDArray[np.uint8]:
        """The RGB frames ``[n, H, W, 3]`` of rows, in any order."""
        listed = [self.frame(row) for row in rows]
        return np.stack(listed) if listed else np.zeros((0, self.resolution, self.resolution, 3), np.uint8)

    @property
    def landmarks(self) -> h5py.Dataset:
        """``[n, 68, 2]`` float32 in aligned pixels; slice it to read."""
        return self.file["landmarks"]

    @property
    def transform(self) -> h5py.Dataset:
        """``[n, 2, 3]`` float64 from source to aligned pixels; slice it to read."""
        return self.file["transform"]

    @property
    def time(self) -> h5py.Dataset:
        """``[n]`` float64 seconds in the source; slice it to read."""
        return self.file["time"]

    @property
    def interpolated(self) -> h5py.Dataset:
        """``[n]`` bool, whether the landmarks were filled in; slice it to read."""
        return self.file["interpolated"]


ANSWER_COLUMNS: Columns = {
    "frames": ((), None),
    "labels": ((), None),
    "landmarks": ((68, 2), np.float32),
    "pose": ((3,), np.float32),
    "coefficients": ((52,), np.float32),
}


def encode_labels(labels: NDArray[np.uint8]) -> bytes:
    """Compress a label map ``[H, W]`` without loss."""
    done, data = cv2.imencode(".png", labels)
    if not done:
        raise ValueError(f"labels of shape {labels.shape} and type {labels.dtype} cannot be a PNG")
    return data.tobytes()


class AnswerWriter(_Writer):
    """Write the true answers of a batch of pairs, a clip a pair; nothing appears before all is there.

    Args:
        path: the HDF5 file.
        labels: what the numbers of the label maps stand for.
    """

    def __init__(self, path: str | Path, labels: Sequence[str]) -> None:
        super().__init__(path, "answers", "answer", ANSWER_COLUMNS, labels=json.dumps(list(labels)))


class AnswerReader(_Reader):
    """Read the true answers of a batch; ``by_id`` finds a pair's rows by its name.

    Attributes:
        labels: what the numbers of the label maps stand for.

    Raises:
        InputError: no such file, cut off, or of another kind.
        VersionError: written by another version of the stage.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(path, "answers", "answer", ANSWER_COLUMNS)
        self.labels: tuple[str, ...] = tuple(json.loads(self.attributes["labels"]))

    def frame(self, row: int) -> NDArray[np.uint8]:
        """The RGB frame ``[H, W, 3]`` of a row, in the driving clip's aligned frame."""
        return self._decoded(row, "frames", decode_jpeg)

    def label_map(self, row: int) -> NDArray[np.uint8]:
        """What each pixel of the frame shows, ``[H, W]``: numbers of ``labels``."""
        return self._decoded(row, "labels", _decode_labels)

    def _decoded(
        self, row: int, column: str, decode: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
    ) -> NDArray[np.uint8]:
        try:
            return decode(self.file[column][row])
        except (OSError, RuntimeError, ValueError) as error:
            raise self._damaged(f"row {row}: {error}") from error

    @property
    def landmarks(self) -> h5py.Dataset:
        """``[n, 68, 2]`` float32, true, in pixels of the frame; slice it to read."""
        return self.file["landmarks"]

    @property
    def pose(self) -> h5py.Dataset:
        """``[n, 3]`` float32 true yaw, pitch, roll in degrees, as the frame shows them; slice it to read."""
        return self.file["pose"]

    @property
    def coefficients(self) -> h5py.Dataset:
        """``[n, 52]`` float32 true face units of ARKit; slice it to read."""
        return self.file["coefficients"]


def _decode_labels(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    labels = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE) if data.size else None
    if labels is None:
        raise ValueError(f"{data.size} bytes are not a PNG image")
    return np.asarray(labels, np.uint8)


def _latent_columns(rows: int) -> Columns:
    return {"latents": ((rows, 512), np.float32), "clip_row": ((), np.int64), "error": ((), np.float32)}


class LatentWriter(_Writer):
    """Write a shard of W+ latents; nothing appears at ``path`` before all of it is there.

    Args:
        path: the HDF5 file.
        options: what the latents were computed with.
        rows: W+ rows of the generator.
        inverter: the inverter's name.
        weights: sha256 (or several, joined) of the weights that were used.
    """

    def __init__(
        self, path: str | Path, options: Mapping[str, Any], rows: int, inverter: str, weights: str
    ) -> None:
        super().__init__(
            path,
            "latents",
            "invert",
            _latent_columns(rows),
            options=json.dumps(options, sort_keys=True),
            rows=int(rows),
            inverter=inverter,
            weights=weights,
        )

    def add_clip(
        self,
        clip_id: str,
        fps: float,
        identity: str,
        latents: NDArray[np.floating],
        clip_row: NDArray[np.integer],
        error: NDArray[np.floating],
        meta: Mapping[str, Any] | None = None,
    ) -> None:
        """Append a whole clip.

        Args:
            clip_id: unique in the shard.
            fps: nominal frames per second.
            identity: who is seen.
            latents: ``[n, rows, 512]`` W+.
            clip_row: ``[n]`` rows of the aligned shard.
            error: ``[n]`` reconstruction errors.
            meta: JSON values kept with the clip.
        """
        if not len(latents) == len(clip_row) == len(error):
            raise ValueError(
                f"{len(latents)} latents, {len(clip_row)} rows, {len(error)} errors: not one number"
            )
        self.begin_clip(clip_id, fps, identity, meta)
        for values in zip(latents, clip_row, error, strict=True):
            self.append(**dict(zip(("latents", "clip_row", "error"), values, strict=True)))


class LatentReader(_Reader):
    """Read a shard of W+ latents.

    Attributes:
        clips: a ``ClipEntry`` per clip; ``by_id`` finds one by its id.
        rows: W+ rows of a latent.
        inverter: the inverter's name.
        weights: sha256 of the weights that were used.

    Raises:
        InputError: no such file, cut off, or of another kind.
        VersionError: written by another version of the stage.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(path, "latents", "invert", ("latents", "clip_row", "error"))
        self.rows = int(self.attributes["rows"])
        self.inverter = str(self.attributes["inverter"])
        self.weights = str(self.attributes["weights"])

    def __len__(self) -> int:
        return int(self.file["clip_row"].shape[0])

    @property
    def latents(self) -> h5py.Dataset:
        """``[n, rows, 512]`` float32; slice it to read."""
        return self.file["latents"]

    @property
    def clip_row(self) -> h5py.Dataset:
        """``[n]`` int64, the row of the aligned shard; slice it to read."""
        return self.file["clip_row"]

    @property
    def error(self) -> h5py.Dataset:
        """``[n]`` float32 reconstruction errors; slice it to read."""
        return self.file["error"]


R = TypeVar("R")


class Parts(Generic[R]):
    """The finished clips of a shard under way, a file each, so that a killed job resumes.

    A stage writes each finished clip to ``path(clip)``, merges all at the end (shards with ``copy_clip``)
    and then calls ``remove``. The file's name holds a digest of the clip and of the key, so parts of other
    options, inputs or versions are never taken up again.

    Args:
        directory: the folder of the parts; nothing else lies in it.
        reader: opens a part; ``AlignedReader``, ``LatentReader``, or what raises RemimeError for a bad file.
        key: all that the parts depend on besides the clip; JSON values.
        suffix: ending of the files.
    """

    def __init__(
        self,
        directory: str | Path,
        reader: Callable[[Path], R],
        key: Mapping[str, Any],
        suffix: str = ".h5",
    ) -> None:
        self.directory = Path(directory)
        self._suffix = suffix
        self._reader = reader
        self._digest = options_digest({"key": dict(key), "remime": __version__})

    def path(self, clip: str) -> Path:
        """Where the part of a clip lies or will lie; its writer makes it atomic."""
        name = hashlib.blake2b(f"{self._digest}:{clip}".encode(), digest_size=12).hexdigest()
        return self.directory / f"{name}{self._suffix}"

    def open(self, clip: str) -> R | None:
        """The finished part of a clip, or None; a damaged one is deleted, so that it is made anew."""
        path = self.path(clip)
        if not path.exists():
            return None
        try:
            return self._reader(path)
        except RemimeError:
            path.unlink()
            return None

    def remove(self) -> None:
        """Delete all parts, also left-over ones of other options and of killed jobs."""
        if self.directory.is_dir():
            shutil.rmtree(self.directory)


def parts_directory(output: str | Path) -> Path:
    """The folder of the parts of an output: hidden, beside it, so that they share a file system."""
    output = Path(output)
    return output.parent / f".{output.stem}.parts"
