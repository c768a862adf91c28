"""What networks that never saw rendered heads make of them, compared with the truth.

    python -m tests.parity.benchmark_heads --identities 60 --frames 16

Prints how many frames dlib finds a face in, how far its landmarks are from the true ones, whether faces of
one person resemble each other more than those of two, whether blinks, mouths, heads and eyes move as they
should, and how fast frames are rendered on one core.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from remime.faces.alignment import quad, warp
from remime.faces.identity import load_identity
from remime.faces.landmarks import FaceTracker
from remime.faces.mesh import BLENDSHAPES, load_mesh
from remime.faces.pose import load_pose
from remime.heads.assets import COEFFICIENTS
from remime.heads.renderer import Renderer
from remime.heads.sheet import pose as sheet_pose
from remime.heads.take import Take, figure_of, motion_of, render, scene_of

GROUPS = {"jaw": (0, 17), "brows": (17, 27), "nose": (27, 36), "eyes": (36, 48), "mouth": (48, 68)}
ALIGNED = 256


@dataclass
class Frame:
    """A rendered frame and what was found in it."""

    identity: int
    hair: str
    truth: dict[str, float]
    error: np.ndarray | None = None  # [68] in distances between the eyes
    found: dict[str, float] | None = None
    vector: np.ndarray | None = None


def takes(identities: int, frames: int, yaw: float, size: int) -> Iterator[Take]:
    """One clip of each identity, a frame every second."""
    for seed in range(identities):
        yield Take(10_000 + seed, 20_000 + seed, 30_000 + seed, frames, 1.0, size, yaw, 12.0)


class Judge:
    """The networks."""

    def __init__(self) -> None:
        self.tracker, self.mesh, self.pose = FaceTracker(), load_mesh(), load_pose()
        self.identity = load_identity("sface")

    @torch.inference_mode()
    def __call__(self, frame: Frame, image: np.ndarray, landmarks: np.ndarray) -> None:
        faces = self.tracker.detect(image.copy())
        if not faces:
            return
        points = faces[0].landmarks
        between = np.linalg.norm(landmarks[36:42].mean(0) - landmarks[42:48].mean(0))
        frame.error = np.linalg.norm(points - landmarks, axis=1) / between
        aligned = warp(image, quad(points), ALIGNED)[0]
        tensor = torch.from_numpy(aligned.copy()).permute(2, 0, 1)[None] / 127.5 - 1
        seen = self.mesh(tensor).blendshapes[0].tolist()
        frame.found = dict(zip(BLENDSHAPES, seen, strict=True))
        frame.found |= dict(zip(("yaw", "pitch"), self.pose(tensor)[0].tolist(), strict=False))
        frame.vector = self.identity.embed(tensor)[0].numpy()


def measured(take: Take, judge: Judge) -> Iterator[Frame]:
    """All frames of a clip."""
    motion, hair = motion_of(take), figure_of(take.identity).identity.hair
    for number, rendered in enumerate(render(take)):
        truth = dict(zip(COEFFICIENTS, motion.coefficients[number].tolist(), strict=True))
        truth |= dict(zip(("yaw", "pitch", "roll"), motion.pose[number].tolist(), strict=True))
        frame = Frame(take.identity, hair, truth)
        judge(frame, rendered.image, rendered.landmarks)
        yield frame


STEPS = np.linspace(0, 1, 5)


def sweep(take: Take, judge: Judge, unit: str, sides: tuple[str, ...]) -> list[float]:
    """What the mesh network says of a face unit that goes from 0 to 1; the least of both sides."""
    figure, renderer, answers = figure_of(take.identity), Renderer(take.size), []
    for value in STEPS:
        pose = sheet_pose(**{unit + side: value for side in sides})
        rendered = renderer.render(figure, pose, scene_of(take))
        frame = Frame(take.identity, "", {})
        judge(frame, rendered.image, rendered.landmarks)
        answers.append(min((frame.found or {}).get(unit + side, np.nan) for side in sides))
    return answers


def speed(size: int) -> tuple[float, float]:
    """Seconds of processor time per person built and per frame rendered."""
    spent = []
    next(render(next(takes(1, 1, 30.0, size))))  # kernels are compiled
    for take in list(takes(4, 12, 30.0, size))[1:]:
        start = time.process_time()
        figure_of(take.identity)
        middle = time.process_time()
        for _ in render(take):
            pass
        spent.append((middle - start, (time.process_time() - middle) / take.frames))
    build, frame = np.mean(spent, 0)
    return float(build), float(frame)


def report(frames: list[Frame]) -> None:
    """Print what was found."""
    seen = [frame for frame in frames if frame.found]
    print(f"found by dlib: {len(seen)} of {len(frames)} frames ({100 * len(seen) / len(frames):.2f} %)")
    lost = [frame for frame in frames if not frame.found]
    print("  not found:", Counter(f"{f.identity} {f.hair or 'none'} yaw {f.truth['yaw']:.0f}" for f in lost))
    errors = np.stack([frame.error for frame in seen])
    for name, (first, last) in GROUPS.items():
        each = errors[:, first:last].mean(1)
        print(f"landmarks, {name}: median {np.median(each):.3f}, 95 % {np.quantile(each, 0.95):.3f}")
    vectors = np.stack([frame.vector for frame in seen])
    alike = vectors @ vectors.T
    owner = np.array([frame.identity for frame in seen])
    same, one = owner[:, None] == owner, np.eye(len(seen), dtype=bool)
    mine, others = alike[same & ~one], alike[~same]
    centres = {i: vectors[owner == i].sum(0) for i in np.unique(owner)}
    right = 0
    for vector, i in zip(vectors, owner, strict=True):
        # The frame itself is no part of the mean that it is compared with.
        means = {j: centre - vector * (i == j) for j, centre in centres.items()}
        scores = {j: vector @ mean / np.linalg.norm(mean) for j, mean in means.items()}
        right += max(scores, key=lambda j: scores[j]) == i
    share = 100 * right / len(seen)
    print(f"sface: same {mine.mean():.3f} (5 % {np.quantile(mine, 0.05):.3f}), others {others.mean():.3f}")
    print(f"  (95 % {np.quantile(others, 0.95):.3f}); nearest of {len(centres)}: {share:.1f} % right")
    for name in (
        "yaw",
        "pitch",
        "eyeBlinkLeft",
        "jawOpen",
        "mouthSmileLeft",
        "mouthPucker",
        "browInnerUp",
        "browDownLeft",
        "eyeLookInLeft",
        "eyeLookOutLeft",
        "eyeLookUpLeft",
        "eyeLookDownLeft",
        "mouthFunnel",
    ):
        pairs = np.array([(frame.truth[name], frame.found[name]) for frame in seen])
        over_all = np.corrcoef(pairs.T)[0, 1]
        for person in centres:
            pairs[owner == person] -= pairs[owner == person].mean(0)
        within = np.corrcoef(pairs.T)[0, 1]
        print(
            f"{name}: correlation {over_all:.3f}, within people {within:.3f}, spread {pairs[:, 0].std():.3f}"
        )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--identities", type=int, default=60)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--max-yaw", type=float, default=35.0)
    parser.add_argument("--size", type=int, default=256)
    o = parser.parse_args()
    torch.set_num_threads(1)
    for size in (256, 512):
        build, frame = speed(size)
        print(
            f"{size}: {build:.2f} s per person, {frame:.4f} s per frame, {1 / frame:.1f} frames/s on one core"
        )
    judge, frames, blinks, jaws = Judge(), list[Frame](), [], []
    for take in takes(o.identities, o.frames, o.max_yaw, o.size):
        frames += measured(take, judge)
        blinks.append(sweep(take, judge, "eyeBlink", ("Left", "Right")))
        jaws.append(sweep(take, judge, "jawOpen", ("",)))
    report(frames)
    for name, answers in (("eyeBlink", np.array(blinks)), ("jawOpen", np.array(jaws))):
        each = [np.corrcoef(STEPS, row)[0, 1] for row in answers if np.isfinite(row).all()]
        print(f"{name} alone, at 0, 1/4, … 1: {np.nanmean(answers, 0).round(3)}")
        print(f"  most at 0 {np.nanmax(answers[:, 0]):.3f}, least at 1 {np.nanmin(answers[:, -1]):.3f};")
        print(f"  correlation with the truth: mean {np.mean(each):.3f}, least {np.min(each):.3f}")


if __name__ == "__main__":
    main()
