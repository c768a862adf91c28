"""``remime reenact``: the target's face with the driving video's motion."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass
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
OPTIMISE = 30
AHEAD = 16  # aligned frames that may wait for the network


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
            help="Steps that fit the target's latent to its image, from the inverter's (not for linear).",
        ),
    ] = OPTIMISE,
    side_by_side: Annotated[
        bool, typer.Option("--side-by-side", help="Show target, driving face and result next to each other.")
    ] = False,
    device: inputs.Device = "auto",
    batch: Annotated[
        int, typer.Option(min=1, metavar="N", help="Frames that pass through the network at once.")
    ] = 8,
    licence: inputs.Licence = "any",
) -> None:
    """Make a video of the target's face with the driving video's motion.

    Neither has to be aligned; the largest face counts. Sound and frame rate are those of the driving video.
    Frames in which no face is found repeat the last good one.
    """
    inputs.one_of("--resolution", resolution, RESOLUTIONS)
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
            side_by_side,
            device,
            batch,
            licence,
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
    side_by_side: bool = False
    device: str = "auto"
    batch: int = 8
    licence: str = "any"

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
    """

    frames: int
    faceless: int
    seconds: float


@dataclass(frozen=True)
class _Files:
    """The model files, and their descriptions."""

    method: str
    model: Path | None
    model_meta: dict[str, Any] | None
    inverter: Path
    inverter_meta: dict[str, Any]

    @property
    def networks(self) -> list[str]:
        """Pretrained networks that these need."""
        described = [meta for meta in (self.inverter_meta, self.model_meta) if meta is not None]
        return networks.of_models(*described)


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
    return _Files(method, model, model_meta, inverter, inverter_meta)


class _Engine:
    """All networks, loaded."""

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
        self.method = load_method({"method": files.method}, files.model, own, device)
        self.reenactor: Reenactor = Reenactor(
            own, self.method, request.resolution, request.batch, request.pixel_format
        )


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
    from remime.faces.stream import Faces, first_face
    from remime.runtime import keep_freed_memory, keep_opencv_to_one_thread

    keep_freed_memory()
    keep_opencv_to_one_thread()
    files = _files(request)
    device = inputs.device_of(request.device)
    # Faces come first: whether there are any is known long before the networks are loaded.
    networks.ensure_all([networks.FACES], request.licence)
    face = first_face(Path(request.target)) if inputs.random_seed(request.target) is None else None
    first_face(request.driving)
    own = [networks.LOSS_IDENTITY, networks.LPIPS] if request.optimise and files.model is not None else []
    networks.ensure_all([*files.networks, *own], request.licence)
    engine = _Engine(request, files, device)
    if face is None:
        face = _random_face(request, engine)
    with ExitStack() as stack:
        latents, driving, mean = None, None, None
        if engine.method.needs_latents:
            folder = request.output.absolute().parent
            folder.mkdir(parents=True, exist_ok=True)
            spool = stack.enter_context(TemporaryFile(dir=folder))
            latents, driving = _whole_driving(request, engine, spool)
            mean = _target_mean(request, engine, face)
        faces = stack.enter_context(closing(Faces(request.driving)))
        identity = _identity(request, engine, face, mean)
        made = _Film(request, files, engine, face).make(faces, identity, latents, driving)
    _report(request, made)
    return made


def _random_face(request: Request, engine: _Engine) -> Image:
    from remime.reenactment import random_face

    seed = inputs.random_seed(request.target)
    assert seed is not None
    return random_face(engine.generator, seed, engine.inverter.size)


def _identity(request: Request, engine: _Engine, face: Image, mean: Tensor | None) -> Identity:
    from remime.reenactment import invert

    if mean is not None:
        return engine.reenactor.identify(mean)
    latent = invert(engine.inverter, face[None])[0]
    return engine.reenactor.identify(_optimised(request, engine, face, latent))


def _optimised(request: Request, engine: _Engine, face: Image, latent: Tensor) -> Tensor:
    """The target's latent [rows, 512] fitted to its image, from the inverter's."""
    if not request.optimise:
        return latent
    from remime.optimisation import LatentOptimiser
    from remime.progress import Progress
    from remime.training.data import to_tensor
    from remime.training.losses import ImageLosses

    losses = ImageLosses(networks.LOSS_IDENTITY).to(latent.device)
    with Progress(request.optimise, "fit target", "steps") as progress:
        optimiser = LatentOptimiser(engine.generator, losses, request.optimise)
        return optimiser(to_tensor(face).to(latent), latent, progress.update)


