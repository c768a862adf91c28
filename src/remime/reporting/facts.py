"""What the report says about data, networks and the machine."""

from __future__ import annotations

import csv
import os
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from remime.catalogue import read_imported
from remime.errors import InputError
from remime.layout import WEIGHTS, Dataset
from remime.tables import read_table
from remime.versions import STAGES, __version__

PACKAGES = (
    "torch", "numpy", "scipy", "h5py", "pyarrow", "av", "dlib-bin", "opencv-python-headless", "safetensors",
    "lightning-fabric", "pytorch-optimizer", "matplotlib", "snakemake",
)  # fmt: skip


class DatasetFacts(NamedTuple):
    """Counts of one dataset.

    Args:
        name: in the configuration.
        clips, identities: in its manifest.
        splits, statuses: how many clips have each.
        frames, interpolated: aligned, and with landmarks that were filled in.
        kept: frames that selection kept, and ``reasons`` how many it dropped for each reason.
        failures: clip, stage, status and detail of every clip that is not ok.
        terms: what the clips may be used for → how many.
    """

    name: str
    clips: int
    identities: int
    splits: dict[str, int]
    statuses: dict[str, int]
    frames: int
    interpolated: int
    kept: int | None
    reasons: dict[str, int]
    failures: list[dict[str, Any]]
    terms: dict[str, int]


def _counts(values: Sequence[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items(), key=lambda item: (-item[1], item[0])))


def dataset_facts(dataset: Dataset) -> DatasetFacts:
    """Counts from a dataset's tables; selection is left out where it has not run."""
    manifest = read_table(dataset.manifest, "manifest", ["clip", "identity", "split", "terms"]).to_pylist()
    status = [
        row
        for shard in dataset.shard_names
        for row in read_table(dataset.status(shard), "status").to_pylist()
    ]
    paths = [dataset.selected(shard) for shard in dataset.shard_names]
    selected = [row for p in paths if p.exists() for row in read_table(p, "selected").to_pylist()]
    dropped = [row["reason"] or "not named" for row in selected if not row["keep"]]
    return DatasetFacts(
        name=dataset.name,
        clips=len(manifest),
        identities=len({row["identity"] for row in manifest}),
        splits=_counts([row["split"] or "none" for row in manifest]),
        statuses=_counts([row["status"] for row in status]),
        frames=sum(row["frames"] or 0 for row in status),
        interpolated=sum(row["interpolated"] or 0 for row in status),
        kept=len(selected) - len(dropped) if selected else None,
        reasons=_counts(dropped),
        failures=[row for row in status if row["status"] != "ok"],
        terms=_counts([row["terms"] or "not stated" for row in manifest]),
    )


class BenchmarkFacts(NamedTuple):
    """What a benchmark compares.

    Args:
        name, protocol: its name in the configuration, and cross, self or truth.
        pairs, frames: videos a model, and their frames together.
        driving, targets: different driving clips and target identities.
        random: how many of the targets are random identities of the generator.
    """

    name: str
    protocol: str
    pairs: int
    frames: int
    driving: int
    targets: int
    random: int


def benchmark_facts(folder: Path) -> BenchmarkFacts:
    """Counts from a benchmark's pairs."""
    rows = read_table(folder / "pairs.parquet", "pairs").to_pylist()
    targets = {row["target_identity"] for row in rows}
    return BenchmarkFacts(
        name=folder.name,
        protocol=", ".join(sorted({row["protocol"] for row in rows})),
        pairs=len(rows),
        frames=sum(row["frames"] for row in rows),
        driving=len({(row["driving_dataset"], row["driving_clip"]) for row in rows}),
        targets=len(targets),
        random=sum(name.startswith("random:") for name in targets),
    )


def read_tsv(path: Path) -> list[dict[str, str]]:
    """The rows of a table of the repository."""
    try:
        with path.open(encoding="utf-8", newline="") as handle:
            return [
                {key: value or "" for key, value in row.items() if key is not None}
                for row in csv.DictReader(handle, delimiter="\t")
            ]
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror})", "name the repository's table") from None


def sample_rows(path: Path, datasets: Sequence[Dataset]) -> list[dict[str, str]]:
    """The rows of the table of sample clips that some dataset holds."""
    held: set[str] = set()
    for dataset in datasets:
        for row in read_table(dataset.manifest, "manifest", ["clip", "path"]).to_pylist():
            held |= {row["clip"], Path(row["path"] or "").stem}
    return [row for row in read_tsv(path) if row.get("name") in held]


def weight_rows(path: Path, names: Sequence[str]) -> list[dict[str, str]]:
    """The rows of the weights table that were used, or all of them when no name is given.

    Networks that somebody imported under a name of their own have the row that their description makes.
    """
    rows = read_tsv(path)
    used = [row for row in rows if not names or row.get("name") in names]
    others = set(names) - {row.get("name") for row in used}
    own = read_imported(WEIGHTS) if others else {}
    return used + [_imported_row(own[name]) for name in sorted(others & own.keys())]


def _imported_row(meta: Mapping[str, Any]) -> dict[str, str]:
    terms = meta["terms"]
    return {
        "name": meta["name"],
        "role": meta["role"],
        "version": ", ".join(meta["sha256"]),
        "mirror": "",
        "terms": terms["class"],
        "weights_terms": terms["weights"],
        "package_terms": terms["package"],
    }


def environment() -> dict[str, str]:
    """Versions of what the report was made with, and the machine."""
    found = {
        "remime": __version__,
        "Python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} ({platform.machine()})",
        "processor cores": str(os.cpu_count() or "unknown"),
    }
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    found["stages"] = ", ".join(f"{stage} {version}" for stage, version in STAGES.items())
    return found
