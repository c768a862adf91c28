"""The report's page from its template."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined


def relative_url(path: Path, page: Path) -> str:
    """A link from the page to a file that works when both are opened from disk and moved together."""
    return quote(Path(os.path.relpath(path, page.parent)).as_posix())


def sentence_list(counts: Mapping[str, int]) -> str:
    """``3 ok, 1 no_face``; a dash for nothing."""
    return ", ".join(f"{number} {name}" for name, number in counts.items()) or "–"


def render(context: Mapping[str, Any]) -> str:
    """The page as HTML; all text in the context is escaped unless it is marked as HTML."""
    environment = Environment(
        loader=PackageLoader("remime.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["counts"] = sentence_list
    return environment.get_template("report.html.j2").render(**context)


def gallery(
    folder: Path, captions: Mapping[str, str], page: Path, suffixes: Sequence[str]
) -> list[dict[str, str]]:
    """Links and captions of a folder's files of some kinds, in the order of the captions."""
    return [
        {"url": relative_url(folder / name, page), "caption": caption, "name": name}
        for name, caption in captions.items()
        if Path(name).suffix in suffixes
    ]
