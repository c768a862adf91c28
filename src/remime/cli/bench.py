"""``remime bench``: what ``remime reenact`` costs beside the generator's own time, and what stages take."""

from __future__ import annotations

import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from remime.cli import inputs
from remime.cli.parts import Part, measure_parts
from remime.cli.reenact import RESOLUTIONS, Request, run
from remime.cli.speeds import Speed, speeds_of
from remime.errors import InputError

if TYPE_CHECKING:
    from remime.generators.base import Generator

T = TypeVar("T")

FACES = 4  # by which the error of another precision is told
ROUNDS = 3  # measurements of the generator alone, before, between and after those of the whole


def command(
    driving: Annotated[
        Path | None, typer.Option(metavar="VIDEO", help="Whose motion: a video or an image.")
    ] = None,
    target: inputs.Target = "random:1",
    resolution: Annotated[
        list[str] | None,
        typer.Option(metavar="256|512|1024", help="Height and width of the output; may be repeated [256]."),
    ] = None,
    images: Annotated[
        int, typer.Option(min=1, metavar="N", help="Images per measurement of the generator alone.")
    ] = 20,
    device: inputs.Device = "auto",
    precision: inputs.Precision = "float32",
    compile: inputs.Compile = False,
    parts: Annotated[
        bool, typer.Option("--parts", help="What each part needs, instead of the whole.")
    ] = False,
    stages: Annotated[
        Path | None,
        typer.Option(metavar="RESULTS", help="Instead, what the jobs of a finished workflow took."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a Markdown table.")] = False,
) -> None:
    """Compare `remime reenact` with the time that its generator needs for as many images.

    Both are measured in turn in one process, with the same threads; what comes before the first frame
    (loading, fitting the target, how the driving face rests) has a column of its own, and the rate is given
    with the look at the rest, too. The generator alone
    is that of plain float32, whatever `--precision` and `--compile` make of the whole; then two more columns
    tell how far its frames, in grey levels of 255, are from the plain ones. With `--parts`, each part on its
    own: reading and aligning, every network, the conversion and encoding of the result, and
    inversion beside the loop that goes image by image through full decodes. With `--stages`, nothing is
    measured: the logs and benchmark files of a workflow are summed up.
    """
    if (driving is None) == (stages is None):
        raise InputError("--driving", "or --stages is needed, one of them", "name a video, or results")
    if stages is not None:
        _print_speeds(speeds_of(stages), as_json)
        return
    assert driving is not None
    chosen = resolution or ["256"]
    for value in chosen:
        inputs.one_of("--resolution", value, RESOLUTIONS)
    inputs.one_of("--precision", precision, inputs.PRECISIONS)
    where = inputs.device_of(device)
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "out.mp4"
        request = Request(driving, target, output, device=device, precision=precision, compile=compile)
        if parts:
            _print_parts(measure_parts(request, where, [int(v) for v in chosen], images), where, as_json)
            return
        rows = [measure(replace(request, resolution=int(value)), where, images) for value in chosen]
    if as_json:
        typer.echo(json.dumps({"machine": _machine(where), "rows": rows}, indent=1))
        return
    typer.echo(f"{_machine(where)}\n")
    plain = _is_plain(request)
    head = ["resolution", "generator alone, frames/s", "reenact, frames/s", "overhead"]
    head += ["with the driving face's rest", "before, s"]
    head += [] if plain else ["mean error", "largest"]
    typer.echo(f"| {' | '.join(head)} |")
    typer.echo("|---" * len(head) + "|")
    for row in rows:
        cells = [f"{row['resolution']}²", f"{row['generator']:.2f}", f"{row['reenact']:.2f}"]
        cells += [f"{row['overhead']:+.0%}", f"{row['with_rest']:.2f}", f"{row['before']:.1f}"]
        cells += [] if plain else [f"{row['error_mean']:.2f}", f"{row['error_max']:.1f}"]
        typer.echo(f"| {' | '.join(cells)} |")


def measure(request: Request, device: str, images: int) -> dict[str, Any]:
    """Frames per second of the generator alone and of the whole, by how much the whole takes longer.

    Loading, fitting the target and looking at how the driving face rests come before the whole's first
    frame; they count by themselves, in seconds. What of the look the fit has not covered counts once more,
    as a part of a second rate.

    Args:
        request: what to make; its output is overwritten.
        device: where the networks run.
        images: decoded per measurement of the generator alone.
    """
    import torch

    from remime.generators import load_generator
    from remime.reenactment import Decoder
    from remime.runtime import keep_freed_memory

    keep_freed_memory()
    generator = load_generator().to(device)
    # In batches as the whole decodes, or the whole could be faster than its part.
    decoder = Decoder(generator, request.resolution, request.batch)
    w_plus = generator.broadcast(generator.mean_latent.expand(images, -1))
    synthesize = partial(generator.synthesize, resolution=decoder.decode_at)

    def alone() -> None:
        with torch.inference_mode():
            for _ in decoder.in_batches(synthesize, w_plus):
                pass
        if generator.mean_latent.is_cuda:
            torch.cuda.synchronize()

    alone()
    raw, whole, seen, before = [], [], [], []
    for _ in range(ROUNDS):
        raw.append(_timed(alone)[1] / images)
        made, total = _timed(lambda: run(request))
        # Frames without a face repeat another one and cost the generator nothing.
        frames = made.frames - made.faceless
        whole.append(made.seconds / frames)
        seen.append((made.seconds + made.resting) / frames)
        before.append(total - made.seconds)
    raw.append(_timed(alone)[1] / images)
    one, all_ = statistics.median(raw), statistics.median(whole)
    mean, largest = (0.0, 0.0) if _is_plain(request) else errors(generator, request)
    return {
        "resolution": request.resolution,
        "generator": 1 / one,
        "reenact": 1 / all_,
        "overhead": all_ / one - 1,
        "with_rest": 1 / statistics.median(seen),
        "before": statistics.median(before),
        "error_mean": mean,
        "error_max": largest,
    }


def _is_plain(request: Request) -> bool:
    """Whether its frames are decoded in float32, not compiled."""
    return request.precision == "float32" and not request.compile


def errors(generator: Generator, request: Request) -> tuple[float, float]:
    """How far frames decoded as a request asks are from those of plain float32, mean and largest.

    Args:
        generator: in float32.
        request: its precision, compilation and resolution count.

    Returns:
        In grey levels of 255, over the pixels of ``FACES`` random faces.
    """
    import torch

    from remime.reenactment import RANDOM_TRUNCATION, Decoder

    z = torch.randn(FACES, 512, generator=torch.Generator().manual_seed(0)).to(generator.mean_latent)
    with torch.inference_mode():
        w_plus = generator.broadcast(generator.truncate(generator.mapping(z), RANDOM_TRUNCATION))
    plain = Decoder(generator, request.resolution)
    asked = Decoder(generator, request.resolution, precision=request.precision, compile=request.compile)
    total, largest = 0.0, 0.0
    for latent in w_plus.split(1):
        shown = [decoder.synthesize(latent).clamp(-1, 1) * 127.5 for decoder in (plain, asked)]
        error = (shown[1] - shown[0]).abs()
        total += float(error.mean())
        largest = max(largest, float(error.max()))
    return total / FACES, largest


def _print_parts(parts: list[Part], device: str, as_json: bool) -> None:
    if as_json:
        rows = [{"part": part.name, "per": part.unit, "seconds": part.seconds} for part in parts]
        typer.echo(json.dumps({"machine": _machine(device), "parts": rows}, indent=1))
        return
    typer.echo(f"{_machine(device)}\n")
    typer.echo("| part | ms | per second |")
    typer.echo("|---|---|---|")
    for part in parts:
        typer.echo(f"| {part.name} | {1000 * part.seconds:.1f} | {1 / part.seconds:.1f} {part.unit}s |")


def _print_speeds(found: list[Speed], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"stages": [asdict(speed) for speed in found]}, indent=1))
        return
    typer.echo("| stage | of | jobs | done | per second of one job | peak memory |")
    typer.echo("|---|---|---|---|---|---|")
    for one in found:
        memory = f"{one.memory / 1000:.1f} GB" if one.memory is not None else ""
        rate = f"{one.rate:.{1 if one.rate < 20 else 0}f}" if one.rate >= 0.1 else f"{one.rate:.2f}"
        done = f"{one.count:,} {one.unit}"
        typer.echo(f"| {one.stage} | {one.what} | {one.jobs} | {done} | {rate} | {memory} |")


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    """What came out, and the seconds that it took."""
    start = time.perf_counter()
    return work(), time.perf_counter() - start


def _machine(device: str) -> str:
    import torch

    name = torch.cuda.get_device_name() if device.startswith("cuda") else platform.machine()
    return f"{device} ({name}), {torch.get_num_threads()} threads, PyTorch {torch.__version__}"
