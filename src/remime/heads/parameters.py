"""What people and scenes are described by: parameters that follow from a seed and can be written as text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self, SupportsFloat

from remime.errors import InputError

Colour = tuple[float, float, float]
"""Linear red, green, blue."""


def triple(values: Iterable[SupportsFloat]) -> tuple[float, float, float]:
    """Three numbers of a parameter, with the six decimals that its text has."""
    first, second, third = (round(float(value), 6) for value in values)
    return first, second, third


@dataclass(frozen=True)
class Parameters:
    """Named parameters; a dataclass of numbers, words, tuples, dictionaries of numbers, other parameters."""

    def to_json(self) -> str:
        """As text; equal parameters give equal text."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """From the text of ``to_json``.

        Raises:
            InputError: it is no such text, or a parameter is missing or unknown.
        """
        try:
            values = json.loads(text)
        except json.JSONDecodeError:
            values = None
        if not isinstance(values, dict):
            raise InputError(
                cls.__name__.lower(), f"{text[:60]!r} is no JSON object", "give what to_json wrote"
            )
        return cls.of(values)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """From values by name, with lists where there were tuples.

        Raises:
            InputError: a parameter is missing or unknown.
        """
        known = {field.name for field in fields(cls)}
        if set(values) != known:
            missing, unknown = sorted(known - set(values)), sorted(set(values) - known)
            raise InputError(
                cls.__name__.lower(),
                f"lacks {missing}, does not know {unknown}",
                "it may come from another version of remime: render the clip again",
            )
        return cls(**{name: cls._value(name, value) for name, value in values.items()})

    @classmethod
    def _value(cls, name: str, value: Any) -> Any:
        """A parameter's value as it was before it became text, which has no tuples."""
        return tuple(cls._value(name, each) for each in value) if isinstance(value, list) else value
