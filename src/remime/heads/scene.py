"""How somebody is seen: lights, background, camera, exposure, noise and compression, drawn from a seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom

from remime.heads.assets import Floats
from remime.heads.parameters import Colour, Parameters, triple


@dataclass(frozen=True)
class Light(Parameters):
    """A distant light.

    Args:
        azimuth: degrees from the camera towards the right of the picture.
        elevation: degrees above the horizon.
        colour: linear red, green, blue.
    """

    azimuth: float
    elevation: float
    colour: Colour

    @property
    def direction(self) -> tuple[float, float, float]:
        """Towards the light; x right, y up, z towards the camera."""
        a, e = np.radians(self.azimuth), np.radians(self.elevation)
        return float(np.sin(a) * np.cos(e)), float(np.sin(e)), float(np.cos(a) * np.cos(e))


@dataclass(frozen=True)
class Scene(Parameters):
    """Everything that is seen but the person, and how.

    Args:
        seed: of the background's pattern and of the noise.
        lights: key, fill and rim; only the key light casts shadows.
        sky, ground: light from above and from below.
        background: two colours that it runs between.
        shapes: how many things stand in the background.
        blur: how far it is out of focus, in 64ths of the picture.
        distance: of the camera from the eyes at rest, in decimetres.
        span: height of what the picture shows at the eyes' distance, in decimetres.
        shift: of the picture's centre from the eyes, right and down, in decimetres.
        gloss: of the skin, 1 the usual.
        exposure: what all light is multiplied with.
        noise: standard deviation of the sensor's noise, in grey levels of 255.
        crf: constant rate factor of the video's compression.
    """

    seed: int
    lights: tuple[Light, Light, Light]
    sky: Colour
    ground: Colour
    background: tuple[Colour, Colour]
    shapes: int
    blur: float
    distance: float
    span: float
    shift: tuple[float, float]
    gloss: float
    exposure: float
    noise: float
    crf: int

    @classmethod
    def _value(cls, name: str, value: Any) -> Any:
        if name == "lights" and isinstance(value, Mapping):
            return Light.of(value)
        return super()._value(name, value)


def _tinted(strength: float, warmth: float) -> Colour:
    return triple(strength * np.array([1 + warmth, 1.0, 1 - warmth]))


def sample(seed: int) -> Scene:
    """A random scene; the same one for the same seed."""
    rng = np.random.default_rng([seed, 3])

    def uniform(low: float, high: float) -> float:
        return round(float(rng.uniform(low, high)), 6)

    azimuth = uniform(-55, 55)
    key = Light(azimuth, uniform(12, 42), _tinted(uniform(1.1, 1.7), 0.08 * rng.standard_normal()))
    fill = Light(
        round(-0.8 * azimuth + uniform(-15, 15), 6),
        uniform(-5, 25),
        _tinted(uniform(0.15, 0.45), 0.08 * rng.standard_normal()),
    )
    rim = Light(-150.0 if azimuth > 0 else 150.0, 25.0, _tinted(uniform(0.0, 0.8), 0.0))
    around, tint = uniform(0.24, 0.42), 0.05 * rng.standard_normal()
    first = rng.uniform(0.04, 0.5) * np.exp(0.28 * rng.standard_normal(3))
    return Scene(
        seed=int(seed),
        lights=(key, fill, rim),
        sky=triple(around * np.array([1 - tint, 1.0, 1.05 * (1 + tint)])),
        ground=triple(around * np.array([0.55 * (1 + tint), 0.50, 0.45])),
        background=(triple(first), triple(first * np.exp(0.45 * rng.standard_normal(3)))),
        shapes=int(rng.integers(0, 9)),
        blur=uniform(1.0, 5.0),
        distance=uniform(7.0, 16.0),
        span=uniform(3.0, 3.7),
        shift=(uniform(-0.12, 0.12), uniform(0.0, 0.25)),
        gloss=uniform(0.5, 1.3),
        exposure=uniform(0.9, 1.12),
        noise=uniform(0.0, 2.5),
        crf=int(rng.integers(15, 24)),
    )


_PATTERN = 64


def backdrop(scene: Scene, size: int) -> Floats:
    """The background [size, size, 3] in linear light: a gradient, rectangles, out of focus."""
    rng = np.random.default_rng([scene.seed, 4])
    y, x = np.mgrid[:_PATTERN, :_PATTERN] / (_PATTERN - 1.0)
    angle = rng.uniform(0, 2 * np.pi)
    along = ((x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle) + 0.5)[..., None]
    near, far = (np.array(colour) for colour in scene.background)
    picture = near + (far - near) * along
    mean = picture.mean((0, 1))
    for _ in range(scene.shapes):
        centre, extent = rng.uniform(-0.1, 1.1, 2), rng.uniform(0.05, 0.5, 2)
        inside = (np.abs(x - centre[0]) < extent[0] / 2) & (np.abs(y - centre[1]) < extent[1] / 2)
        picture[inside] = 0.6 * rng.uniform(0.02, 0.7) * np.exp(0.3 * rng.standard_normal(3)) + 0.4 * mean
    picture = gaussian_filter(picture.clip(0.01, 1), (scene.blur, scene.blur, 0), mode="nearest")
    return zoom(picture, (size / _PATTERN, size / _PATTERN, 1), order=1).astype(np.float32)


def sensor(image: NDArray[np.uint8], scene: Scene, frame: int) -> NDArray[np.uint8]:
    """A picture [H, W, 3] with the noise of the frame of that number."""
    if not scene.noise:
        return image
    rng = np.random.default_rng([scene.seed, 5, frame])
    noise = scene.noise * rng.standard_normal(image.shape, np.float32)
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)
