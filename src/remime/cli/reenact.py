"""``remime reenact``: the target's face with the driving video's motion."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from remime.cli import inputs, networks
from remime.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from remime.encoders.restyle import Inverter
    from remime.faces.stream import Faces, Moment
    from remime.generators.base import Generator
    from remime.methods import Driving, Identity
    from remime.progress import Progress
    from remime.reenactment import Reenactor
    from remime.video import Writer

    Image = NDArray[np.uint8]

RESOLUTIONS = ("256", "512", "1024")
OPTIMISE = 60
_SPACED = 250  # frames between two reports of the progress; the first so many are seen during the fit
EXPRESSION_STRENGTH, RELATIVE_EXPRESSION = 0.85, 0.8  # of small mappings, as in config.yaml


def command(
    driving: inputs.Driving,
    target: inputs.Target,
    output: Annotated[Path, typer.Option(metavar="OUT.mp4", help="The video to write.")],
    method: Annotated[
        str | None, typer.Option(metavar="mapping|linear", help="How; by default the model's, else mapping.")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The method's weights [default: shipped].")
    ] = None,
    inverter: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The inverter's weights [default: shipped].")
    ] = None,
    resolution: Annotated[
        str, typer.Option(metavar="256|512|1024", help="Height and width of the output.")
    ] = "256",
    optimise: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="Steps that fit the target's latent to its image (not for linear).",
        ),
    ] = OPTIMISE,
    strength: Annotated[
        float,
        typer.Option(
            min=0,
            metavar="X",
            help="What the motion is multiplied by; less keeps more of the person, 0 stands still.",
        ),
    ] = 1.0,
    expression_strength: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="X",
            help="What of that all but turns of the head and blinks is multiplied by (small mappings only) "
            f"[default: {EXPRESSION_STRENGTH} for these].",
        ),
    ] = None,
    relative_expression: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            metavar="X",
            help="How much of what the driving face rests at gives way to the target's rest (small mappings "
            "only): 0 transfers the expression as it is, 1 only how it departs from rest "
            f"[default: {RELATIVE_EXPRESSION} for these].",
        ),
    ] = None,
    side_by_side: Annotated[
        bool, typer.Option("--side-by-side", help="Show target, driving face and result next to each other.")
    ] = False,
    device: inputs.Device = "auto",
    batch: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Frames that pass through the networks at once; decoded in fewer where a GPU's memory "
            "is too small.",
        ),
    ] = 16,
    precision: inputs.Precision = "float32",
    compile: inputs.Compile = False,
    licence: inputs.Licence = "any",
) -> None:
    """Make a video of the target's face with the driving video's motion.

    Neither has to be aligned; the largest face counts. Sound and frame rate are those of the driving video.
    Frames in which no face is found repeat the last good one.
    """
    inputs.one_of("--resolution", resolution, RESOLUTIONS)
    inputs.one_of("--precision", precision, inputs.PRECISIONS)
    run(
        Request(
            driving,
            target,
            output,
            method,
            model,
            inverter,
            int(resolution),
            optimise,
            strength,
            expression_strength,
            relative_expression,
            side_by_side,
            device,
            batch,
            licence,
            precision,
            compile,
        )
    )


@dataclass(frozen=True)
class Request:
    """What ``remime reenact`` was asked for; see the options of ``command``."""

    driving: Path
    target: str
    output: Path
    method: str | None = None
    model: Path | None = None
    inverter: Path | None = None
    resolution: int = 256
    optimise: int = OPTIMISE
    strength: float = 1.0
    expression_strength: float | None = None
    relative_expression: float | None = None
    side_by_side: bool = False
    device: str = "auto"
    batch: int = 16
    licence: str = "any"
    precision: str = "float32"
    compile: bool = False

    @property
    def pixel_format(self) -> str:
        """Of the frames between the generator and the encoder; panels are drawn in RGB."""
        return "rgb24" if self.side_by_side else "yuv420p"

    @property
    def target_name(self) -> str:
        """What the provenance calls the target; folders are nobody else's business."""
        return self.target if inputs.random_seed(self.target) is not None else Path(self.target).name


