"""``remime score``: measure any system's video against its driving video and its target."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remime.cli import inputs, networks
from remime.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from remime.faces.stream import Faces, Moment
    from remime.metrics.networks import Networks
    from remime.metrics.scorer import Scores

    Image = NDArray[np.uint8]


def command(
    driving: inputs.Driving,
    generated: Annotated[Path, typer.Option(metavar="VIDEO", help="The video to score, of whatever system.")],
    target: inputs.Target,
    output: Annotated[
        Path, typer.Option(metavar="OUT.parquet", help="The table: values per frame and for the clip.")
    ],
    json_output: Annotated[
        str | None, typer.Option("--json", metavar="FILE|-", help="The clip's values as JSON; - is stdout.")
    ] = None,
    aligned: Annotated[
        bool,
        typer.Option("--aligned", help="All inputs are FFHQ crops already (what remime made always is)."),
    ] = False,
    same_person: Annotated[
        bool, typer.Option("--self", help="The target is the driving person: image metrics as well.")
    ] = False,
    device: inputs.Device = "auto",
    licence: inputs.Licence = "any",
) -> None:
    """Score a generated video: pose, expression and identity, per frame and for the whole clip.

    Frame i is compared with frame i where both videos have the same number of frames, otherwise by time.
    Frames without a face count against the coverage.
    """
    run(Request(driving, generated, target, output, json_output, aligned, same_person, device, licence))


@dataclass(frozen=True)
class Request:
    """What ``remime score`` was asked for; see the options of ``command``."""

    driving: Path
    generated: Path
    target: str
    output: Path
    json: str | None = None
    aligned: bool = False
    same_person: bool = False
    device: str = "auto"
    licence: str = "any"


@dataclass
class Matched:
    """Two videos side by side; frames are read from ``left`` first, then as many from ``right``.

    Frames are matched by their position when both have the same number of them, so that a wrong frame rate
    does no harm; otherwise the generated frame that is nearest in time counts.

    Args:
        driving: its frames.
        generated: its frames.
        by_position: how.
        period: seconds from one generated frame to the next; how long the last one is valid.
    """

    driving: Iterator[Moment]
    generated: Iterator[Moment]
    by_position: bool
    period: float
    times: deque[float] = field(default_factory=deque)

    def left(self) -> Iterator[Image | None]:
        """The driving frames."""
        for moment in self.driving:
            self.times.append(moment.time)
            yield moment.image

    def right(self) -> Iterator[Image | None]:
        """A generated frame for each driving frame that was read; fewer when the video ends before."""
        from remime.faces.stream import nearest

        if self.by_position:
            yield from (moment.image for moment in self.generated)
            return
        yield from nearest(self.generated, self._asked(), self.period)

    def _asked(self) -> Iterator[float]:
        while self.times:
            yield self.times.popleft()


def check(request: Request) -> None:
    """Find what is wrong with a request without computing anything.

    Raises:
        InputError: the first thing that is.
    """
    from remime import video

    files = [request.driving, request.generated]
    if inputs.random_seed(request.target) is None:
        files.append(Path(request.target))
    for file in files:
        video.probe(file)
    inputs.check_output(request.output, ".parquet", files)
    if request.json not in (None, "-"):
        inputs.check_output(Path(str(request.json)), ".json", [*files, request.output])
    if video.provenance(request.generated).get("layout") == "side-by-side":
        raise InputError(
            request.generated, "shows several faces side by side", "score a video made without --side-by-side"
        )


def run(request: Request) -> dict[str, Any]:
    """Score and write the table; returns what ``--json`` shows.

    Raises:
        InputError: something in the request cannot be used.
        WeightsError: a network is missing and cannot be fetched.
    """
    from remime.runtime import keep_opencv_to_one_thread
    from remime.tables import write_table

    check(request)
    keep_opencv_to_one_thread()
    device = inputs.device_of(request.device)
    needed = [name for name in networks.SCORE if name != networks.LPIPS or request.same_person]
    generator = ["mobile-ffhq"] if inputs.random_seed(request.target) is not None else []
    networks.ensure_all([*needed, *generator], request.licence)
    target = _target(request)
    scores = _measure(request, target, _networks(request, device))
    common = {"model": request.generated.stem, "benchmark": "cli", "pair": request.driving.stem}
    write_table(request.output, "scores", [{**row, **common} for row in scores.rows], target=request.target)
    summary = _summary(request, scores)
    _show(request, summary)
    return summary


def _metrics(request: Request) -> tuple[str, ...]:
    from remime.metrics.scorer import CROSS, SELF

    return SELF if request.same_person else CROSS


def _networks(request: Request, device: str) -> Networks:
    from remime.metrics.networks import load_networks

    return load_networks(_metrics(request), pose=networks.POSE, identity=networks.IDENTITY, device=device)


def _target(request: Request) -> Image:
    from remime.faces.stream import SIZE, first_face

    seed = inputs.random_seed(request.target)
    if seed is None:
        return first_face(Path(request.target), request.aligned)
    from remime.generators import load_generator
    from remime.reenactment import random_face

    return random_face(load_generator(), seed, SIZE)


def _is_aligned(path: Path) -> bool:
    """Whether remime made a video, whose frames are aligned then."""
    from remime import video

    return "remime" in str(video.provenance(path).get("made_by", ""))


def _measure(request: Request, target: Image, tools: Networks) -> Scores:
    from remime.faces.stream import Faces
    from remime.metrics.scorer import score_videos
    from remime.progress import Progress

    with (
        closing(Faces(request.driving, request.aligned or _is_aligned(request.driving))) as driving,
        closing(Faces(request.generated, request.aligned or _is_aligned(request.generated))) as generated,
        Progress(driving.info.expected, "score", "frames") as progress,
    ):
        counts = driving.info.frames, generated.info.frames
        pair = Matched(
            _counted(driving, progress),
            generated,
            None not in counts and counts[0] == counts[1],
            1 / generated.info.fps,
        )
        scores = score_videos(pair.left(), pair.right(), target, networks=tools, metrics=_metrics(request))
        for faces in (driving, generated):
            if not faces.found:
                raise faces.no_face()
    return scores


def _counted(faces: Faces, progress: Any) -> Iterator[Moment]:
    for moment in faces:
        yield moment
        progress.update()


def _summary(request: Request, scores: Scores) -> dict[str, Any]:
    from remime.metrics import METRICS

    values = {
        row["metric"]: {
            "value": row["value"],
            "unit": METRICS[row["metric"]].unit,
            "better": {True: "high", False: "low", None: ""}[METRICS[row["metric"]].higher_is_better],
            "n": row["n"],
            "version": row["version"],
            "networks": row["networks"],
        }
        for row in scores.rows
        if row["frame"] is None
    }
    return {
        "driving": str(request.driving),
        "generated": str(request.generated),
        "target": request.target,
        "frames": len(scores.driving.landmarks),
        "missing": scores.missing,
        "metrics": values,
    }


def _show(request: Request, summary: dict[str, Any]) -> None:
    text = json.dumps(summary, indent=1, ensure_ascii=False)
    if request.json == "-":
        typer.echo(text)
        return
    if request.json is not None:
        from remime.files import write_text

        write_text(Path(request.json), text + "\n")
    for name, found in summary["metrics"].items():
        typer.echo(_line(name, found))
    typer.echo(f"{request.output}: {summary['frames']} frames, {summary['missing']} missing")


def _line(name: str, found: dict[str, Any]) -> str:
    from remime.metrics import METRICS

    metric = METRICS[name]
    value = "–" if found["value"] is None else f"{found['value']:.{metric.digits}f}"
    return f"{name:<18}{value:>8} {metric.unit:<8}{metric.arrow:<2}n = {found['n']}"
