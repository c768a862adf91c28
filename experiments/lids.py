"""How far eyes close with those of a driving face, after `make run`:
`python experiments/lids.py models/mapping-small.safetensors`.

Rendered heads that blink and a man who talks (`talking-face`) drive fitted photos of validation people, as
the default configuration does. Eyes are told by dlib's landmarks, which are in no loss: height by width, in
the frame of a clip where the driving eyes are closed furthest, as a share of that where they are open widest.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from remime.archive import AlignedReader
from remime.encoders.inverter import load_inverter
from remime.faces.alignment import quad, warp
from remime.generators import load_generator
from remime.heads.take import Take, render
from remime.images import fit, to_image, to_tensor
from remime.methods import Driving, load_method
from remime.metrics.expression import LEFT_EYE, RIGHT_EYE, eye_aspect_ratio
from remime.metrics.networks import landmark_finder
from remime.optimisation import load_optimiser
from remime.runtime import keep_freed_memory
from remime.tables import read_table

SAMPLES = Path("results/samples")
REAL = "talking-face"
HEADS = range(4)  # seeds of persons, motions and scenes that no data set has
OPTIONS = {"method": "mapping", "expression_strength": 0.85, "relative_expression": 0.8}


def opening(images: Iterable[NDArray[np.uint8]]) -> NDArray[np.float64]:
    """How wide the eyes of faces are open, the mean of both; NaN where there is no face."""
    find, nowhere = landmark_finder(), np.full((68, 2), np.nan)
    points = np.stack([nowhere if (found := find(image)) is None else found for image in images])
    return (eye_aspect_ratio(points, LEFT_EYE) + eye_aspect_ratio(points, RIGHT_EYE)) / 2


def driving(frames: AlignedReader) -> dict[str, Tensor]:
    """Clips by name, [T, 3, 256, 256]."""
    clips = {REAL: fit(to_tensor(frames.frames(list(frames.by_id[REAL].rows))), 256)}
    for seed in HEADS:
        take = Take(7000 + seed, 7100 + seed, 7200 + seed, 75, 25, 256, 15, 8)
        shown = [warp(frame.image, quad(frame.landmarks), 256)[0] for frame in render(take, range(0, 75, 3))]
        clips[f"rendered {seed}"] = to_tensor(np.stack(shown))
    return clips


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("mappings", type=Path, nargs="+")
    parser.add_argument("--inverter", type=Path, default=Path("models/restyle-psp-small.safetensors"))
    parser.add_argument("--targets", type=int, default=6)
    parser.add_argument("--optimise", type=int, default=60, metavar="STEPS")
    a = parser.parse_args()
    keep_freed_memory()
    (path,) = sorted((SAMPLES / "aligned").glob("*.h5"))
    frames = AlignedReader(path)
    manifest = read_table(SAMPLES / "manifest.parquet", "manifest").to_pylist()
    photos = [row["clip"] for row in manifest if row["split"] == "val" and row["kind"] == "image"]
    generator = load_generator("mobile-ffhq")
    inverter, fitted = load_inverter(a.inverter, generator), load_optimiser(generator, a.optimise)
    targets = []
    for clip in [photo for photo in photos if photo in frames.by_id][: a.targets]:
        image = fit(to_tensor(frames.frames(list(frames.by_id[clip].rows)[:1])), 256)
        with torch.no_grad():
            guess = inverter.invert(image)[0]
        targets.append(fitted(image[0], guess))
    latents = torch.stack(targets)
    with torch.no_grad():
        shown = fit(generator.synthesize(latents, resolution=256), 256)
    clips = driving(frames)
    print("| mapping | driving | driving eyes | results, median | least, most |\n|---|---|---|---|---|")
    for path in a.mappings:
        method = load_method(OPTIONS, path, generator)
        for name, clip in clips.items():
            course = opening(to_image(clip))
            moments = [int(np.nanargmax(course)), int(np.nanargmin(course))]
            shares = []
            with torch.inference_mode():
                rest = Driving(rest=method.rest(method.observe(clip)))
                for latent, image in zip(latents, shown, strict=True):
                    moved = method.drive(method.identify(latent, image), clip[moments], driving=rest)
                    wide, closed = opening(to_image(fit(generator.synthesize(moved, resolution=256), 256)))
                    shares.append(closed / wide)
            driven = course[moments[1]] / course[moments[0]]
            print(
                f"| {path.stem} | {name} | {driven:.2f} | {np.nanmedian(shares):.2f} |"
                f" {np.nanmin(shares):.2f}, {np.nanmax(shares):.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