@dataclass(frozen=True)
class Made:
    """What came out.

    Attributes:
        frames: of the output.
        faceless: driving frames without a face, which repeat their neighbour.
        seconds: that the stream of frames took, without what comes before it.
        resting: seconds before that in which nothing was done but to look at how the driving face rests.
    """

    frames: int
    faceless: int
    seconds: float
    resting: float = 0.0


@dataclass(frozen=True)
class _Files:
    """The model files, their descriptions, how many steps fit a target's latent, and how far it follows."""

    method: str
    model: Path | None
    model_meta: dict[str, Any] | None
    inverter: Path
    inverter_meta: dict[str, Any]
    optimise: int
    strength: float
    expression_strength: float
    relative_expression: float

    @property
    def options(self) -> dict[str, Any]:
        """Which method moves whom, and how far."""
        return {
            "method": self.method,
            "generator": self.inverter_meta["generator"],
            "optimise": self.optimise,
            "strength": self.strength,
            "expression_strength": self.expression_strength,
            "relative_expression": self.relative_expression,
        }

    @property
    def networks(self) -> list[str]:
        """Pretrained networks that these need."""
        described = [meta for meta in (self.inverter_meta, self.model_meta) if meta is not None]
        losses = [networks.FIT_IDENTITY, networks.LPIPS] if self.optimise else []
        return [*networks.of_models(*described), *losses]


def _files(request: Request) -> _Files:
    from remime.methods import METHODS
    from remime.models import read_meta, shipped

    if request.method is not None:
        inputs.one_of("--method", request.method, METHODS)
    model = request.model
    if model is None and (name := networks.MODELS[request.method or "mapping"]):
        model = shipped(name)
    model_meta = read_meta(model) if model is not None else None
    if model_meta is not None and model_meta["kind"] != "method":
        raise InputError(model, f"holds a model of kind {model_meta['kind']!r}", "--model takes a method's")
    method = request.method or (model_meta["method"] if model_meta else "mapping")
    if model_meta is not None and model_meta["method"] != method:
        fix = f"leave off --method, or --model (the method {method!r} needs none)"
        raise InputError(model, f"is a model of the method {model_meta['method']!r}, not {method!r}", fix)
    inverter = request.inverter or shipped(networks.INVERTER)
    inverter_meta = read_meta(inverter)
    if inverter_meta["kind"] != "inverter":
        raise InputError(
            inverter, f"holds a model of kind {inverter_meta['kind']!r}", "--inverter takes an inverter's"
        )
    if model_meta is not None and model_meta["generator"] != inverter_meta["generator"]:
        raise InputError(
            model,
            f"was trained with the generator {model_meta['generator']!r}, the inverter with "
            f"{inverter_meta['generator']!r}",
            "name an --inverter of the same generator",
        )
    # Methods without a model of their own, as the linear one, want the latents as they come.
    optimise = request.optimise if model is not None else 0
    apart = _apart(request, model, model_meta, method)
    return _Files(method, model, model_meta, inverter, inverter_meta, optimise, request.strength, *apart)


def _apart(
    request: Request, model: Path | None, model_meta: dict[str, Any] | None, method: str
) -> tuple[float, float]:
    """Strength and relativity of expressions, which can be told from turns in some models only.

    Raises:
        InputError: they were asked for where they cannot be told.
    """
    from remime.catalogue import EMBEDDED
    from remime.layout import APART

    kind = {"method": "mapping", "preset": "small", "generator": EMBEDDED}
    divisible = (
        model_meta is not None
        and kind.items() <= model_meta.items()
        and not model_meta["options"].get("correction")
    )
    asked = {
        "expression_strength": (request.expression_strength, EXPRESSION_STRENGTH),
        "relative_expression": (request.relative_expression, RELATIVE_EXPRESSION),
    }
    chosen = []
    for key, (value, usual) in asked.items():
        option = f"--{key.replace('_', '-')}"
        if value is not None and model is None:
            raise InputError(option, f"is {value:g}, but the method {method!r} has no such", "leave it off")
        if value not in (None, APART[key]) and not divisible:
            raise InputError(
                option,
                f"is {value:g}, but turns and expressions of {model} cannot be told apart",
                f"leave it off; small mappings of {EMBEDDED} without a correction can",
            )
        fallback = usual if divisible else float(APART[key])
        chosen.append(fallback if value is None else value)
    return chosen[0], chosen[1]


