"""How somebody moves: curves over time, drawn from a seed, the same for every person.

Curves are functions of time, so the same seed gives the same motion at any frame rate. Speech is syllables of
a consonant and a vowel, in phrases with pauses; eyes fixate and jump; heads turn, drift and nod; blinks close
faster than they open; smiles, raised brows and other expressions come and go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from remime.heads.assets import COEFFICIENTS
from remime.heads.shape import Pose

Curve = NDArray[np.float64]

LOOK_DEGREES = {"Up": 12.0, "Down": 12.0, "In": 22.0, "Out": 22.0}
"""How far an eye has turned when ``eyeLook…`` is 1; lids follow the eyes by these face units."""

_SIDES = ("Left", "Right")


@dataclass(frozen=True)
class Motion:
    """A motion of T frames.

    Args:
        time: [T] seconds.
        coefficients: [T, 52] in the order of ``COEFFICIENTS``, in [0, 1].
        gaze: [T, 2] yaw and pitch of the eyes in the head, degrees.
        pose: [T, 3] yaw, pitch and roll of the head, degrees; signs as in ``remime.faces.pose``.
    """

    time: Curve
    coefficients: Curve
    gaze: Curve
    pose: Curve

    def __len__(self) -> int:
        return len(self.time)

    def __getitem__(self, frame: int) -> Pose:
        """One frame."""
        gaze, pose = self.gaze[frame].tolist(), self.pose[frame].tolist()
        return Pose(self.coefficients[frame], tuple(gaze), tuple(pose))


# Mouth shapes of speech, by what they are like; a name without a side stands for both.
_VOWELS: dict[str, dict[str, float]] = {
    "a": {"jawOpen": 0.55, "mouthLowerDown": 0.30, "mouthUpperUp": 0.15},
    "e": {"jawOpen": 0.33, "mouthStretch": 0.25, "mouthLowerDown": 0.35, "mouthUpperUp": 0.20},
    "i": {"jawOpen": 0.12, "mouthSmile": 0.28, "mouthStretch": 0.30, "mouthLowerDown": 0.30},
    "o": {"jawOpen": 0.32, "mouthFunnel": 0.50, "mouthPucker": 0.25},
    "u": {"jawOpen": 0.13, "mouthPucker": 0.65, "mouthFunnel": 0.30},
}
_CONSONANTS: dict[str, dict[str, float]] = {
    "m": {"mouthPress": 0.40, "mouthRollLower": 0.20, "mouthRollUpper": 0.20},
    "f": {"jawOpen": 0.08, "mouthRollLower": 0.35, "mouthUpperUp": 0.25},
    "s": {"jawOpen": 0.06, "mouthStretch": 0.20, "mouthLowerDown": 0.30, "mouthUpperUp": 0.15},
    "sh": {"jawOpen": 0.10, "mouthFunnel": 0.45, "mouthShrugUpper": 0.15},
    "t": {"jawOpen": 0.18, "mouthLowerDown": 0.20},
    "k": {"jawOpen": 0.22, "mouthUpperUp": 0.10},
}
_SMILE = {"mouthSmile": 1.0, "cheekSquint": 0.5, "eyeSquint": 0.35, "mouthUpperUp": 0.2, "mouthDimple": 0.15}
_RAISE = {"browInnerUp": 0.9, "browOuterUp": 0.8, "eyeWide": 0.35}
_FROWN = {"browDown": 0.8, "eyeSquint": 0.3, "mouthPress": 0.15}
_RARE: tuple[dict[str, float], ...] = (
    {"mouthFrown": 0.6, "mouthShrugLower": 0.4},
    {"noseSneer": 0.6, "mouthUpperUp": 0.3},
    {"mouthLeft": 0.5, "mouthDimpleLeft": 0.3},
    {"mouthRight": 0.5, "mouthDimpleRight": 0.3},
    {"cheekPuff": 0.6, "mouthPress": 0.3},
    {"jawLeft": 0.4},
    {"jawRight": 0.4},
    {"jawForward": 0.4, "mouthShrugLower": 0.3},
    {"mouthClose": 0.15, "jawOpen": 0.2},
    {"browOuterUpLeft": 0.6},
    {"browOuterUpRight": 0.6},
    {"tongueOut": 0.5, "jawOpen": 0.35},
)


def ease(x: Curve) -> Curve:
    """From 0 to 1 while ``x`` does, as a hand moves: with least jerk (10x³ - 15x⁴ + 6x⁵)."""
    x = np.clip(x, 0, 1)
    return x**3 * (10 - 15 * x + 6 * x**2)


def bump(time: Curve, start: float, rise: float, hold: float, fall: float) -> Curve:
    """Up within ``rise`` seconds from ``start`` on, up for ``hold`` seconds, down within ``fall`` seconds."""
    return ease((time - start) / rise) * (1 - ease((time - start - rise - hold) / fall))


def wander(rng: np.random.Generator, time: Curve, period: float, waves: int = 12) -> Curve:
    """A smooth random curve of unit variance; most of its waves are longer than ``period`` seconds."""
    rates = np.abs(rng.standard_normal(waves)) / period
    phases = rng.uniform(0, 2 * np.pi, waves)
    return np.sqrt(2 / waves) * np.cos(2 * np.pi * rates * time[:, None] + phases).sum(1)


def capped(curve: Curve, most: float) -> Curve:
    """A curve bent so that it stays within ± ``most``."""
    return most * np.tanh(curve / most) if most > 0 else 0 * curve


def _moments(rng: np.random.Generator, end: float, draw: Callable[[], float]) -> Iterator[float]:
    """Moments in seconds up to ``end`` with drawn waits between them; the first may lie before the start."""
    moment = draw() * rng.uniform(-1.0, 1.0)
    while moment < end:
        yield moment
        moment += draw()


class _Face:
    """Coefficients that are added up over time.

    Args:
        time: [T] seconds.
        lean: how much more the left side moves than the right one, as a share.
    """

    def __init__(self, time: Curve, lean: float) -> None:
        self.values = np.zeros((len(time), len(COEFFICIENTS)))
        self._lean = dict(zip(_SIDES, (1 + lean, 1 - lean), strict=True))  # nobody moves symmetrically

    def add(self, parts: dict[str, float], curve: Curve) -> None:
        for name, share in parts.items():
            if name in COEFFICIENTS:
                self.values[:, COEFFICIENTS.index(name)] += share * curve
            else:
                for side in _SIDES:
                    self.values[:, COEFFICIENTS.index(name + side)] += self._lean[side] * share * curve


def _turn(rng: np.random.Generator, time: Curve) -> Curve:
    """A curve in about ± 1 that rests at places and moves between them."""
    place = rng.normal(0, 0.45)
    curve = np.full(len(time), place)
    for moment in _moments(rng, float(time[-1]), lambda: rng.uniform(1.0, 3.0)):
        aim = rng.normal(0, 0.55)
        curve += (aim - place) * ease((time - moment) / rng.uniform(0.6, 1.2))
        place = aim
    return curve


def _pose(seed: int, time: Curve, max_yaw: float, max_pitch: float) -> Curve:
    # Streams of their own: how long one of them lasts must not change another.
    turns, nods, drift, tilts = (np.random.default_rng([seed, 6, stream]) for stream in range(4))
    yaw = max_yaw * (_turn(turns, time) + 0.12 * wander(drift, time, 1.2))
    pitch = max_pitch * (0.6 * _turn(tilts, time) + 0.15 * wander(drift, time, 1.0))
    roll = 0.35 * max_pitch * wander(drift, time, 2.5) + 0.08 * yaw
    for moment in _moments(nods, float(time[-1]), lambda: nods.uniform(2.5, 7.0)):
        length, size = nods.uniform(0.22, 0.38), nods.uniform(0.2, 0.6)
        for i in range(int(nods.integers(1, 4))):
            pitch -= size * max_pitch * bump(time, moment + 2 * i * length, length, 0.0, length)
    return np.stack([capped(yaw, max_yaw), capped(pitch, max_pitch), capped(roll, max(max_pitch, 1e-6))], 1)


def _gaze(seed: int, time: Curve, pose: Curve) -> Curve:
    """Fixations with quick jumps between them; many of them on the camera, whatever the head does."""
    rng = np.random.default_rng([seed, 7])
    counter = -0.8 * np.stack([capped(pose[:, 0], 22), capped(pose[:, 1], 12)], 1)

    def look() -> Curve:
        offset = rng.normal(0, (6.0, 3.0))
        return counter + 0.3 * offset if rng.random() < 0.55 else np.broadcast_to(offset * 1.5, counter.shape)

    before = look()
    gaze = before.copy()
    for moment in _moments(rng, float(time[-1]), lambda: 0.25 + rng.gamma(2.0, 0.45)):
        after = look()
        gaze += (after - before) * ease((time - moment) / rng.uniform(0.04, 0.08))[:, None]
        before = after
    return np.stack([capped(gaze[:, 0], LOOK_DEGREES["In"]), capped(gaze[:, 1], LOOK_DEGREES["Up"])], 1)


def _follow(face: _Face, gaze: Curve) -> None:
    """Lids and what is around the eyes move along with them."""
    left, up = gaze[:, 0].clip(0), gaze[:, 1].clip(0)
    right, down = (-gaze[:, 0]).clip(0), (-gaze[:, 1]).clip(0)
    for side, (inward, outward) in zip(_SIDES, ((left, right), (right, left)), strict=True):
        for where, angle in (("In", inward), ("Out", outward), ("Up", up), ("Down", down)):
            face.values[:, COEFFICIENTS.index(f"eyeLook{where}{side}")] = angle / LOOK_DEGREES[where]


def _blink(seed: int, face: _Face, time: Curve) -> None:
    """Both eyes close within a tenth of a second and open within two."""
    rng = np.random.default_rng([seed, 8])
    closed = np.zeros(len(time))
    for moment in _moments(rng, float(time[-1]), lambda: 0.6 + rng.gamma(2.0, 1.1)):
        shape = rng.uniform(0.08, 0.11), rng.uniform(0.045, 0.07), rng.uniform(0.16, 0.24)
        closed = np.maximum(closed, bump(time, moment, *shape))
    for side in _SIDES:
        face.values[:, COEFFICIENTS.index(f"eyeBlink{side}")] = closed


def _talk(seed: int, face: _Face, time: Curve) -> None:
    """Phrases of syllables, each a consonant and a vowel, that run into each other."""
    rng = np.random.default_rng([seed, 9])
    loudness = rng.uniform(0.7, 1.2)
    moment = rng.uniform(-1.5, 0.8)
    while moment < time[-1] + 1:  # a mouth gets ready before it speaks
        end = moment + rng.uniform(1.0, 4.0)
        while moment < end:
            length = rng.uniform(0.15, 0.27)
            effort = loudness * rng.uniform(0.55, 1.15)
            for shapes, at, width in ((_CONSONANTS, 0.15, 0.17), (_VOWELS, 0.60, 0.26)):
                chosen = shapes[str(rng.choice(list(shapes)))]
                middle = moment + at * length
                face.add(chosen, effort * np.exp(-0.5 * ((time - middle) / (width * length + 0.02)) ** 2))
            moment += length
        moment += rng.uniform(0.4, 2.0)


def _express(seed: int, face: _Face, time: Curve) -> None:
    streams = [np.random.default_rng([seed, 10, stream]) for stream in range(4)]

    def episodes(rng: np.random.Generator, wait: float, hold: float, most: float) -> Iterator[Curve]:
        for moment in _moments(rng, float(time[-1]), lambda: rng.uniform(0.4, 1.6) * wait):
            rise, fall = rng.uniform(0.2, 0.5, 2)
            yield rng.uniform(0.35, most) * bump(time, moment, rise, rng.uniform(0.3, 1.0) * hold, fall)

    for curve in episodes(streams[0], 4.0, 3.0, 0.95):
        face.add(_SMILE, curve)
    for curve in episodes(streams[1], 3.5, 0.8, 0.85):
        face.add(_RAISE if streams[1].random() < 0.7 else _FROWN, curve)
    for curve in episodes(streams[2], 4.5, 1.0, 1.0):
        face.add(_RARE[int(streams[2].integers(len(_RARE)))], curve)
    face.add({"browInnerUp": 0.06}, 1 + wander(streams[3], time, 1.5))


def sample(seed: int, frames: int, fps: float, max_yaw: float = 30.0, max_pitch: float = 12.0) -> Motion:
    """A random motion; the same curves for the same seed and caps.

    Args:
        seed: any number from 0 on.
        frames: how many.
        fps: frames per second.
        max_yaw, max_pitch: degrees that yaw, and pitch and roll, stay within.
    """
    time = np.arange(frames) / fps
    pose = _pose(seed, time, max_yaw, max_pitch)
    gaze = _gaze(seed, time, pose)
    face = _Face(time, np.random.default_rng([seed, 11]).normal(0, 0.08))
    _talk(seed, face, time)
    _express(seed, face, time)
    _follow(face, gaze)
    _blink(seed, face, time)
    return Motion(time, face.values.clip(0, 1), gaze, pose)
