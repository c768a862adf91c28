"""Plots as SVG for light and dark pages: no background, grey text, colours of medium lightness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

GREY = "#7b7b7b"
COLOURS = ("#3d8bd4", "#e0803a", "#3fa56b", "#c45ab3", "#8a7fd6", "#b8952f", "#d05a5a", "#2fa3a3")

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "remime",
    "font.family": "sans-serif",
    "font.size": 10,
    # Names of clips and models are never formulas.
    "text.parse_math": False,
    "text.color": GREY,
    "axes.edgecolor": GREY,
    "axes.labelcolor": GREY,
    "axes.titlecolor": GREY,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "xtick.color": GREY,
    "ytick.color": GREY,
    "grid.color": GREY,
    "grid.alpha": 0.25,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


@contextmanager
def style():
    """Matplotlib settings of every plot here; figures must be made and saved inside."""
    with rc_context(_STYLE):
        yield


def save(figure: Figure, path: Path) -> None:
    """Write an SVG that is the same whenever its data are."""
    figure.savefig(path, format="svg", transparent=True, metadata={"Date": None})


def intervals(
    rows: Sequence[Mapping[str, Any]],
    points: Mapping[str, Sequence[float]],
    label: str,
    ceiling: float | None = None,
    labels: Sequence[str] = (),
) -> Figure:
    """One metric: a line a model with its mean and interval, and a faint dot for each video.

    Args:
        rows: ``model``, ``value``, ``low``, ``high``, from top to bottom.
        points: the values of single videos by model.
        label: of the axis.
        ceiling: a value that nothing can pass, drawn as a line.
        labels: what the lines are called, if not by their models.
    """
    figure = Figure(figsize=(6.4, 0.9 + 0.42 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    for place, row in enumerate(rows):
        colour = COLOURS[place % len(COLOURS)]
        dots = np.asarray(points.get(row["model"], ()), dtype=float)
        # A fixed pattern keeps dots apart and the file the same in every run.
        spread = 0.22 * np.sin(2.4 * np.arange(len(dots)))
        axes.plot(dots, place + spread, ".", color=colour, alpha=0.35, markersize=5)
        if row["value"] is None:
            continue
        if row["low"] is not None and row["high"] is not None:
            axes.plot([row["low"], row["high"]], [place, place], color=colour, linewidth=3)
        axes.plot(row["value"], place, "o", color=colour, markersize=8)
    if ceiling is not None:
        axes.axvline(ceiling, color=GREY, linestyle="--", linewidth=1)
        axes.text(ceiling, -0.62, "inversion ", ha="right", va="bottom", fontsize=8)
    axes.set_yticks(range(len(rows)), list(labels) or [row["model"] for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.65)
    axes.set_xlabel(label)
    axes.grid(axis="y", visible=False)
    return figure


def _smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Running mean that shortens its window at the beginning."""
    sums = np.cumsum(np.insert(values, 0, 0.0))
    stops = np.arange(1, len(values) + 1)
    starts = np.maximum(stops - window, 0)
    return (sums[stops] - sums[starts]) / (stops - starts)


def curves(history: Mapping[tuple[str, str], tuple[ArrayLike, ArrayLike]]) -> Figure:
    """Training curves: one panel a quantity, with its training and validation values over steps.

    Args:
        history: (split, name) → steps, values.
    """
    names = sorted({name for _, name in history})
    colours = dict(zip(sorted({split for split, _ in history}), COLOURS, strict=False))
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(3.1 * columns, 2.1 * rows), layout="constrained")
    for place, name in enumerate(names):
        axes = figure.add_subplot(rows, columns, place + 1)
        for split in [s for s in colours if (s, name) in history]:
            steps, values = (np.asarray(x, dtype=float) for x in history[split, name])
            finite = np.isfinite(values)
            _curve(axes, steps[finite], values[finite], split, colours[split])
        axes.set_title(name, fontsize=9)
        axes.tick_params(labelsize=8)
        axes.legend(fontsize=7, handlelength=1)
    figure.supxlabel("step", fontsize=9)
    return figure


def _curve(axes: Axes, steps: np.ndarray, values: np.ndarray, label: str, colour: str) -> None:
    if len(values) > 60:
        axes.plot(steps, values, color=colour, alpha=0.25, linewidth=0.8)
        axes.plot(steps, _smooth(values, len(values) // 20), color=colour, linewidth=1.6, label=label)
    else:
        axes.plot(steps, values, ".-", color=colour, linewidth=1.4, markersize=4, label=label)


def bars(names: Sequence[str], values: Sequence[float], labels: Sequence[str], title: str) -> Figure:
    """Horizontal bars with a label each."""
    figure = Figure(figsize=(6.4, 0.7 + 0.28 * len(names)), layout="constrained")
    axes = figure.add_subplot()
    axes.barh(range(len(names)), values, color=COLOURS[0], alpha=0.8, height=0.7)
    for place, (value, label) in enumerate(zip(values, labels, strict=True)):
        axes.text(value, place, f" {label}", va="center", fontsize=8)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0, 1.3 * max([*values, 1e-9]))
    axes.set_xlabel(title)
    axes.grid(axis="y", visible=False)
    return figure


def signals(panels: Mapping[str, Mapping[str, ArrayLike]], fps: float | None = None) -> Figure:
    """Signals over frames, one panel below the other: the first of each in grey, the others in colours.

    Args:
        panels: axis label → (name → values, NaN where missing).
        fps: gives an axis in seconds.
    """
    figure = Figure(figsize=(8.2, 1.7 * len(panels) + 0.5), layout="constrained")
    for place, (label, lines) in enumerate(panels.items()):
        axes = figure.add_subplot(len(panels), 1, place + 1)
        for index, (name, values) in enumerate(lines.items()):
            y = np.asarray(values, dtype=float)
            x = np.arange(len(y)) / (fps or 1)
            colour = GREY if index == 0 else COLOURS[(index - 1) % len(COLOURS)]
            axes.plot(x, y, color=colour, linewidth=2.6 if index == 0 else 1.2, label=name)
        axes.set_ylabel(label)
        if place == 0:
            axes.legend(fontsize=8, ncols=4, loc="lower left", bbox_to_anchor=(0, 1))
        if place == len(panels) - 1:
            axes.set_xlabel("seconds" if fps else "frame")
    return figure