class Engine:
    """All networks, loaded.

    Attributes:
        generator: the original one.
        inverter: of targets.
        method: moves them.
        reenactor: makes frames with the method's generator.
    """

    def __init__(self, request: Request, files: _Files, device: str) -> None:
        from remime.encoders.inverter import load_inverter
        from remime.generators import load_generator
        from remime.methods import load_method
        from remime.reenactment import Reenactor

        name = files.inverter_meta["generator"]
        # The variant `gen` brings its own generator; inversions are always decoded by the original.
        self.generator: Generator = load_generator(name).to(device)
        self.inverter: Inverter = load_inverter(files.inverter, self.generator, device)
        own = load_generator(name).to(device) if files.model is not None else self.generator
        self.method = load_method(files.options, files.model, own, device)
        self.reenactor: Reenactor = Reenactor(
            own,
            self.method,
            request.resolution,
            request.batch,
            request.pixel_format,
            request.precision,
            request.compile,
        )


def load_engine(request: Request, device: str) -> Engine:
    """The networks that a request needs, fetched where they are missing.

    Raises:
        InputError: a model cannot be used.
        WeightsError: a network is missing and cannot be fetched.
    """
    return _engine(request, _files(request), device)


def _engine(request: Request, files: _Files, device: str) -> Engine:
    networks.ensure_all(files.networks, request.licence)
    return Engine(request, files, device)


def check(request: Request) -> None:
    """Find what is wrong with a request without computing anything.

    Raises:
        InputError: the first thing that is.
    """
    from remime import video

    seed = inputs.random_seed(request.target)
    files = [request.driving] + ([Path(request.target)] if seed is None else [])
    for file in files:
        video.probe(file)
    inputs.check_output(request.output, ".mp4", files)


def run(request: Request) -> Made:
    """Make the video; says on stderr how far it is and what came out.

    Raises:
        InputError: something in the request cannot be used.
        WeightsError: a network is missing and cannot be fetched.
    """
    check(request)
    from remime.cli.ahead import Ahead
    from remime.faces.stream import first_face
    from remime.runtime import keep_freed_memory, keep_opencv_to_one_thread

    keep_freed_memory()
    keep_opencv_to_one_thread()
    files = _files(request)
    device = inputs.device_of(request.device)
    # Faces come first: whether there are any is known long before the networks are loaded.
    networks.ensure_all([networks.FACES], request.licence)
    face = first_face(Path(request.target)) if inputs.random_seed(request.target) is None else None
    first_face(request.driving)
    with ExitStack() as stack:
        ahead = stack.enter_context(Ahead(_moments, request.driving, size=request.batch))
        engine = _engine(request, files, device)
        if face is None:
            face = _random_face(request, engine)
        latents, driving, mean, rests = None, None, None, None
        if engine.method.needs_latents:
            folder = request.output.absolute().parent
            folder.mkdir(parents=True, exist_ok=True)
            spool = stack.enter_context(TemporaryFile(dir=folder))
            latents, driving = _whole_driving(request, engine, spool)
            mean = _target_mean(request, engine, face)
        elif engine.method.needs_rest:
            from remime.faces.spaced import spaced_faces
            from remime.reenactment import REST_FRAMES

            # The process of the faces has nothing to do while the target is fitted.
            rests = Ahead(spaced_faces, request.driving, REST_FRAMES, size=_SPACED, beside=ahead)
            stack.enter_context(rests)
        identity = _identity(files, engine, face, mean)
        start = time.perf_counter()
        if rests is not None:
            driving = _resting(request, engine, rests)
        resting = time.perf_counter() - start
        made = _Film(request, files, engine, face).make(ahead, ahead.settle, identity, latents, driving)
        made = replace(made, resting=resting)
    _report(request, made)
    return made


