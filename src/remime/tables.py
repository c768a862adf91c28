"""The Parquet tables that stages exchange: their schemas, and reading and writing them.

Every file carries its schema's name, the stage that wrote it and that stage's version in its metadata;
reading a file of another schema or version is refused, never guessed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from remime.errors import InputError, VersionError
from remime.files import atomic
from remime.versions import STAGES, __version__

# Why a video could not be had.
DOWNLOAD_STATUSES = (
    "private",
    "removed",
    "geo_blocked",
    "login_required",
    "live",
    "unsupported",
    "forbidden",
    "rate_limited",
    "timeout",
    "network",
    "incomplete",
)
STATUSES = (
    "ok",
    "unreadable",
    "too_short",
    "too_small",
    "no_face",
    "many_faces",
    "scene_cut",
    "extreme_pose",
    "download_failed",
    *DOWNLOAD_STATUSES,
)

_s, _i, _f, _b = pa.string(), pa.int32(), pa.float32(), pa.bool_()
_vec = pa.list_(pa.float32())


def _schema(**fields: pa.DataType) -> pa.Schema:
    return pa.schema([pa.field(name, kind) for name, kind in fields.items()])


SCHEMAS: dict[str, tuple[str, pa.Schema]] = {
    # name: (stage that writes it, columns)
    "manifest": (
        "manifest",
        _schema(
            clip=_s,  # unique, file-name safe
            video=_s,  # clips of one video share a shard
            identity=_s,
            split=_s,  # train | val | test
            kind=_s,  # video | image | render
            path=_s,  # where the bytes lie; for renders a JSON description
            start=pa.float64(),  # s, null: from the beginning
            end=pa.float64(),  # s, null: to the end
            box=_vec,  # crop x, y, w, h in pixels, or empty
            terms=_s,
            stamp=_s,  # changes when the file does, so that its shard runs again
        ),
    ),
    "status": (
        "align",
        _schema(
            clip=_s,
            stage=_s,
            status=_s,  # one of STATUSES
            detail=_s,
            frames=_i,  # frames in the result
            interpolated=_i,  # frames whose landmarks were interpolated
            faces=_i,  # most faces seen at once
            cuts=_i,  # scene cuts
            fps=_f,
        ),
    ),
    "measured": (
        "measure",
        _schema(
            clip=_s,
            frame=_i,  # position within the clip's aligned frames
            row=_i,  # row of the aligned shard
            time=pa.float64(),  # s
            yaw=_f,  # degrees, positive: the nose points to the image's left
            pitch=_f,  # degrees, positive: up
            roll=_f,  # degrees
            sharpness=_f,
            detected=_b,
            blendshapes=_vec,  # 52, order of remime.faces.mesh.BLENDSHAPES
            identity_vector=_vec,  # unit length
        ),
    ),
    "selected": (
        "select",
        _schema(clip=_s, frame=_i, row=_i, keep=_b, sampled=_b, reason=_s),
    ),
    "latents": (
        "index",
        _schema(
            clip=_s,
            identity=_s,
            split=_s,
            shard=_s,
            row=_i,  # row of the latent shard
            aligned_row=_i,
            frame=_i,
            time=pa.float64(),
            sampled=_b,  # part of P1's training sampling
            yaw=_f,
            pitch=_f,
            roll=_f,
            error=_f,  # reconstruction error, LPIPS
        ),
    ),
    "history": (
        "train",
        _schema(step=_i, split=_s, name=_s, value=pa.float64(), seconds=pa.float64()),
    ),
    "pairs": (
        "plan",
        _schema(
            pair=_s,
            protocol=_s,  # cross | self | truth
            batch=_s,
            driving_dataset=_s,
            driving_clip=_s,
            driving_identity=_s,
            driving_shard=_s,
            frames=_i,  # driving frames used, from the clip's beginning
            target_dataset=_s,
            target_clip=_s,  # or random:SEED
            target_identity=_s,
            target_shard=_s,
            target_frame=_i,
        ),
    ),
    "scores": (
        "score",
        _schema(
            model=_s,
            benchmark=_s,
            pair=_s,
            frame=_i,  # null: a value of the whole clip
            metric=_s,
            version=_i,
            value=pa.float64(),  # null: could not be computed
            n=_i,  # frames (or signals) that the value rests on
            networks=_s,
        ),
    ),
    "metrics": (
        "summarize",
        _schema(
            benchmark=_s,
            protocol=_s,
            model=_s,
            metric=_s,
            version=_i,
            value=pa.float64(),
            low=pa.float64(),  # bounds of the bootstrap interval over clips
            high=pa.float64(),
            clips=_i,
            coverage=pa.float64(),
            networks=_s,
            external=_b,  # a system of other people
        ),
    ),
    "agreement": (
        "summarize",
        _schema(
            benchmark=_s,
            proxy=_s,
            truth=_s,
            scope=_s,  # all | within: whether differences between models take part
            value=pa.float64(),  # Spearman; 1: both rank alike from best to worst
            low=pa.float64(),  # bounds of the bootstrap interval over clips
            high=pa.float64(),
            videos=_i,
            clips=_i,
            models=_i,
        ),
    ),
}


def write_table(
    path: str | Path, name: str, rows: Iterable[Mapping[str, Any]] | pa.Table, **meta: Any
) -> pa.Table:
    """Write a table of schema ``name`` atomically and return it.

    Args:
        path: the Parquet file.
        name: a key of ``SCHEMAS``.
        rows: dictionaries with the schema's columns (missing ones are null), or a table.
        meta: what else the file should tell; JSON values.
    """
    stage, schema = SCHEMAS[name]
    table = rows.select(schema.names).cast(schema) if isinstance(rows, pa.Table) else None
    if table is None:
        listed = list(rows)
        for row in listed:
            unknown = set(row) - set(schema.names)
            if unknown:
                raise ValueError(f"table {name}: unknown columns {sorted(unknown)}")
        columns = {f.name: pa.array([row.get(f.name) for row in listed], f.type) for f in schema}
        table = pa.table(columns, schema=schema)
    note = {"schema": name, "stage": stage, "version": STAGES[stage], "remime": __version__, **meta}
    table = table.replace_schema_metadata({b"remime": json.dumps(note, sort_keys=True).encode()})
    with atomic(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
    return table


def read_meta(path: str | Path) -> dict[str, Any]:
    """The metadata that ``write_table`` put into a file."""
    try:
        raw = (pq.read_schema(path).metadata or {}).get(b"remime")
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(
            path, f"is not a readable Parquet file ({error})", "delete it and run again"
        ) from None
    if raw is None:
        raise InputError(path, "was not written by remime", "name a table of this workflow")
    return json.loads(raw)


def read_table(path: str | Path, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a table of schema ``name``.

    Raises:
        InputError: not a Parquet file, or one of another schema.
        VersionError: written by another version of its stage.
    """
    stage, _ = SCHEMAS[name]
    meta = read_meta(path)
    if meta["schema"] != name:
        raise InputError(path, f"holds the table {meta['schema']!r}", f"a table {name!r} is needed")
    if meta["version"] != STAGES[stage]:
        raise VersionError(
            f"{path}: written by version {meta['version']} of stage {stage}, this is version "
            f"{STAGES[stage]}\n  run the workflow again; it recomputes what is older"
        )
    # Metadata differs between shards; dropping it lets their tables be concatenated.
    return pq.read_table(path, columns=columns).replace_schema_metadata(None)


def concat(tables: Sequence[pa.Table], name: str) -> pa.Table:
    """One table of schema ``name`` out of many, also out of none."""
    schema = SCHEMAS[name][1]
    return pa.concat_tables(tables) if tables else schema.empty_table()
