"""Cosine similarity on vectors of known angle."""

import numpy as np
import pytest

from remime.metrics.identity import cosine


def test_known_angles():
    got = cosine([[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0], [1.0, 1.0]], [5.0, 0.0])
    np.testing.assert_allclose(got, [1, 0, -1, np.sqrt(0.5)])


def test_missing_and_empty_embeddings_have_no_value():
    assert np.isnan(cosine([[np.nan, 1.0], [0.0, 0.0]], [1.0, 0.0])).all()


def test_one_reference_a_frame():
    np.testing.assert_allclose(cosine([[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [1.0, 0.0]]), [1, 0])


def test_dimensions_must_agree():
    with pytest.raises(ValueError, match="reference"):
        cosine(np.zeros((2, 4)), np.zeros(3))
