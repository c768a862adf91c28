"""What pixels show."""

from __future__ import annotations

from remime.heads import shading
from remime.heads.shape import MATERIALS


def test_every_material_has_a_label():
    assert [shading.LABELS[label] for label in shading._LABEL_OF] == list(MATERIALS)
