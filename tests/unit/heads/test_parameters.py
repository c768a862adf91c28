"""Parameters as text."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from remime.errors import InputError
from remime.heads.parameters import Parameters, triple


@dataclass(frozen=True)
class Hat(Parameters):
    size: float
    colours: tuple[tuple[float, float], ...]
    words: dict[str, float]


HAT = Hat(1.5, ((0.1, 0.2), (0.3, 0.4)), {"b": 2.0, "a": 1.0})
TEXT = '{"colours": [[0.1, 0.2], [0.3, 0.4]], "size": 1.5, "words": {"a": 1.0, "b": 2.0}}'


def test_text_and_back():
    assert HAT.to_json() == TEXT
    assert Hat.from_json(TEXT) == HAT


def test_what_is_missing_or_unknown_is_named():
    with pytest.raises(InputError, match=r"hat: lacks \['size'\], does not know \['width'\]"):
        Hat.from_json(TEXT.replace("size", "width"))
    with pytest.raises(InputError, match=r"lacks \[\], does not know \['brim'\]"):
        Hat.of({**json.loads(TEXT), "brim": 1})


@pytest.mark.parametrize("text", ["", "5", "[1]", TEXT[:-1]])
def test_other_text_is_an_error(text):
    with pytest.raises(InputError, match=r"hat: .* is no JSON object"):
        Hat.from_json(text)


def test_triples_are_rounded():
    assert triple([1 / 3, 2, 0.1234567]) == (0.333333, 2.0, 0.123457)
    with pytest.raises(ValueError, match="values to unpack"):
        triple([1, 2])
