"""Make a model's videos of one batch of pairs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remime.errors import InputError
from remime.files import atomic, write_text
from remime.stages import Dataset, add_datasets, entry, stage_parser
from remime.versions import STAGES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from remime.archive import AlignedReader, LatentReader
    from remime.methods import Driving
    from remime.optimisation import LatentOptimiser

OPTIONS: dict[str, Any] = {
    "generator": "mobile-ffhq",
    "resolution": 256,
    "batch": 8,
    "method": "mapping",
    "inverter": "psp",
    "optimise": 0,
    "optimise_identity": "edgeface-s",
    "optimise_truncation": 0.5,
}


@dataclass
class _Clip:
    """A clip with all that is cached of it."""

    key: tuple[str, str]  # dataset and clip
    entry: Any
    aligned: AlignedReader
    latents: LatentReader

    def frames(self, count: int | None = None) -> Iterator[NDArray[np.uint8]]:
        """Its aligned frames, one at a time."""
        for row in self.entry.rows[:count]:
            yield self.aligned.frame(row)

    @cached_property
    def inverted(self) -> dict[int, NDArray[np.float32]]:
        """The latents [rows, 512] that there are, by position in the clip."""
        known = self.latents.by_id[self.entry.id]
        rows = slice(known.first, known.first + known.count)
        positions = self.latents.clip_row[rows] - self.entry.first
        return dict(zip(positions.tolist(), self.latents.latents[rows], strict=True))


def _kept(path: Path) -> Tensor | None:
    """An array that an interrupted run left; None when there is none, or it is damaged."""
    import numpy as np
    import torch

    try:
        return torch.from_numpy(np.load(path))
    except (OSError, ValueError, EOFError):
        return None


class _Data:
    """Opens the clips of the datasets, each shard once."""

    def __init__(self, datasets: Sequence[Dataset], inverter: str) -> None:
        self.datasets = {d.name: d for d in datasets}
        self.inverter = inverter
        self._open: dict[tuple[str, str], tuple[AlignedReader, LatentReader]] = {}

    def clip(self, dataset: str, shard: str, name: str) -> _Clip:
        from remime.archive import AlignedReader, LatentReader

        if dataset not in self.datasets:
            raise InputError("pairs", f"name the dataset {dataset!r}", f"given: {', '.join(self.datasets)}")
        key = (dataset, shard)
        if key not in self._open:
            where = self.datasets[dataset]
            self._open[key] = (
                AlignedReader(where.aligned(shard)),
                LatentReader(where.latents(self.inverter, shard)),
            )
        aligned, latents = self._open[key]
        return _Clip((dataset, name), aligned.by_id[name], aligned, latents)


class _Job:
    def __init__(
        self,
        datasets: Sequence[Dataset],
        inverter: Path,
        model: Path | None,
        state: Path,
        o: Mapping[str, Any],
    ) -> None:
        import torch

        from remime.devices import compute_device
        from remime.encoders.inverter import load_inverter
        from remime.generators import load_generator
        from remime.methods import load_method
        from remime.reenactment import Decoder, Reenactor

        device = torch.device(compute_device())
        # The variant `gen` brings its own generator; inversions are always decoded by the original.
        self.plain = load_generator(o["generator"]).to(device)
        self.inverter = load_inverter(inverter, self.plain, device)
        own = load_generator(o["generator"]).to(device) if model is not None else self.plain
        self.method = load_method(dict(o), model, own, device)
        self.reenactor = Reenactor(own, self.method, o["resolution"], o["batch"], "yuv420p")
        self.inversions = Decoder(self.plain, o["resolution"], o["batch"])
        self.data, self.state, self.o = _Data(datasets, o["inverter"]), state, o
        self._means: dict[tuple[str, str], Tensor] = {}
        self._rests: dict[tuple[str, str], Driving] = {}

    @cached_property
    def optimiser(self) -> LatentOptimiser:
        from remime.optimisation import load_optimiser

        device = self.plain.mean_latent.device
        return load_optimiser(
            self.plain, self.o["optimise"], self.o["optimise_identity"], device, self.o["optimise_truncation"]
        )

    def optimised(self, pair: Mapping[str, Any], image: NDArray[np.uint8], guess: Tensor) -> Tensor:
        """The latent [rows, 512] of a target's frame, fitted once, from the inverter's."""
        import numpy as np

        from remime.images import to_tensor
        from remime.pairs import RANDOM

        seed = pair["target_clip"].startswith(RANDOM)
        folder = self.state / "targets" / ("random" if seed else pair["target_dataset"])
        path = folder / f"{pair['target_clip'].removeprefix(RANDOM)}.{pair['target_frame']}.npy"
        kept = _kept(path)
        if kept is not None:
            return kept.to(guess)
        latent = self.optimiser(to_tensor(image).to(guess), guess)
        with atomic(path) as temporary:
            np.save(temporary, latent.cpu().numpy())
        return latent

    def mean(self, clip: _Clip) -> Tensor:
        """The mean latent [rows, 512] of a clip and its mirror images, computed once."""
        import numpy as np
        import torch

        from remime.reenactment import FLIPS, mean_latent, spaced

        if clip.key not in self._means:
            path = self.state / "means" / clip.key[0] / f"{clip.key[1]}.npy"
            mean = _kept(path)
            if mean is None:
                images = clip.aligned.frames([clip.entry.first + i for i in spaced(clip.entry.count, FLIPS)])
                known = torch.from_numpy(np.stack([*clip.inverted.values()])).to(self.plain.mean_latent)
                mean = mean_latent(self.inverter, images, known).cpu()
                with atomic(path) as temporary:
                    np.save(temporary, mean.numpy())
            self._means[clip.key] = mean
        return self._means[clip.key].to(self.plain.mean_latent)

    def rest(self, clip: _Clip) -> Driving:
        """How the face of a clip rests, by frames from all over it."""
        from remime.reenactment import REST_FRAMES, spaced

        if clip.key not in self._rests:
            images = clip.aligned.frames(
                [clip.entry.first + i for i in spaced(clip.entry.count, REST_FRAMES)]
            )
            self._rests[clip.key] = self.reenactor.at_rest(list(images))
        return self._rests[clip.key]

    def target(self, pair: Mapping[str, Any]) -> tuple[NDArray[np.uint8], Tensor, Tensor | None]:
        """A target's frame, its latent [rows, 512] and, if the method needs it, its clip's mean."""
        image, latent, mean = self._inverted(pair)
        # A method that works on the mean of a clip does not look at the frame's own latent.
        if self.o["optimise"] and mean is None:
            latent = self.optimised(pair, image, latent)
        return image, latent, mean

    def _inverted(self, pair: Mapping[str, Any]) -> tuple[NDArray[np.uint8], Tensor, Tensor | None]:
        import torch

        from remime.pairs import RANDOM
        from remime.reenactment import invert, mean_latent, random_face

        if pair["target_clip"].startswith(RANDOM):
            seed = int(pair["target_clip"].partition(":")[2])
            image = random_face(self.plain, seed, self.inverter.size)
            latents = invert(self.inverter, image[None])
            mean = mean_latent(self.inverter, image[None], latents) if self.method.needs_latents else None
            return image, latents[0], mean
        clip = self.data.clip(pair["target_dataset"], pair["target_shard"], pair["target_clip"])
        image = clip.aligned.frame(clip.entry.first + pair["target_frame"])
        latent = torch.from_numpy(clip.inverted[pair["target_frame"]])
        mean = self.mean(clip) if self.method.needs_latents else None
        return image, latent.to(self.plain.mean_latent), mean

    def _latents(self, clip: _Clip, count: int) -> Iterator[Tensor]:
        """A latent for every driving frame; frames that ``select`` left out are inverted now."""
        import torch

        from remime.reenactment import invert

        for i in range(count):
            if i in clip.inverted:
                yield torch.from_numpy(clip.inverted[i])
            else:
                yield invert(self.inverter, clip.aligned.frame(clip.entry.first + i)[None])[0].cpu()

    def make(self, pair: Mapping[str, Any], folder: Path, note: Mapping[str, Any], update: Any) -> None:
        """Write a pair's video, target, inversion and provenance; the last file written is the JSON."""
        import numpy as np
        from PIL import Image

        from remime.methods import Driving
        from remime.video import NO_CUTS, Writer

        image, latent, mean = self.target(pair)
        identity = self.reenactor.identify(mean if mean is not None else latent)
        clip = self.data.clip(pair["driving_dataset"], pair["driving_shard"], pair["driving_clip"])
        count = pair["frames"]
        companions, driving = None, None
        if self.method.needs_latents:
            companions, driving = self._latents(clip, count), Driving(self.mean(clip))
        elif self.method.needs_rest:
            driving = self.rest(clip)
        inversion = next(self.inversions.decode(latent[None]))
        for name, picture in (("target", image), ("inversion", inversion)):
            with atomic(folder / f"{pair['pair']}.{name}.png") as temporary:
                Image.fromarray(np.asarray(picture)).save(temporary)
        described = {**note, **{k: pair[k] for k in ("pair", "driving_clip", "target_clip", "target_frame")}}
        size = (self.o["resolution"],) * 2
        with Writer(
            folder / f"{pair['pair']}.mp4",
            clip.entry.fps,
            size,
            metadata=described,
            pixel_format="yuv420p",
            x264=NO_CUTS,
            **self._audio(pair, clip),
        ) as writer:
            for frame in self.reenactor.frames(identity, clip.frames(count), companions, driving):
                writer.write(frame)
                update()
        write_text(folder / f"{pair['pair']}.json", json.dumps(described, indent=1, sort_keys=True))

    def _audio(self, pair: Mapping[str, Any], clip: _Clip) -> dict[str, Any]:
        """Where the driving clip's sound lies, if its file is still there."""
        from remime.tables import read_table

        manifest = read_table(self.data.datasets[pair["driving_dataset"]].manifest, "manifest")
        row = next((r for r in manifest.to_pylist() if r["clip"] == pair["driving_clip"]), None)
        if row is None or row["kind"] != "video" or not Path(row["path"]).exists():
            return {}
        return {
            "audio_from": row["path"],
            "audio_start": float(clip.aligned.time[clip.entry.first]),
            "audio_duration": pair["frames"] / clip.entry.fps,
        }


