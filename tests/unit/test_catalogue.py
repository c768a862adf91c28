"""What a configuration may name as a network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from remime.catalogue import is_name, model_meta, networks, read_imported, same_generator
from remime.models import save_model

HEADER = (
    "name", "role", "version", "upstream", "mirror", "mirror_sha256", "member", "sha256", "bytes",
    "converter", "kind", "package_terms", "weights_terms", "terms",
)  # fmt: skip


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A network that is fetched and one that is brought by hand."""
    rows = (
        {"name": "sface", "role": "identity", "converter": "onnx", "terms": "permissive", "sha256": "0" * 64},
        {"name": "hopenet", "role": "pose", "converter": "import", "kind": "hopenet", "terms": "unknown",
         "upstream": "https://example.org/h", "member": "h.pkl", "bytes": "95900000"},
    )  # fmt: skip
    path = tmp_path / "weights.tsv"
    lines = [HEADER, *([row.get(column, "") for column in HEADER] for row in rows)]
    path.write_text("\n".join("\t".join(line) for line in lines) + "\n")
    return path


def describe(folder: Path, name: str, /, **changes: Any) -> None:
    folder.mkdir(exist_ok=True)
    meta = {
        "name": name, "role": "pose", "kind": "hopenet", "sha256": {"x.pkl": "0"}, "converter": "import",
        "terms": {"class": "unknown", "weights": "theirs", "package": ""},
    }  # fmt: skip
    (folder / f"{name}.json").write_text(json.dumps(meta | changes))
    (folder / f"{name}.safetensors").touch()


def test_what_is_there_and_what_must_be_brought(table: Path, tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    found = networks(table, folder)
    assert (found["sface"].fetched, found["sface"].present) == (True, True)
    assert (found["hopenet"].fetched, found["hopenet"].present) == (False, False)
    assert found["hopenet"].how() == (
        "get h.pkl (96 MB) from https://example.org/h, then run: remime weights import FILE --name hopenet"
    )
    describe(folder, "hopenet")
    describe(folder, "mine")
    found = networks(table, folder)
    assert found["hopenet"].present
    assert (found["mine"].role, found["mine"].terms, found["mine"].present) == ("pose", "unknown", True)


def test_only_whole_imports_count(table: Path, tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    describe(folder, "good")
    describe(folder, "other", converter="onnx")
    describe(folder, "renamed", name="else")
    describe(folder, "alone")
    (folder / "alone.safetensors").unlink()
    (folder / "damaged.json").write_text("{")
    (folder / "list.json").write_text("[1]")
    assert list(read_imported(folder)) == ["good"]
    assert read_imported(tmp_path / "nowhere") == {}
    describe(folder, "hopenet", kind="bisenet")
    assert not networks(table, folder)["hopenet"].present


def test_names_and_paths() -> None:
    assert is_name("restyle-psp-ffhq")
    assert not any(map(is_name, (None, "models/a.safetensors", "a.safetensors", "A", "-a", "")))


def test_generators_are_told_apart_by_a_few_numbers() -> None:
    one = {"fingerprint": [1024.0, 0.5, -0.25]}
    assert same_generator(one, {"fingerprint": [1024.0, 0.5001, -0.25]})
    assert not same_generator(one, {"fingerprint": [1024.0, 0.6, -0.25]})
    assert not same_generator(one, {"fingerprint": [1024.0, 0.5]})
    assert same_generator(one, {})


def test_the_description_in_a_model_file(tmp_path: Path) -> None:
    save_model(tmp_path / "m.safetensors", {"a": torch.zeros(2)}, {"kind": "inverter", "generator": "tiny"})
    assert model_meta(tmp_path / "m.safetensors")["generator"] == "tiny"
    (tmp_path / "bad.safetensors").write_bytes(b"\xff" * 40)
    (tmp_path / "empty.safetensors").touch()
    for name in ("bad", "empty", "absent"):
        assert model_meta(tmp_path / f"{name}.safetensors") == {}
