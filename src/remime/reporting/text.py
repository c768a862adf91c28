"""The papers' tables as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from remime.layout import REFERENCES
from remime.metrics.registry import IMAGE, METRICS, SIGNALS, TABLE1, TRUTH
from remime.metrics.statistics import Interval
from remime.reporting.agreement import PROXIES, SCOPES, TRUE, Agreement
from remime.reporting.results import CEILING, FITTED, Lost, title
from remime.reporting.summary import Difference

PUBLISHED = {
    # P1, Table 1: Pose (MAE), FL (CORR), ID (CSIM).
    "Base pSp": (8.491, 0.656, 0.671),
    "Base e4e": (8.720, 0.621, 0.563),
    "Ours Gen": (8.325, 0.556, 0.760),
    "Ours Cos": (7.968, 0.528, 0.762),
    "Ours": (7.673, 0.620, 0.801),
}
PUBLISHED_CEILING = 0.83
"""P1, Sec. 4.3: cosine similarity of original and ReStyle-pSp-inverted images."""

_KINDS = {
    "cross": "Cross-reenactment",
    "self": "Self-reenactment",
    "truth": "Cross-reenactment of rendered heads",
}
_VARIANTS = {"ours": "Ours", "gen": "Ours Gen", "cos": "Ours Cos"}

Rows = Sequence[Mapping[str, Any]]


def published_row(entry: Mapping[str, Any]) -> str | None:
    """The row of P1's Table 1 that a model of the configuration stands for."""
    if entry.get("method") == "linear":
        return "Base e4e" if "e4e" in str(entry.get("inverter", "")) else "Base pSp"
    if entry.get("method") == "mapping":
        return _VARIANTS.get(str(entry.get("variant") or "ours"))
    return None


def escape(text: object) -> str:
    """Text that neither ends a table's cell nor starts Markdown or HTML of its own."""
    line = " ".join(str(text).split())
    return "".join(f"\\{c}" if c in "\\|*_`[]<>#~" else c for c in line)


def cell(row: Mapping[str, Any] | None, digits: int) -> str:
    """``value [low, high]``; a dash where there is none."""
    if row is None or row["value"] is None:
        return "–"
    text = f"{row['value']:.{digits}f}"
    if row["low"] is None or row["high"] is None:
        return text
    return f"{text} [{row['low']:.{digits}f}, {row['high']:.{digits}f}]"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose first column is text and the others are numbers."""
    marks = ["---"] + ["---:"] * (len(header) - 1)
    lines = [header, marks, *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _index(rows: Rows) -> dict[tuple[str, str], Mapping[str, Any]]:
    return {(row["model"], row["metric"]): row for row in rows}


def _competes(model: str) -> bool:
    return not model.startswith(CEILING) and model not in REFERENCES


def _best(rows: Rows, name: str) -> str | None:
    """The model that is best in a metric, if there are several to compare."""
    known = [
        row for row in rows if row["metric"] == name and row["value"] is not None and _competes(row["model"])
    ]
    higher = METRICS[name].higher_is_better
    if len(known) < 2 or higher is None:
        return None
    return (max if higher else min)(known, key=lambda row: row["value"])["model"]


def _cells(rows: Rows, model: str, names: Sequence[str]) -> list[str]:
    index = _index(rows)
    cells = []
    for name in names:
        text = cell(index.get((model, name)), METRICS[name].digits)
        cells.append(f"**{text}**" if _best(rows, name) == model else text)
    return cells


def _support(rows: Rows, model: str) -> list[str]:
    index = _index(rows)
    coverage = index.get((model, "coverage"))
    clips = max((row["clips"] for row in rows if row["model"] == model), default=0)
    return [str(clips), "–" if coverage is None else cell({**coverage, "low": None}, 3)]


def _title(name: str) -> str:
    metric = METRICS[name]
    return f"{metric.title}{metric.arrow}" + (f" ({metric.unit})" if metric.unit else "")


def table1(rows: Rows, models: Mapping[str, Mapping[str, Any]]) -> str:
    """P1's Table 1: what was measured here beside what the paper prints, and the inversion ceiling."""
    header = ["Method"]
    for name in TABLE1:
        header += [_title(name), "P1"]
    header += [_title("csim_inversion"), "clips", "coverage"]
    lines = []
    for model, entry in models.items():
        printed = published_row(entry)
        line = [escape(title(model, models)) + (f" ({printed})" if printed else "")]
        for i, text in enumerate(_cells(rows, model, TABLE1)):
            line += [text, f"{PUBLISHED[printed][i]:.3f}" if printed else "–"]
        lines.append(line + _cells(rows, model, ["csim_inversion"]) + _support(rows, model))
    for row in rows:
        if row["model"].startswith(CEILING):
            name = row["model"].removeprefix(CEILING)
            paper = "–" if "e4e" in name or FITTED in name else f"{PUBLISHED_CEILING:.2f}"
            ceiling = [f"*Inversion ceiling of {escape(name)}*", "–", "–", "–", "–"]
            lines.append([*ceiling, cell(row, METRICS["csim"].digits), paper, "–", str(row["clips"]), "–"])
    return table(header, lines)