def _whole_driving(request: Request, engine: _Engine, spool: IO[bytes]) -> tuple[Iterator[Tensor], Driving]:
    """The first pass over the driving video: its latents, kept in a nameless file, and their mean."""
    from remime.cli.latents import spooled
    from remime.methods import Driving

    mean = _clip_mean(request.driving, request, engine, "driving", spool)
    return spooled(spool, engine.inverter.generator.rows), Driving(mean)


def _target_mean(request: Request, engine: _Engine, face: Image) -> Tensor:
    from remime.cli.latents import clip_mean

    if inputs.random_seed(request.target) is not None:
        return clip_mean(engine.inverter, [face], request.batch)
    return _clip_mean(Path(request.target), request, engine, "target")


def _clip_mean(
    path: Path, request: Request, engine: _Engine, role: str, spool: IO[bytes] | None = None
) -> Tensor:
    from remime.cli.latents import clip_mean
    from remime.faces.stream import Faces
    from remime.progress import Progress

    with (
        closing(Faces(path)) as faces,
        Progress(faces.expected, f"invert {role}", "frames") as progress,
    ):
        images = (moment.image for moment in faces if moment.image is not None)

        def update() -> None:
            progress.update(faces.found + faces.missing - progress.count)

        mean = clip_mean(engine.inverter, images, request.batch, spool, update)
        update()
    return mean


class _Film:
    """Writes the result while the stream of driving frames goes on."""

    def __init__(self, request: Request, files: _Files, engine: _Engine, face: Image) -> None:
        self.request, self.files, self.engine, self.face = request, files, engine, face

    def make(
        self, faces: Faces, identity: Identity, latents: Iterator[Tensor] | None, driving: Driving | None
    ) -> Made:
        """Write the video.

        Args:
            faces: the driving video.
            identity: the target.
            latents: of the driving frames with a face, if the method needs them.
            driving: what is known of the whole clip.
        """
        from remime.cli.ahead import Ahead, Behind
        from remime.progress import Progress
        from remime.video import Writer

        waiting: deque[Moment] = deque()
        made: list[tuple[Moment, Image]] = []
        end = 0.0

        def images(moments: Iterator[Moment]) -> Iterator[Image]:
            nonlocal end
            for moment in moments:
                if made:
                    # The next batch is asked for: while it comes, the last one is encoded.
                    behind.begin(partial(self._write, writer, made.copy(), progress))
                    made.clear()
                end = moment.time
                if moment.image is not None:
                    waiting.append(moment)
                    yield moment.image

        spare, path, start = self._spare_core(), self.request.driving, time.perf_counter()
        with (
            Ahead(faces, AHEAD) if spare else nullcontext(faces) as moments,
            Progress(faces.expected, "reenact", "frames") as progress,
            Writer(
                self.request.output,
                faces.info.fps,
                self._size(),
                audio_from=self._sound(faces),
                metadata=self._note(),
                pixel_format=self.request.pixel_format,
                # Between two batches the other core looks for faces.
                threads=None if spare else 1,
            ) as writer,
            Behind() as behind,
        ):
            for result in self.engine.reenactor.frames(identity, images(moments), latents, driving):
                made.append((waiting.popleft(), result))
            behind.wait()
            self._write(writer, made, progress)
            if not writer.count:
                raise InputError(
                    path, "no face was found when it was read again", "do not change it meanwhile"
                )
            # What comes after the last face shows the last good frame.
            writer.write(self._last, end)
            progress.update(faces.found + faces.missing - progress.count)
        return Made(writer.count, faces.missing, time.perf_counter() - start)

    def _spare_core(self) -> bool:
        """Whether faces can be found beside the networks without taking a core from them.

        Threads that share one image wait for each other: a millisecond that one of two gives to somebody else
        costs both. So without a spare core everything else is done between two batches, at once.
        """
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

    def _sound(self, faces: Faces) -> Path | None:
        return self.request.driving if faces.info.has_audio else None

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
        from remime.files import sha256
        from remime.versions import __version__

        files = self.files
        return {
            "made_by": f"remime {__version__}",
            "synthetic": "the face in this video was generated",
            "method": files.method,
            "model": files.model.stem if files.model is not None else files.method,
            "inverter": files.inverter.stem,
            "generator": files.inverter_meta["generator"],
            "optimise": self.request.optimise if files.model is not None else 0,
            "weights": {
                "inverter": sha256(files.inverter),
                "model": sha256(files.model) if files.model is not None else "",
            },
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
