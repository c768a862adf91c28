"""How well metrics without a true answer rank videos as those with one do."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np

from remime.metrics.registry import METRICS
from remime.metrics.statistics import Interval, spearman
from remime.reporting.results import Value
from remime.reporting.summary import Resampling

PROXIES = ("pose_mae", "yaw_corr", "fl_corr", "csim")
"""What is reported where there is no true answer."""
TRUE = (
    "truth_lpips",
    "truth_ssim",
    "truth_nme",
    "truth_nme_shape",
    "truth_pose_mae",
    "truth_pose_to_answer",
    "truth_blendshape_mae",
    "truth_blendshape_corr",
)
SCOPES = ("all", "within")


class Agreement(NamedTuple):
    """Rank correlation of two metrics; 1: both rank from best to worst alike, -1: they contradict each other.

    Args:
        proxy, truth: metrics.
        scope: ``all``: over videos of all models together; ``within``: over the videos of each model, so that
            differences between models take no part.
        interval: Spearman's coefficient with its bootstrap interval over driving clips.
        videos, clips, models: how many it rests on.
    """

    proxy: str
    truth: str
    scope: str
    interval: Interval
    videos: int
    clips: int
    models: int

    def row(self, benchmark: str) -> dict[str, Any]:
        """As a row of the table ``agreement``."""
        value, low, high = (float(x) if np.isfinite(x) else None for x in self.interval)
        counts = {"videos": self.videos, "clips": self.clips, "models": self.models}
        names = {"benchmark": benchmark, "proxy": self.proxy, "truth": self.truth, "scope": self.scope}
        return {**names, "value": value, "low": low, "high": high, **counts}


def agreements(values: Sequence[Value], models: Collection[str], resampling: Resampling) -> list[Agreement]:
    """All pairs of ``PROXIES`` and ``TRUE`` that were measured.

    Args:
        values: of one benchmark.
        models: whose videos count; references are none of them.
        resampling: how intervals are computed.
    """
    table = {(v.metric, v.model, v.pair): v for v in values if v.model in models and np.isfinite(v.value)}
    found = []
    for proxy in PROXIES:
        for truth in TRUE:
            both = [
                (v, table[truth, *k[1:]])
                for k, v in table.items()
                if k[0] == proxy and (truth, *k[1:]) in table
            ]
            if both:
                found += [_agreement(both, scope, resampling) for scope in SCOPES]
    return found


def _agreement(both: Sequence[tuple[Value, Value]], scope: str, resampling: Resampling) -> Agreement:
    proxy, truth = both[0][0].metric, both[0][1].metric
    clips, models = [v.driving for v, _ in both], [v.model for v, _ in both]
    interval = spearman(
        [_goodness(v) for v, _ in both],
        [_goodness(v) for _, v in both],
        clips,
        models if scope == "within" else None,
        samples=resampling.samples,
        level=resampling.level,
        seed=resampling.seed,
    )
    counts = len(both), len(set(clips)), len(set(models))
    return Agreement(proxy, truth, scope, interval, *counts)


def _goodness(value: Value) -> float:
    """Larger is better."""
    return value.value if METRICS[value.metric].higher_is_better else -value.value