def detail(rows: Rows, models: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> str:
    """A table of any metrics, as far as they were computed."""
    there = {row["metric"] for row in rows}
    names = [name for name in names if name in there]
    lines = [
        [escape(title(model, models)), *_cells(rows, model, names), *_support(rows, model)]
        for model in models
    ]
    return table(["Method", *map(_title, names), "clips", "coverage"], lines)


def difference_table(
    found: Sequence[Difference], models: Mapping[str, Mapping[str, Any]], baseline: str
) -> str:
    """Paired differences to the baseline."""
    lines = []
    for d in found:
        low, high = (None if number != number else number for number in d.interval[1:])
        text = cell({"value": d.interval.value, "low": low, "high": high}, METRICS[d.metric].digits)
        metric = _title(d.metric)
        lines.append([f"{escape(title(d.model, models))}, {metric}", text, d.verdict, str(d.pairs)])
    return table([f"Model − {escape(baseline)}", "difference", "verdict", "pairs"], lines)


MOTION = ("pose_mae", "yaw_corr", "pitch_corr", "fl_corr", "jitter", "csim", "csim_inversion")
PARTS = (*SIGNALS, "fl_interpolated", "fl_constant")

NOTE = """\
Values are means over videos. Brackets hold the {level:.0%} bootstrap interval over driving clips, "clips" is
their number, and "coverage" is the share of frames in which every needed detection succeeded. The columns
"P1" repeat Table 1 of Jahoda and Čech, *Pose and Facial Expression Transfer by using StyleGAN*: **a different
data set** (VoxCeleb2, 120 test identities), other networks behind the metrics, and full-size models. They
show the order of magnitude and the order of the methods; they are not to be met digit by digit. Measured
with: {networks}."""


OPTIMISED = (
    "{model}: each target's latent was fitted to its frame in {steps} steps of descent, which P1 does not "
    "do. LPIPS by AlexNet is a part of that loss, and may be flattered where it scores."
)
SCALED = "{model}: {what} is multiplied by {strength:g}, where P1 transfers all of it."
RELATIVE = (
    "{model}: {share:.0%} of what the driving face rests at gives way to the target's rest, where P1 "
    "transfers the expression as it is."
)
STRENGTHS = {"strength": "the motion", "expression_strength": "the expression"}
EXTERNAL = """\
Methods marked *external* are other people's systems; their videos were rendered outside of this workflow.
They have no inversion, so there is no "ID to the inversion". A pair without a usable video has no values;
its frames count as not covered."""
REFERENCED = """\
The last four rows are no methods. *The answer itself* shows what the networks say of a perfect result: the
floor of the errors that rest on a network. The answer lies where the driving person's face was cropped; *the
answer, in its own crop* is the floor of methods that place every face as FFHQ's alignment does. *The driving
frames, copied* and *the target, still* show what a useless method scores."""
AGREED = {
    "all": "Over the videos of all methods together:",
    "within": "Within methods, so that differences between them take no part:",
}
AGREEMENT = """\
Spearman's rank correlation of metrics that need no true answer (columns) with those that know it (rows), over
{videos} videos of {models} methods and {clips} driving clips; references take no part. 1 means that both
rank the videos alike from best to worst, 0 that one says nothing about the other."""
_MOST_LOST = 20


def lost_table(lost: Sequence[Lost], models: Mapping[str, Mapping[str, Any]]) -> str:
    """The pairs of which an external system has no video, or not all frames; the first of each system."""
    lines = []
    for model in dict.fromkeys(each.model for each in lost):
        own = [each for each in lost if each.model == model]
        name = escape(title(model, models))
        lines += [
            [name, escape(e.pair), e.status, str(e.frames), escape(e.detail) or "–"] for e in own[:_MOST_LOST]
        ]
        if rest := own[_MOST_LOST:]:
            frames = str(sum(e.frames for e in rest))
            lines.append([name, f"and {len(rest)} more pairs", "–", frames, "–"])
    return table(["Method", "pair", "status", "frames missing", "detail"], lines)


def note(rows: Rows, level: float) -> str:
    """What stands below the tables."""
    networks = sorted({part for row in rows for part in row["networks"].split(", ") if part})
    return NOTE.format(level=level, networks=escape(", ".join(networks)))


def agreement_tables(found: Sequence[Agreement]) -> list[str]:
    """How well metrics without the answer agree with those that know it; nothing where none was measured."""
    if not found:
        return []
    most = max(found, key=lambda each: each.videos)
    counts = {"videos": most.videos, "models": most.models, "clips": most.clips}
    parts = ["### Agreement with the truth", AGREEMENT.format(**counts)]
    index = {(each.proxy, each.truth, each.scope): each.interval for each in found}
    proxies, truths = ([n for n in names if any(n in e for e in found)] for names in (PROXIES, TRUE))
    for scope in SCOPES:
        lines = []
        for truth in truths:
            intervals = [index.get((proxy, truth, scope)) for proxy in proxies]
            lines.append([METRICS[truth].title, *map(_interval, intervals)])
        header = ["", *(_measured(name, found, most.videos) for name in proxies)]
        parts += [AGREED[scope], table(header, lines)]
    return parts


def _measured(proxy: str, found: Sequence[Agreement], videos: int) -> str:
    """A metric's title, and on how many it was measured where these are not all."""
    most = max((each for each in found if each.proxy == proxy), key=lambda each: each.videos)
    few = f" ({most.videos} videos, {most.clips} clips)" if most.videos < videos else ""
    return METRICS[proxy].title + few


def _interval(interval: Interval | None) -> str:
    if interval is None:
        return "–"
    known = {name: None if x != x else x for name, x in interval._asdict().items()}
    return cell(known, 2)


def benchmark_section(
    name: str,
    protocol: str,
    rows: Rows,
    models: Mapping[str, Mapping[str, Any]],
    found: Sequence[Difference],
    baseline: str,
    lost: Sequence[Lost] = (),
    agreed: Sequence[Agreement] = (),
) -> str:
    """All tables of one benchmark."""
    parts = [f"## {_KINDS[protocol]}: {escape(name)}"]
    match protocol:
        case "cross":
            parts += ["### Table 1 of P1", table1(rows, models)]
        case "self":
            parts += ["### Against the driving frames", detail(rows, models, IMAGE)]
        case "truth":
            parts += ["### Against the true answers", detail(rows, models, TRUTH), REFERENCED]
            parts += agreement_tables(agreed)
    parts += ["### Motion and identity", detail(rows, models, MOTION)]
    parts += ["### Landmark signals", detail(rows, models, PARTS)]
    if found:
        parts += [f"### Paired differences to {escape(baseline)}", difference_table(found, models, baseline)]
    parts += [
        OPTIMISED.format(model=escape(model), steps=entry["optimise"])
        for model, entry in models.items()
        if entry.get("optimise")
    ]
    parts += [
        SCALED.format(model=escape(model), what=what, strength=entry[key])
        for model, entry in models.items()
        for key, what in STRENGTHS.items()
        if entry.get(key, 1) != 1
    ]
    parts += [
        RELATIVE.format(model=escape(model), share=entry["relative_expression"])
        for model, entry in models.items()
        if entry.get("relative_expression")
    ]
    if any("external" in entry for entry in models.values()):
        parts += [EXTERNAL]
    if lost:
        parts += ["### Missing videos and frames of external systems", lost_table(lost, models)]
    return "\n\n".join(parts)
