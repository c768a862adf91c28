"""Differences to the baseline are paired, and their verdict follows the metric's direction."""

import numpy as np
import pytest

from remime.reporting.results import Value
from remime.reporting.summary import Resampling, differences


def value(model: str, pair: int, number: float, metric: str = "pose_mae") -> Value:
    return Value("cross", model, f"p{pair}", f"d{pair}", "t", metric, 1, "net", number, 5, 5)


@pytest.mark.parametrize(
    ("metric", "shift", "verdict"),
    [("pose_mae", -1, "better"), ("pose_mae", 1, "worse"), ("csim", 1, "better"), ("csim", -1, "worse"),
     ("pose_mae", 0, "open"), ("fl_constant", 1, "open")],
)  # fmt: skip
def test_verdict(metric, shift, verdict):
    values = [value("base", i, 10.0 * i, metric) for i in range(8)]
    values += [value("new", i, 10.0 * i + shift + 0.1 * (-1) ** i, metric) for i in range(8)]
    found = differences(values, ["base", "new"], "base", [metric], Resampling())
    assert len(found) == 1
    assert found[0].interval.value == pytest.approx(shift)
    assert found[0].verdict == verdict


def test_pairing_finds_what_means_alone_would_hide():
    values = [value("base", i, 100.0 * i) for i in range(8)] + [
        value("new", i, 100.0 * i - 1) for i in range(8)
    ]
    interval = differences(values, ["base", "new"], "base", ["pose_mae"], Resampling())[0].interval
    assert (interval.low, interval.high) == pytest.approx((-1, -1))


def test_only_pairs_that_both_have_count():
    values = [value("base", i, 1.0) for i in range(4)] + [value("new", i, 2.0) for i in range(2, 9)]
    values.append(value("new", 1, float("nan")))
    found = differences(values, ["base", "new"], "base", ["pose_mae", "csim"], Resampling())
    assert [(d.metric, d.pairs) for d in found] == [("pose_mae", 2)]


def test_one_clip_gives_no_verdict():
    found = differences([value("base", 0, 1.0), value("new", 0, 2.0)], ["base", "new"], "base", ["pose_mae"],
                        Resampling())  # fmt: skip
    assert np.isnan(found[0].interval.low)
    assert found[0].verdict == "open"