def _random_face(request: Request, engine: Engine) -> Image:
    from remime.reenactment import random_face

    seed = inputs.random_seed(request.target)
    assert seed is not None
    return random_face(engine.generator, seed, engine.inverter.size)


def _identity(files: _Files, engine: Engine, face: Image, mean: Tensor | None) -> Identity:
    from remime.reenactment import invert

    if mean is not None:
        return engine.reenactor.identify(mean)
    latent = invert(engine.inverter, face[None])[0]
    return engine.reenactor.identify(_optimised(files.optimise, engine, face, latent))


def _optimised(steps: int, engine: Engine, face: Image, latent: Tensor) -> Tensor:
    """The target's latent [rows, 512] fitted to its image, from the inverter's."""
    if not steps:
        return latent
    from remime.images import to_tensor
    from remime.optimisation import load_optimiser
    from remime.progress import Progress

    with Progress(steps, "fit target", "steps") as progress:
        optimiser = load_optimiser(engine.generator, steps, networks.FIT_IDENTITY, latent.device)
        return optimiser(to_tensor(face).to(latent), latent, progress.update)


def _whole_driving(request: Request, engine: Engine, spool: IO[bytes]) -> tuple[Iterator[Tensor], Driving]:
    """The first pass over the driving video: its latents, kept in a nameless file, and their mean."""
    from remime.cli.whole import spooled
    from remime.methods import Driving

    mean = _clip_mean(request.driving, request, engine, "driving", spool)
    return spooled(spool, engine.inverter.generator.rows), Driving(mean)


def _resting(request: Request, engine: Engine, rests: Iterable[Sequence[Image | None]]) -> Driving:
    """How the driving face rests, by faces from all over the video."""
    from remime import video
    from remime.progress import Progress

    faces: list[Image] = []
    with Progress(video.probe(request.driving).expected, "see driving at rest", "frames") as progress:
        for batch in rests:
            found = [item for item in batch if item is not None]
            faces += found
            progress.update(len(batch) - len(found))
    return engine.reenactor.at_rest(faces)


def _target_mean(request: Request, engine: Engine, face: Image) -> Tensor:
    from remime.cli.whole import clip_mean

    if inputs.random_seed(request.target) is not None:
        return clip_mean(engine.inverter, [face], request.batch)
    return _clip_mean(Path(request.target), request, engine, "target")


def _clip_mean(
    path: Path, request: Request, engine: Engine, role: str, spool: IO[bytes] | None = None
) -> Tensor:
    from remime.cli.whole import clip_mean
    from remime.faces.stream import Faces
    from remime.progress import Progress

    with (
        closing(Faces(path)) as faces,
        Progress(faces.info.expected, f"invert {role}", "frames") as progress,
    ):
        images = (moment.image for moment in faces if moment.image is not None)

        def update() -> None:
            progress.update(faces.found + faces.missing - progress.count)

        mean = clip_mean(engine.inverter, images, request.batch, spool, update)
        update()
    return mean


