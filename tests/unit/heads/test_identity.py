"""Identities: parameters that follow from a seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from remime.errors import InputError
from remime.heads.assets import WEIGHTS, load_kit
from remime.heads.identity import ANCESTRY, Identity, sample
from tests import heads

KIT = heads.kit()
MANY = [sample(seed, KIT) for seed in range(200)]


def test_an_identity_follows_from_its_seed():
    assert sample(7, KIT) == MANY[7]
    assert len({identity.to_json() for identity in MANY}) == len(MANY)


def test_text_and_back():
    for identity in MANY[:20]:
        assert Identity.from_json(identity.to_json()) == identity
    with pytest.raises(InputError, match="stubbles"):
        Identity.from_json(MANY[0].to_json().replace('"stubble"', '"stubbles"'))


def test_parameters_are_in_their_ranges():
    for identity in MANY:
        assert sum(identity.ancestry) == pytest.approx(1, abs=1e-5)
        for value in (identity.gender, identity.age, identity.weight, identity.muscle, identity.stubble):
            assert 0 <= value <= 1
        assert all(-1 < value < 1 for value in identity.detail.values())
        assert identity.clothes in KIT.parts
        assert identity.brows in KIT.parts
        assert not identity.hair or identity.hair in KIT.parts
        people = ANCESTRY[int(np.argmax(identity.ancestry))]
        assert people in identity.skin


def test_everything_varies():
    assert 0.35 < np.mean([identity.gender > 0.5 for identity in MANY]) < 0.65
    assert len({identity.skin for identity in MANY}) > 12
    assert len({identity.hair for identity in MANY}) > 5
    assert len({identity.iris for identity in MANY}) == 2
    assert all(not identity.stubble for identity in MANY if identity.gender < 0.5)


def test_a_parameter_without_an_opposite_has_one_direction():
    assert all(identity.detail["head-fat-decr-incr"] >= 0 for identity in MANY)


def test_it_cannot_be_changed():
    with pytest.raises(AttributeError):
        MANY[0].age = 0.1  # type: ignore[misc]
    assert replace(MANY[0], age=0.6) != MANY[0]


@pytest.mark.weights
def test_brows_at_rest_are_not_stern(weights):
    """As the mesh has them they are, so on average their inner ends are raised."""
    for name in WEIGHTS:
        weights(name)
    people = [sample(seed, load_kit()) for seed in range(100)]
    for name, least in (("eyebrows-angle-down-up", 0.25), ("mouth-angles-down-up", 0.05)):
        assert np.mean([identity.detail[name] for identity in people]) > least
