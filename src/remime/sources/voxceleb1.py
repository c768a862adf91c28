"""VoxCeleb 1: celebrities in interviews on YouTube, cut into utterances.

No videos of VoxCeleb 1 were ever published (the authors cropped too tightly): local files are those that the
preprocessing of FOMM or of P1's authors made.

Formats and file names: :mod:`remime.sources.voxceleb`; boxes are in pixels of a frame of 360 lines.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from remime.sources import Listing, download, voxceleb

collector = download.collector


def clips(name: str, options: dict[str, Any], table: Path | None) -> Listing:
    """The clips of VoxCeleb 1, one identity per official person.

    Args:
        name: the dataset's name; not used.
        options: ``mode``, ``path``, ``metadata``, ``terms`` and ``seed`` of the configuration.
        table: not used.

    Raises:
        InputError: nothing usable is there, or the metadata does not fit.
    """
    return voxceleb.clips(options, lines=voxceleb.VOXCELEB1_LINES)
