"""Means, coverage and bootstrap intervals."""

import numpy as np
import pytest

from remime.metrics.statistics import bootstrap, clip_mean, coverage, spearman


def test_clip_mean_skips_what_is_not_finite():
    assert clip_mean([1.0, np.nan, 3.0, np.inf]) == (2.0, 2)
    value, n = clip_mean([np.nan])
    assert np.isnan(value)
    assert n == 0


def test_coverage_needs_every_detection():
    assert coverage([True, True, False, True], [True, False, True, True]) == 0.5
    assert np.isnan(coverage(np.zeros(0, bool)))
    with pytest.raises(ValueError, match="one length"):
        coverage([True], [True, False])


def test_interval_holds_the_mean_and_repeats_with_its_seed():
    values = np.random.default_rng(3).normal(5, 2, 50)
    first = bootstrap(values, seed=1)
    assert first.value == pytest.approx(values.mean())
    assert first.low < first.value < first.high
    assert first == bootstrap(values, seed=1)
    assert first != bootstrap(values, seed=2)


def test_interval_has_the_width_that_theory_gives():
    values = np.random.default_rng(3).normal(0, 1, 400)
    got = bootstrap(values, samples=4000)
    expected = 2 * 1.96 * values.std() / np.sqrt(400)
    assert got.high - got.low == pytest.approx(expected, rel=0.08)


def test_clips_are_drawn_whole():
    values = np.repeat([0.0, 1.0], 100)  # two clips of 100 equal values
    frames = bootstrap(values)
    clips = bootstrap(values, ["a"] * 100 + ["b"] * 100)
    assert frames.high - frames.low < 0.2
    assert (clips.low, clips.high) == (0, 1)
    assert clips.value == 0.5


def test_order_of_the_rows_does_not_matter():
    rng = np.random.default_rng(0)
    values, names = rng.normal(size=12), np.array([f"c{i % 4}" for i in range(12)])
    order = rng.permutation(12)
    assert bootstrap(values, names) == pytest.approx(bootstrap(values[order], names[order]))


def test_one_clip_has_no_interval_and_none_has_no_value():
    one = bootstrap([1.0, 3.0], ["a", "a"])
    assert one.value == 2
    assert np.isnan([one.low, one.high]).all()
    assert np.isnan(bootstrap([np.nan])).all()


def test_missing_values_take_no_part():
    assert bootstrap([1.0, np.nan, 3.0]).value == 2


def test_level_is_checked():
    with pytest.raises(ValueError, match="level"):
        bootstrap([1.0], level=95)


def test_rank_correlation_by_hand():
    """Ranks 1 2 3 4 against 2 1 4 3: 1 − 6·4 / (4·15) = 0.6."""
    clips = ["a", "b", "c", "d"]
    assert spearman([1, 20, 300, 4000], [5, 1, 9, 7], clips).value == pytest.approx(0.6)
    assert spearman([1, 2, 3, np.nan], [1, 4, 9, 0], clips).value == pytest.approx(1)
    # Equal values share their ranks: 1.5 1.5 3 against 1 2 3 gives √3 / 2.
    assert spearman([7, 7, 9], [1, 2, 3], clips[:3]).value == pytest.approx(np.sqrt(3) / 2)


def test_rank_correlation_within_groups():
    """Between the groups everything agrees, within each everything contradicts."""
    a, b = [1, 2, 3, 11, 12, 13], [3, 2, 1, 13, 12, 11]
    groups, clips = ["x"] * 3 + ["y"] * 3, [*"abc", *"abc"]
    assert spearman(a, b, clips).value > 0.5
    assert spearman(a, b, clips, groups).value == pytest.approx(-1)
    one = spearman(a, b, clips, ["x"] * 6)
    assert one == spearman(a, b, clips)


def test_interval_of_a_rank_correlation():
    rng = np.random.default_rng(0)
    x = rng.normal(size=60)
    y = x + rng.normal(size=60)
    clips = [str(i % 20) for i in range(60)]
    first = spearman(x, y, clips, samples=500, seed=1)
    assert 0.3 < first.low < first.value < first.high < 0.95
    assert first == spearman(x, y, clips, samples=500, seed=1)
    assert first != spearman(x, y, clips, samples=500, seed=2)
    order = rng.permutation(60)
    shuffled = spearman(x[order], y[order], [clips[i] for i in order], samples=500, seed=1)
    assert shuffled == pytest.approx(first)


def test_no_rank_correlation_without_variety():
    assert np.isnan(spearman([1, 1, 1], [1, 2, 3], ["a", "b", "c"]).value)
    assert np.isnan(spearman([1, 2], [1, 2], ["a", "b"]).value)
    alone = spearman([1, 2, 3], [1, 3, 2], ["a"] * 3)
    assert alone.value == pytest.approx(0.5)
    assert np.isnan(alone.low)
    with pytest.raises(ValueError, match="one length"):
        spearman([1, 2], [1], ["a", "b"])
