"""From values of pairs to the rows of the report, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from remime.metrics.registry import METRICS
from remime.metrics.statistics import Interval, bootstrap
from remime.reporting.results import CEILING, Benchmark, Value, inversion


class Resampling(NamedTuple):
    """How intervals are computed: bootstrap draws, confidence level, seed."""

    samples: int = 1000
    level: float = 0.95
    seed: int = 0

    def interval(self, values: Sequence[float], clips: Sequence[str]) -> Interval:
        """The mean with its interval over clips."""
        return bootstrap(values, clips, samples=self.samples, level=self.level, seed=self.seed)


def summarise(
    benchmark: Benchmark,
    values: Sequence[Value],
    models: Mapping[str, Mapping[str, Any]],
    resampling: Resampling,
) -> list[dict[str, Any]]:
    """The rows of the table ``metrics`` of one benchmark: models in their order, then inversion ceilings."""
    rows = []
    for model in models:
        for name in METRICS:
            if name == "inversion_csim":
                continue
            chosen = [v for v in values if v.model == model and v.metric == name]
            if chosen:
                row = _row(benchmark, model, chosen, [v.driving for v in chosen], resampling)
                rows.append({**row, "external": "external" in models[model]})
    for inverted in dict.fromkeys(inversion(entry) for entry in models.values()):
        users = [name for name, entry in models.items() if inversion(entry) == inverted]
        chosen = list(
            {v.target: v for v in values if v.model in users and v.metric == "inversion_csim"}.values()
        )
        if chosen:
            targets = [v.target.rpartition("/")[0] for v in chosen]
            rows.append(
                {**_row(benchmark, f"{CEILING}{inverted}", chosen, targets, resampling), "metric": "csim"}
            )
    return rows


def _row(
    benchmark: Benchmark, model: str, values: Sequence[Value], clips: Sequence[str], resampling: Resampling
) -> dict[str, Any]:
    metric = METRICS[values[0].metric]
    numbers = [v.value for v in values]
    interval = resampling.interval(numbers, clips)
    shares = [v.n / v.frames for v in values if v.frames]
    return {
        "benchmark": benchmark.name,
        "protocol": benchmark.protocol,
        "model": model,
        "metric": metric.name,
        "version": values[0].version,
        **{name: _known(number) for name, number in interval._asdict().items()},
        "clips": len({clip for clip, number in zip(clips, numbers, strict=True) if np.isfinite(number)}),
        "coverage": float(np.mean(shares)) if shares and metric.counts_frames else None,
        "networks": values[0].networks,
        "external": False,
    }


def _known(number: float) -> float | None:
    return float(number) if np.isfinite(number) else None


class Difference(NamedTuple):
    """How a model differs from the baseline on the pairs that both have; positive: the model is larger."""

    model: str
    metric: str
    interval: Interval
    pairs: int

    @property
    def verdict(self) -> str:
        """``better``, ``worse``, or ``open`` when the interval holds zero or there is none."""
        higher = METRICS[self.metric].higher_is_better
        if higher is None or not self.interval.low * self.interval.high > 0:
            return "open"
        return "better" if (self.interval.value > 0) == higher else "worse"


def differences(
    values: Sequence[Value],
    models: Sequence[str],
    baseline: str,
    names: Sequence[str],
    resampling: Resampling,
) -> list[Difference]:
    """Paired differences of every other model to the baseline, with intervals over driving clips."""
    table = {(v.model, v.metric, v.pair): v for v in values if np.isfinite(v.value)}
    found = []
    for model in models:
        for name in names if model != baseline else ():
            both = [
                (v, table[baseline, name, pair])
                for (m, metric, pair), v in table.items()
                if (m, metric) == (model, name) and (baseline, name, pair) in table
            ]
            if both:
                interval = resampling.interval(
                    [a.value - b.value for a, b in both], [a.driving for a, _ in both]
                )
                found.append(Difference(model, name, interval, len(both)))
    return found
