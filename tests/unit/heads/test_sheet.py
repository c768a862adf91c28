"""The contact sheet."""

from __future__ import annotations

import sys

import pytest
from PIL import Image

from remime.heads import sheet, take
from remime.heads.assets import COEFFICIENTS
from tests import heads


def test_poses_by_name():
    pose = sheet.pose((1, 2, 3), (4, 5), jawOpen=0.5, eyeBlink=1)
    assert (pose.head, pose.gaze) == ((1, 2, 3), (4, 5))
    assert pose.coefficients[COEFFICIENTS.index("jawOpen")] == 0.5
    assert pose.coefficients[COEFFICIENTS.index("eyeBlinkRight")] == 1
    assert pose.coefficients.sum() == 2.5
    for name in ("nodding", "eye"):
        with pytest.raises(ValueError, match=f"'{name}' is no coefficient"):
            sheet.pose(**{name: 1})


def test_a_row_a_person(tmp_path, monkeypatch):
    monkeypatch.setattr(take, "load_kit", heads.kit)
    take.figure_of.cache_clear()
    monkeypatch.setattr(
        sys, "argv", ["sheet", str(tmp_path / "s.jpg"), "--identities", "1", "2", "--size", "32"]
    )
    sheet.main()
    take.figure_of.cache_clear()
    with Image.open(tmp_path / "s.jpg") as page:
        assert page.size == (32 * len(sheet.POSES), 14 + 2 * 32)
        assert page.convert("L").getextrema()[0] < 100
