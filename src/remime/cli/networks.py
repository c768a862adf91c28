"""Which pretrained networks and shipped models a command needs, and getting them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

INVERTER = "restyle-psp-small"
MODELS = {"mapping": "mapping-small", "linear": None}
"""The shipped model of every method; None for methods without one."""

GENERATOR = "mobile-ffhq"
PREVIEW = "mobile-preview"
FACES = "dlib-landmarks-68"
POSE, IDENTITY, LPIPS = "hopenet-lite", "sface", "lpips-alex"
LOSS_IDENTITY, FIT_IDENTITY = "dlib-resnet-id", "edgeface-s"

REENACT = (GENERATOR, FACES, LPIPS, FIT_IDENTITY, "face-mesh", "blendshapes")
SCORE = (FACES, POSE, IDENTITY, LPIPS)
TRAIN = (LOSS_IDENTITY,)
HEADS = ("head-anatomy", "head-parts")

USES: Mapping[str, tuple[str, ...]] = {"reenact": REENACT, "score": SCORE, "train": TRAIN, "heads": HEADS}


def uses(name: str) -> list[str]:
    """What the defaults use a network for; empty for one that is only a choice."""
    return [use for use, names in USES.items() if name in names]


def defaults() -> list[str]:
    """All networks of a default run, each once."""
    return list(dict.fromkeys(name for names in USES.values() for name in names))


def of_models(*descriptions: Mapping[str, Any]) -> list[str]:
    """The networks that models rest on.

    Args:
        descriptions: the ``meta`` of their files.
    """
    found = []
    for meta in descriptions:
        found.append(meta["generator"])
        if meta["preset"] == "small":
            found += [LPIPS] if meta["kind"] == "inverter" else ["face-mesh", "blendshapes"]
    return list(dict.fromkeys(found))


def ensure_all(names: Iterable[str], licence: str = "any") -> list[Path]:
    """Fetch and convert networks that are missing, saying so on stderr; the files of all.

    Raises:
        InputError: ``licence`` is not a policy.
        WeightsError: refused by the policy, or not to be had.
    """
    from remime import weights
    from remime.weights.importing import imported
    from remime.weights.registry import check_terms

    folder = weights.weights_dir()
    rows, own = weights.read_registry(), imported(folder)
    entries, paths = [], []
    for name in dict.fromkeys(names):
        # A row of the table goes before: it tells the terms.
        if name in own and name not in rows:
            terms = own[name]["terms"]
            check_terms(name, terms["class"], terms["weights"], licence)
            paths.append(folder / f"{name}.safetensors")
            continue
        entries.append(weights.find_entry(name))
        weights.check_licence(entries[-1], licence)
    for entry in entries:
        if not entry.by_hand and not weights.is_current(entry, folder):
            print(
                f"fetching {entry.name} ({entry.role}; terms: {entry.weights_terms})",
                file=sys.stderr,
                flush=True,
            )
        paths.append(weights.ensure(entry.name, folder, licence))
    return paths
