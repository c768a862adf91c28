"""What inversions show of people whom no training saw, after `make run`:
`python experiments/stills.py models/restyle-psp-small.safetensors`.

Ten photos and a clip of validation people, and the targets of the protocol `cross` that are frames of test
clips; for each inverter and number of refinements the mean LPIPS by AlexNet and by VGG, squared error (values
in 0 … 1) and cosine of SFace to the person. With `--optimise 60` frames are fitted from there as the protocol
fits its targets, each in half a minute; LPIPS by AlexNet and squares are in that loss, VGG
and SFace in none. `remime weights fetch lpips-vgg` comes first.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from remime.archive import AlignedReader
from remime.encoders.inverter import load_inverter
from remime.export import read_pairs
from remime.faces.identity import load_identity
from remime.generators import load_generator
from remime.images import fit, to_tensor
from remime.optimisation import load_optimiser
from remime.perceptual import load_lpips
from remime.runtime import keep_freed_memory
from remime.tables import read_table

SAMPLES = Path("results/samples")
GENERATOR = "mobile-ffhq"
KINDS = ("photos", "clip", "targets")
EVERY = 8  # frames of the validation's clip


def rows_of(frames: AlignedReader) -> dict[str, list[int]]:
    """Rows of the aligned frames by what they are."""
    manifest = read_table(SAMPLES / "manifest.parquet", "manifest").to_pylist()
    kinds = {row["clip"]: row["kind"] for row in manifest if row["split"] == "val"}
    found: dict[str, list[int]] = {kind: [] for kind in KINDS}
    for clip in frames.clips:
        if clip.id in kinds:
            photo = kinds[clip.id] == "image"
            found["photos" if photo else "clip"] += list(clip.rows)[:: 1 if photo else EVERY]
    pairs = [row for row in read_pairs(Path("results"), "cross") if row["target_dataset"] == "samples"]
    targets = {(row["target_clip"], row["target_frame"]) for row in pairs}
    found["targets"] = [frames.by_id[clip].rows[frame] for clip, frame in sorted(targets)]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("inverters", type=Path, nargs="+")
    parser.add_argument("--refinements", type=int, nargs="+", default=[2])
    parser.add_argument("--of", choices=KINDS, nargs="+", default=KINDS)
    parser.add_argument("--optimise", type=int, default=0, metavar="STEPS")
    a = parser.parse_args()
    keep_freed_memory()
    (path,) = sorted((SAMPLES / "aligned").glob("*.h5"))
    frames = AlignedReader(path)
    generator = load_generator(GENERATOR)
    judge, distances = load_identity("sface"), [load_lpips(trunk) for trunk in ("alex", "vgg")]
    fitted = load_optimiser(generator, a.optimise) if a.optimise else None

    def inverted(inverter: torch.nn.Module, image: Tensor) -> Tensor:
        """The picture [3, 256, 256] that the generator makes of an image [3, 256, 256]."""
        with torch.no_grad():
            w_plus = inverter.invert(image[None])
        if fitted is not None:
            w_plus = fitted(image, w_plus[0])[None]
        with torch.no_grad():
            return fit(generator.synthesize(w_plus, resolution=256), 256)[0].clamp(-1, 1)

    rows, landmarks = (
        rows_of(frames),
        torch.from_numpy(frames.landmarks[:]).float() * (256 / frames.resolution),
    )
    images = {kind: fit(to_tensor(frames.frames(rows[kind])), 256) for kind in a.of}
    with torch.no_grad():
        people = {kind: judge.embed(images[kind], landmarks[rows[kind]]) for kind in a.of}
    print("| inverter | refinements | of | frames | lpips | by VGG | mse | csim |")
    print("|---|---|---|---|---|---|---|---|")
    for path in a.inverters:
        inverter = load_inverter(path, generator)
        for inverter.steps in a.refinements:
            for kind in a.of:
                shown = torch.stack([inverted(inverter, image) for image in images[kind]])
                with torch.no_grad():
                    csim = (judge.embed(shown, landmarks[rows[kind]]) * people[kind]).sum(1)
                    error = ((shown - images[kind]) / 2).square()
                    apart = [distance(shown, images[kind]).mean() for distance in distances]
                    figures = *apart, error.mean(), csim.mean()
                told = " | ".join(f"{float(value):.3f}" for value in figures)
                print(f"| {path.stem} | {inverter.steps} | {kind} | {len(shown)} | {told} |", flush=True)


if __name__ == "__main__":
    main()
