"""What videos tell about themselves."""

import hashlib
import json

import pytest

from remime.models import shipped
from remime.provenance import digests, provenance
from remime.versions import __version__

OPTIONS = {"method": "mapping", "generator": "mobile-ffhq", "optimise": 30}


@pytest.fixture
def files(tmp_path):
    for name in ("inverter", "model"):
        (tmp_path / name).write_text(name)
    return tmp_path / "inverter", tmp_path / "model"


def test_digests_are_of_the_files(files):
    expected = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("inverter", "model")}
    assert digests(OPTIONS, *files) == expected
    assert digests(OPTIONS, files[0], None) == expected | {"model": ""}


@pytest.mark.parametrize("asked", [{"expression_strength": 0.5}, {"relative_expression": 0.5}])
def test_the_directions_count_where_expressions_are_told_apart(files, asked):
    directions = hashlib.sha256(shipped("puppet-directions").read_bytes()).hexdigest()
    assert digests(OPTIONS | asked, *files)["directions"] == directions
    usual = dict.fromkeys(asked, 1) if "expression_strength" in asked else dict.fromkeys(asked, 0)
    assert "directions" not in digests(OPTIONS | usual, *files)


def test_videos_say_that_they_are_synthetic_and_how_they_were_made():
    note = provenance(OPTIONS | {"relative_expression": 0.5}, {"inverter": "ab"})
    assert json.loads(json.dumps(note)) == {
        "made_by": f"remime {__version__}",
        "synthetic": "the face in this video was generated",
        "method": "mapping",
        "generator": "mobile-ffhq",
        "optimise": 30,
        "strength": 1.0,
        "expression_strength": 1.0,
        "relative_expression": 0.5,
        "weights": {"inverter": "ab"},
    }
