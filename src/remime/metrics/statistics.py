"""From frames to clips to a table: means, coverage, bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from remime.errors import shape_error
from remime.metrics.temporal import pearson


class Interval(NamedTuple):
    """A mean with the bounds of its bootstrap interval; NaN where there is none."""

    value: float
    low: float
    high: float


def clip_mean(values: ArrayLike) -> tuple[float, int]:
    """The mean of the finite values of a clip's frames, and how many there are; NaN of none."""
    x = np.asarray(values, dtype=np.float64)
    x = x[np.isfinite(x)]
    return (float(x.mean()), len(x)) if len(x) else (float("nan"), 0)


def coverage(*found: ArrayLike) -> float:
    """Share of frames in which every needed detection succeeded.

    Args:
        found: one boolean array [n] for each detection that is needed.

    Returns:
        0…1; NaN without frames.
    """
    masks = [np.asarray(f, dtype=bool) for f in found]
    if not masks or any(m.shape != masks[0].shape or m.ndim != 1 for m in masks):
        raise shape_error("found", "at least one [n], all of one length", [m.size for m in masks])
    return float(np.logical_and.reduce(masks).mean()) if masks[0].size else float("nan")


def _groups(values: NDArray[np.float64], clips: Sequence[str] | None) -> tuple[NDArray, NDArray]:
    """Sum and count of the finite values of each clip, clips in sorted order."""
    names = np.arange(len(values)).astype(str) if clips is None else np.asarray(clips, dtype=str)
    if names.shape != values.shape:
        raise shape_error("clips", str(values.shape), names.shape)
    finite = np.isfinite(values)
    _, index = np.unique(names[finite], return_inverse=True)
    return np.bincount(index, values[finite]), np.bincount(index)


def bootstrap(
    values: ArrayLike,
    clips: Sequence[str] | None = None,
    *,
    samples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Mean of the values with a percentile bootstrap interval over clips.

    Clips are drawn with replacement, each with all its values: frames of one clip, and pairs that share a
    driving clip, are not independent of one another.

    Args:
        values: [n], one for each pair; values that are not finite take no part.
        clips: the driving clip of each value; without it every value is a clip of its own.
        samples: bootstrap draws.
        level: of the interval.
        seed: of the draws; the same input gives the same interval.

    Returns:
        the mean over values and the bounds; bounds are NaN with fewer than two clips.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1:
        raise shape_error("values", "[n]", x.shape)
    if not 0 < level < 1:
        raise ValueError(f"level: {level} is not between 0 and 1")
    sums, counts = _groups(x, clips)
    if not len(sums):
        return Interval(float("nan"), float("nan"), float("nan"))
    mean = float(sums.sum() / counts.sum())
    if len(sums) < 2:
        return Interval(mean, float("nan"), float("nan"))
    draws = np.random.default_rng(seed).integers(len(sums), size=(samples, len(sums)))
    means = sums[draws].sum(axis=1) / counts[draws].sum(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high))


def spearman(
    a: ArrayLike,
    b: ArrayLike,
    clips: Sequence[str],
    groups: Sequence[str] | None = None,
    *,
    samples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Spearman's rank correlation with a percentile bootstrap interval over clips; equal values share a rank.

    Args:
        a, b: [n]; values of which one is not finite take no part.
        clips: the driving clip of each; clips are drawn with all their values, as in :func:`bootstrap`.
        groups: of each value, for the correlation within groups: values are ranked among those of their own
            group, and the differences to its mean rank are correlated over all groups.
        samples: bootstrap draws.
        level: of the interval.
        seed: of the draws; the same input gives the same interval.

    Returns:
        −1…1 and the bounds; NaN with fewer than three values or where one side is constant, bounds also with
        fewer than two clips.
    """
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if x.ndim != 1 or y.shape != x.shape:
        raise shape_error("values", f"two of one length, the first has {x.shape}", y.shape)
    finite = np.isfinite(x) & np.isfinite(y)
    x, y, names = x[finite], y[finite], np.asarray(clips, dtype=str)[finite]
    kinds = np.zeros(len(x), int) if groups is None else np.unique(groups, return_inverse=True)[1][finite]
    value = _rank_correlation(x, y, kinds)
    members = [np.flatnonzero(names == name) for name in np.unique(names)]
    if len(members) < 2 or not samples:
        return Interval(value, float("nan"), float("nan"))
    draws = np.random.default_rng(seed).integers(len(members), size=(samples, len(members)))
    rows = (np.concatenate([members[clip] for clip in draw]) for draw in draws)
    found = np.array([_rank_correlation(x[row], y[row], kinds[row]) for row in rows])
    found = found[np.isfinite(found)]
    if not len(found):
        return Interval(value, float("nan"), float("nan"))
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))


def _rank_correlation(x: NDArray[np.float64], y: NDArray[np.float64], groups: NDArray[np.integer]) -> float:
    p, q = np.empty_like(x), np.empty_like(y)
    for group in np.unique(groups):
        own = groups == group
        for values, ranks in ((x, p), (y, q)):
            ranks[own] = rankdata(values[own])
            ranks[own] -= ranks[own].mean()
    return pearson(p, q)
