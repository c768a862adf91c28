"""``remime weights``: fetch, import, list and verify pretrained networks."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from remime.cli import inputs, networks
from remime.errors import InputError, RemimeError, WeightsError

if TYPE_CHECKING:
    from remime.weights import Entry

app = typer.Typer(
    help="Fetch, import, list and verify pretrained networks.", no_args_is_help=True, rich_markup_mode=None
)

_Names = Annotated[
    list[str] | None, typer.Argument(metavar="[NAME...]", help="Names from `remime weights list`.")
]


@dataclass(frozen=True)
class Found:
    """A network and what is known of its files.

    Attributes:
        state: ``verified`` (the converted file has its recorded sha256), ``present`` (not looked into),
            ``missing`` or ``damaged``.
        detail: where it lies, or what is wrong.
        used_by: which defaults use it.
        terms: their class: permissive, research, noncommercial, unknown.
        weights_terms, package_terms: what the authors and the package say.
    """

    name: str
    role: str
    state: str
    detail: str
    used_by: list[str]
    terms: str
    weights_terms: str
    package_terms: str


def _chosen(names: Sequence[str] | None, default: Sequence[str], own: Sequence[str] = ()) -> list[Entry]:
    """The named rows of the table; ``own`` are names that are known, but no rows."""
    from remime import weights

    known = weights.read_registry()
    unknown = [name for name in names or () if name not in known and name not in own]
    if unknown:
        raise InputError("NAME", f"no weights are called {', '.join(unknown)}", f"known: {', '.join(known)}")
    return [known[name] for name in dict.fromkeys(names or default) if name in known]


def inspect(entry: Entry, folder: Path, deep: bool) -> Found:
    """What is known of a network's files.

    Args:
        entry: the row of the table.
        folder: of weights.
        deep: read them and compare their sha256.
    """
    from remime import weights

    path = folder / f"{entry.name}.safetensors"
    state, detail = "present" if not deep else "verified", str(path)
    if not path.exists():
        state, detail = "missing", f"not in {folder}"
    else:
        try:
            if deep:
                weights.verify(entry.name, folder)
            elif not weights.is_current(entry, folder):
                state, detail = "damaged", f"{path}: made from other files, or cut off"
        except WeightsError as error:
            state, detail = "damaged", str(error).partition("\n")[0]
    used = networks.uses(entry.name)
    return Found(
        entry.name, entry.role, state, detail, used, entry.terms, entry.weights_terms, entry.package_terms
    )


def inspect_imported(name: str, folder: Path, deep: bool) -> Found:
    """``inspect`` for a checkpoint that the user brought."""
    from remime.weights import importing

    state, detail = "verified" if deep else "present", str(folder / f"{name}.safetensors")
    try:
        meta = importing.verify_imported(name, folder) if deep else importing.imported(folder)[name]
    except WeightsError as error:
        meta, state, detail = importing.imported(folder)[name], "damaged", str(error).partition("\n")[0]
    terms = meta["terms"]
    return Found(name, meta["role"], state, detail, [], terms["class"], terms["weights"], terms["package"])


def inspect_all(names: Sequence[str] | None, deep: bool) -> list[Found]:
    """``inspect`` for the named networks, or for all of the table and all that were imported."""
    from remime import weights
    from remime.weights.importing import imported

    folder, known = weights.weights_dir(), weights.read_registry()
    own = [name for name in imported(folder) if name not in known and (not names or name in names)]
    rows = _chosen(names, list(known), own)
    return [inspect(entry, folder, deep) for entry in rows] + [
        inspect_imported(name, folder, deep) for name in own
    ]


def mend(names: Sequence[str]) -> list[str]:
    """The commands that make weights usable again."""
    from remime import weights

    known = weights.read_registry()
    rows = [name for name in names if name in known and not known[name].by_hand]
    commands = [f"remime weights fetch {' '.join(rows)}"] if rows else []
    return commands + [f"remime weights import FILE --name {name}" for name in names if name not in rows]


@app.command("fetch")
def fetch(
    names: _Names = None,
    licence: inputs.Licence = "any",
) -> None:
    """Fetch, verify and convert networks; without names all that the defaults use."""
    entries = _chosen(names, networks.defaults())
    for path in networks.ensure_all([entry.name for entry in entries], licence):
        typer.echo(path)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A published checkpoint.", show_default=False)],
    name: Annotated[
        str | None, typer.Option("--name", help="What to call it; else made of its kind and its file's name.")
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            "--kind", help="psp, e4e, restyle-psp or restyle-e4e, where the file itself does not tell."
        ),
    ] = None,
) -> None:
    """Convert a checkpoint of your own; its contents tell what it is, and nothing in it is executed."""
    from remime.weights.importing import import_file

    done = import_file(file, name, kind)
    shapes = done.meta["shapes"].values()
    typer.echo(f"{file.name}: {done.kind.name} ({done.kind.role})")
    typer.echo(f"  tensors: {len(shapes)}, with {sum(math.prod(shape) for shape in shapes):,} numbers")
    typer.echo(f"  name: {done.name}")
    typer.echo(f"  file: {done.path}")
    typer.echo(f"  use: {done.use}")
    for note in done.meta["notes"]:
        typer.echo(f"  note: {note}")
    typer.echo(f"  terms: {done.meta['terms']['weights']}")


@app.command("list")
def list_(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """List all networks, which are there, and their terms."""
    found = inspect_all(None, deep=False)
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in found], indent=1, ensure_ascii=False))
        return
    width = max(len(each.name) for each in found)
    for each in found:
        use = ", ".join(each.used_by) or "optional"
        typer.echo(f"{each.name:<{width}}  {each.role:<13}{each.state:<10}{each.terms:<15}{use}")


@app.command("verify")
def verify(names: _Names = None) -> None:
    """Compare networks with the sha256 that were recorded; without names all that are there."""
    found = inspect_all(names, deep=True)
    if not names:
        found = [each for each in found if each.state != "missing"]
    for each in found:
        typer.echo(f"{each.name}: {each.state}" + ("" if each.state == "verified" else f" ({each.detail})"))
    bad = [each.name for each in found if each.state != "verified"]
    if bad:
        raise RemimeError(f"not usable: {', '.join(bad)}\n  run: " + "\n  run: ".join(mend(bad)))
    if not found:
        print("no weights are there yet; run: remime weights fetch", file=sys.stderr)
