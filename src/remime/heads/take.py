"""Clips of heads: a person, a motion and a scene, each by its seed.

Any person can be shown in the motion and the scene of any clip, so a cross-identity reenactment has a true
answer: ``answer(take, identity)``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from remime.heads import identity as identities
from remime.heads import motion as motions
from remime.heads import scene as scenes
from remime.heads.assets import load_kit
from remime.heads.motion import Motion
from remime.heads.renderer import Figure, Rendered, Renderer
from remime.heads.scene import Scene, sensor


@dataclass(frozen=True)
class Take:
    """What a clip shows; all of its pixels follow from it.

    Args:
        identity, motion, scene: seeds.
        frames: how many.
        fps: frames per second.
        size: width and height in pixels.
        max_yaw, max_pitch: degrees that the head stays within.
    """

    identity: int
    motion: int
    scene: int
    frames: int
    fps: float
    size: int
    max_yaw: float
    max_pitch: float


def motion_of(take: Take) -> Motion:
    """How the person of a clip moves."""
    return motions.sample(take.motion, take.frames, take.fps, take.max_yaw, take.max_pitch)


def scene_of(take: Take) -> Scene:
    """How the person of a clip is seen."""
    return scenes.sample(take.scene)


@lru_cache(maxsize=2)
def figure_of(identity: int) -> Figure:
    """The person of a seed; the last two are kept, for clips of one person in turn.

    Raises:
        WeightsError: the kit is not there.
    """
    kit = load_kit()
    return Figure(kit, identities.sample(identity, kit))


@lru_cache(maxsize=1)
def _renderer(size: int) -> Renderer:
    return Renderer(size)


def render(take: Take, frames: Iterable[int] | None = None) -> Iterator[Rendered]:
    """The frames of a clip, before compression; the same bytes every time.

    Args:
        take: the clip.
        frames: which of them; without it all.

    Raises:
        WeightsError: the kit is not there.
    """
    figure, renderer = figure_of(take.identity), _renderer(take.size)
    motion, scene = motion_of(take), scene_of(take)
    for number in range(take.frames) if frames is None else frames:
        rendered = renderer.render(figure, motion[number], scene)
        yield replace(rendered, image=sensor(rendered.image, scene, number))


def answer(take: Take, identity: int, frames: Iterable[int] | None = None) -> Iterator[Rendered]:
    """The true answer of a cross-identity reenactment: another person in the clip's motion, camera and light.

    Args:
        take: the driving clip.
        identity: the seed of the target.
        frames: which of the clip's frames; without it all.
    """
    return render(replace(take, identity=identity), frames)
