"""VoxCeleb 2: celebrities in interviews on YouTube, cut into utterances.

Its videos circulate as ``mp4/idNNNNN/YOUTUBEID/NNNNN.mp4``, also below ``dev`` and ``test``: utterances, cut
and cropped to 224 × 224 pixels by the authors.

Formats and file names: :mod:`remime.sources.voxceleb`; boxes are in fractions of the frame.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from remime.sources import Listing, download, voxceleb

collector = download.collector


def clips(name: str, options: dict[str, Any], table: Path | None) -> Listing:
    """The clips of VoxCeleb 2, one identity per official person.

    Args:
        name: the dataset's name; not used.
        options: ``mode``, ``path``, ``metadata``, ``terms`` and ``seed`` of the configuration.
        table: not used.

    Raises:
        InputError: nothing usable is there, or the metadata does not fit.
    """
    return voxceleb.clips(options, lines=0)
