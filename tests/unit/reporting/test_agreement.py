"""Agreement: signs, scopes, what takes part."""

import numpy as np
import pytest

from remime.metrics import METRICS
from remime.reporting.agreement import PROXIES, SCOPES, TRUE, agreements
from remime.reporting.results import Value
from remime.reporting.summary import Resampling
from remime.reporting.text import agreement_tables

RESAMPLING = Resampling(200, 0.95, 0)


def value(model, pair, metric, number):
    return Value("truth", model, pair, f"clip {pair}", "t", metric, 1, "", number, 10, 10)


def values(proxy, true):
    """Of ``pose_mae`` and ``truth_ssim``: model → numbers of the pairs."""
    found = [
        value(model, str(pair), name, number)
        for name, table in (("pose_mae", proxy), ("truth_ssim", true))
        for model, numbers in table.items()
        for pair, number in enumerate(numbers)
    ]
    return found


def of(found, scope="all"):
    return next(each for each in found if each.scope == scope)


def test_metrics_are_registered():
    assert set(PROXIES) | set(TRUE) <= set(METRICS)
    assert not set(PROXIES) & set(TRUE)


def test_lower_errors_with_higher_similarity_agree():
    errors, similar = {"m": [1, 2, 3, 4]}, {"m": [0.9, 0.8, 0.7, 0.1]}
    found = agreements(values(errors, similar), ["m"], RESAMPLING)
    assert {(each.proxy, each.truth) for each in found} == {("pose_mae", "truth_ssim")}
    assert [each.scope for each in found] == list(SCOPES)
    assert of(found).interval.value == pytest.approx(1)
    assert (of(found).videos, of(found).clips, of(found).models) == (4, 4, 1)
    worse = agreements(values(errors, {"m": [0.1, 0.2, 0.3, 0.4]}), ["m"], RESAMPLING)
    assert of(worse).interval.value == pytest.approx(-1)


def test_differences_between_models_take_no_part_within():
    errors = {"a": [1, 2, 3], "b": [11, 12, 13]}
    similar = {"a": [0.7, 0.8, 0.9], "b": [0.1, 0.2, 0.3]}
    found = agreements(values(errors, similar), ["a", "b"], RESAMPLING)
    assert of(found).interval.value > 0.3
    assert of(found, "within").interval.value == pytest.approx(-1)


def test_references_and_what_is_not_known_take_no_part():
    errors = {"m": [1, 2, 3, np.nan], "reference-answer": [0, 0, 0, 0]}
    similar = {"m": [0.9, 0.8, 0.7, 1], "reference-answer": [1, 1, 1, 1]}
    found = agreements(values(errors, similar), ["m"], RESAMPLING)
    assert of(found).videos == 3
    assert agreements(values(errors, similar), ["other"], RESAMPLING) == []


def test_rows_have_no_numbers_that_are_none():
    found = agreements(values({"m": [1, 1, 1]}, {"m": [0.9, 0.8, 0.7]}), ["m"], RESAMPLING)
    row = of(found).row("truth")
    assert (row["value"], row["low"], row["videos"], row["scope"]) == (None, None, 3, "all")


def test_tables_name_their_metrics_and_numbers():
    errors, similar = {"m": [1, 2, 3, 4]}, {"m": [0.9, 0.8, 0.7, 0.1]}
    text = "\n".join(agreement_tables(agreements(values(errors, similar), ["m"], RESAMPLING)))
    assert "4 videos of 1 methods and 4 driving clips" in text
    assert f"| {METRICS['truth_ssim'].title} | 1.00 [1.00, 1.00] |" in text
    assert METRICS["csim"].title not in text
    assert agreement_tables([]) == []


def test_a_metric_that_was_not_measured_on_all_says_so():
    similar = {"m": [0.9, 0.8, 0.7, 0.1]}
    turned = [value("m", str(pair), "yaw_corr", number) for pair, number in enumerate([0.9, 0.8, 0.7])]
    found = agreements([*values({"m": [1, 2, 3, 4]}, similar), *turned], ["m"], RESAMPLING)
    header = f"| {METRICS['pose_mae'].title} | {METRICS['yaw_corr'].title} (3 videos, 3 clips) |"
    assert header in "\n".join(agreement_tables(found))