def run(
    pairs: Path,
    batch: str,
    datasets: Sequence[Dataset],
    inverter: Path,
    output: Path,
    state: Path,
    options: Mapping[str, Any],
    model: Path | None = None,
) -> int:
    """Make the videos of a batch; finished pairs survive a kill in ``state``. Returns their number.

    Args:
        pairs: the table of pairs.
        batch: which of its batches.
        datasets: where the clips lie.
        inverter: the inverter's model file.
        output: the folder; it appears when every video is there.
        state: directory for finished videos.
        options: ``OPTIONS``, and what the method needs.
        model: the method's model file; None for methods without one.
    """
    from remime.progress import Progress
    from remime.provenance import digests, provenance
    from remime.runtime import keep_freed_memory
    from remime.tables import read_table
    from remime.training.state import digest_of

    keep_freed_memory()
    o = {**OPTIONS, **options}
    todo = [row for row in read_table(pairs, "pairs").to_pylist() if row["batch"] == batch]
    weights = digests(o, inverter, model)
    state = state / digest_of(o, weights, STAGES["reenact"], todo)
    folder = state / "videos"
    folder.mkdir(parents=True, exist_ok=True)
    note = {**provenance(o, weights), "model": o.get("model", o["method"])}
    left = [row for row in todo if not (folder / f"{row['pair']}.json").exists()]
    total = sum(row["frames"] for row in todo)
    done = total - sum(row["frames"] for row in left)
    with Progress(total, f"reenact {note['model']} {batch}", "frames", done=done) as progress:
        job = _Job(datasets, inverter, model, state, o) if left else None
        for row in left:
            assert job is not None
            job.make(row, folder, note, progress.update)
    if output.exists():
        shutil.rmtree(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(folder, output)
    shutil.rmtree(state.parent, ignore_errors=True)
    return len(todo)


def main(argv: Sequence[str] | None = None) -> None:
    parser = stage_parser("reenact", __doc__)
    for name in ("pairs", "inverter-model", "output", "state"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--batch", required=True)
    add_datasets(parser)
    a = parser.parse_args(argv)
    run(a.pairs, a.batch, a.datasets, a.inverter_model, a.output, a.state, a.options, a.model)


if __name__ == "__main__":
    entry(main)