def _moments(path: Path) -> Faces:
    """What the process of the faces goes through."""
    from remime.faces.stream import Faces
    from remime.runtime import keep_freed_memory, keep_opencv_to_one_thread

    keep_freed_memory()
    keep_opencv_to_one_thread()
    return Faces(path)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let PyTorch use the thread that calls it, and no other."""
    import torch

    count = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(count)


class _Film:
    """Writes the result while the stream of driving frames goes on.

    Threads that share one image wait for each other: a millisecond that one of two gives to somebody else
    costs both. So where the generator takes all cores nothing else happens beside it: the next faces are
    found, the last frames encoded and the next motion encoded between two batches, at once.
    """

    def __init__(self, request: Request, files: _Files, engine: Engine, face: Image) -> None:
        self.request, self.files, self.engine, self.face = request, files, engine, face

    def make(
        self,
        moments: Iterable[Sequence[Moment]],
        settle: Callable[[], None],
        identity: Identity,
        latents: Iterator[Tensor] | None,
        driving: Driving | None,
    ) -> Made:
        """Write the video.

        Args:
            moments: the driving video in batches.
            settle: waits until nobody works at the next batch.
            identity: the target.
            latents: of the driving frames with a face, if the method needs them.
            driving: what is known of the whole clip.
        """
        from remime import video
        from remime.cli.ahead import Behind
        from remime.progress import Progress
        from remime.video import NO_CUTS, Writer

        path, start, spare = self.request.driving, time.perf_counter(), self._spare_core()
        info = video.probe(path)
        made: list[tuple[Moment, Image]] = []
        read, faceless, end = 0, 0, 0.0
        with (
            Progress(info.expected, "reenact", "frames") as progress,
            Writer(
                self.request.output,
                info.fps,
                self._size(),
                audio_from=path if info.has_audio else None,
                metadata=self._note(),
                pixel_format=self.request.pixel_format,
                threads=None if spare else 1,
                x264=NO_CUTS,
            ) as writer,
            Behind() as behind,
        ):
            for batch in moments:
                behind.begin(partial(self._write, writer, made, progress))
                seen = [moment for moment in batch if moment.image is not None]
                read, faceless, end = read + len(batch), faceless + len(batch) - len(seen), batch[-1].time
                made = []
                if not seen:
                    continue
                with nullcontext() if spare else _one_thread():
                    w_plus = self._drive(seen, identity, latents, driving)
                if not spare:
                    settle()
                    behind.wait()
                made = list(zip(seen, self.engine.reenactor.decode(w_plus), strict=True))
            behind.wait()
            self._write(writer, made, progress)
            if not writer.count:
                raise InputError(
                    path, "no face was found when it was read again", "do not change it meanwhile"
                )
            # What comes after the last face shows the last good frame.
            writer.write(self._last, end)
            progress.update(read - progress.count)
        return Made(writer.count, faceless, time.perf_counter() - start)

    def _drive(
        self,
        moments: Sequence[Moment],
        identity: Identity,
        latents: Iterator[Tensor] | None,
        driving: Driving | None,
    ) -> Tensor:
        """The latents [n, rows, 512] of the target with the motion of a batch."""
        images = [moment.image for moment in moments if moment.image is not None]
        return self.engine.reenactor.drive(identity, images, latents, driving)

    def _spare_core(self) -> bool:
        """Whether anything can be done beside the networks without taking a core from them."""
        import torch

        from remime.runtime import cores

        return self.engine.reenactor.device.type == "cuda" or cores() > torch.get_num_threads()

    def _write(self, writer: Writer, made: list[tuple[Moment, Image]], progress: Progress) -> None:
        for moment, result in made:
            picture = self._panels(moment, result) if self.request.side_by_side else result
            if not writer.count:
                # What comes before the first face shows the first good frame.
                writer.write(picture, 0.0)
            writer.write(picture, moment.time)
            self._last = picture
            progress.update(moment.index + 1 - progress.count)

    def _size(self) -> tuple[int, int]:
        side = self.request.resolution
        if not self.request.side_by_side:
            return side, side
        from remime.reporting.pictures import LABEL

        return 3 * side, side + LABEL

    def _panels(self, moment: Moment, result: Image) -> Image:
        from remime.reporting.pictures import sheet, tile

        side = self.request.resolution
        pictures = (("target", self.face), ("driving", moment.image), ("result", result))
        return sheet([tile(image, side, text) for text, image in pictures], len(pictures))

    def _note(self) -> dict[str, Any]:
        from remime.provenance import digests, provenance

        files = self.files
        options = files.options
        return {
            **provenance(options, digests(options, files.inverter, files.model)),
            "precision": self.request.precision,
            "model": files.model.stem if files.model is not None else files.method,
            "inverter": files.inverter.stem,
            "driving": self.request.driving.name,
            "target": self.request.target_name,
            "layout": "side-by-side" if self.request.side_by_side else "aligned",
        }


def _report(request: Request, made: Made) -> None:
    frames = "1 frame" if made.frames == 1 else f"{made.frames} frames"
    print(f"{request.output}: {frames}", file=sys.stderr)
    if made.faceless:
        print(
            f"driving frames without a face: {made.faceless}; they repeat the last good frame",
            file=sys.stderr,
        )
