"""Datasets that are rendered: people who follow from a seed, with the same number of clips each."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from remime.errors import InputError
from remime.shards import split_of
from remime.sources import Clip

Describe = Callable[[str, str], dict[str, Any]]
"""What a person's clip is rendered from, by the names of both: a JSON object on which every pixel depends."""


def rendered_clips(
    name: str, prefix: str, options: Mapping[str, Any], describe: Describe, *, terms: str, together: bool
) -> list[Clip]:
    """The clips of a dataset; identities are split like any others.

    Args:
        name: the dataset's, for messages.
        prefix: what the names of its people begin with.
        options: ``identities``, ``clips`` of each, ``seed``; ``frames`` and ``fps`` are checked only.
        describe: gives the ``path`` of a clip.
        terms: under which terms the clips may be used.
        together: whether one job makes all clips of a person, because what they share is built once.

    Raises:
        InputError: there would be nothing to render.
    """
    for key in ("identities", "clips", "frames", "fps"):
        if options[key] <= 0:
            raise InputError(f"datasets.{name}.{key}", f"is {options[key]}", "must be more than 0")
    listed = []
    for number in range(options["identities"]):
        person = f"{prefix}-{options['seed']}-{number:05d}"
        for take in range(options["clips"]):
            clip = f"{person}-{take:03d}"
            listed.append(
                Clip(
                    clip=clip,
                    video=person if together else clip,
                    identity=person,
                    split=split_of(person, int(options["seed"])),
                    kind="render",
                    path=json.dumps(describe(person, clip), sort_keys=True),
                    terms=terms,
                )
            )
    return listed
