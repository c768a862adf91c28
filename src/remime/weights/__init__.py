"""Pretrained files: fetch, verify, convert. The only place that meets foreign formats.

``ensure(name)`` gets a network of ``workflow/weights.tsv`` and converts it once; ``load(name)`` gives its
tensors and metadata. ``remime.weights.importing`` takes in checkpoints that a user brings. Nothing else in
the project reads a foreign weight file, but for dlib itself (``original("dlib-landmarks-68")``).
"""

from remime.weights.fetch import UnavailableError
from remime.weights.registry import (
    LICENCES,
    TERMS,
    Entry,
    Member,
    check_licence,
    default_table,
    find_entry,
    read_registry,
)
from remime.weights.store import (
    Weights,
    ensure,
    is_current,
    load,
    original,
    originals,
    verify,
    weights_dir,
)

__all__ = [
    "LICENCES",
    "TERMS",
    "Entry",
    "Member",
    "UnavailableError",
    "Weights",
    "check_licence",
    "default_table",
    "ensure",
    "find_entry",
    "is_current",
    "load",
    "original",
    "originals",
    "read_registry",
    "verify",
    "weights_dir",
]
