"""What a person's surfaces look like: textures in linear light, built once per person."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom
from scipy.spatial import cKDTree

from remime.heads.assets import CANVAS, Floats, Kit
from remime.heads.identity import Identity
from remime.heads.parameters import Colour
from remime.heads.raster import Atlas, atlas
from remime.heads.shape import MATERIALS, distances

BUMP = len(MATERIALS)
"""The place in the atlas of the skin's pores, as a height in each of its channels."""

GAMMA = 2.2
_LUMINANCE = np.array([0.2126, 0.7152, 0.0722], np.float32)
_SATURATION = 0.86  # the textures of skin are more colourful than photographs
_BARE = "hair-short04"  # whose hairline a shaven head has


def linear(image: NDArray[np.uint8]) -> Floats:
    """sRGB values as linear light, by its common approximation."""
    return ((image.astype(np.float32) / 255) ** GAMMA).astype(np.float32)


def _light(colours: Floats) -> Floats:
    return np.einsum("hwc,c->hw", colours, _LUMINANCE)


def _step(low: float, high: float, value: NDArray[np.floating]) -> NDArray[np.floating]:
    """0 below ``low``, 1 above ``high``, smooth between."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


class _Noise:
    """Smooth noise of unit variance on the canvas."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng([seed, 2])

    def __call__(self, coarse: int, sigma: float = 1.0) -> Floats:
        """Noise whose grains are ``coarse`` · ``sigma`` texels wide."""
        side = CANVAS // coarse
        noise = gaussian_filter(self.rng.standard_normal((side, side), np.float32), sigma, mode="wrap")
        noise /= noise.std()
        return noise if coarse == 1 else zoom(noise, coarse, order=1)


def beard_region(kit: Kit) -> Floats:
    """How much of a beard grows at each vertex of the base mesh: moustache, lower cheeks, chin, jaw."""
    vertices = kit.vertices
    eyes = np.mean([vertices[eye].mean(0) for eye in kit.eyes], 0)
    height = eyes[1] - vertices[kit.joints["neck02"]].mean(0)[1]
    below, aside = (eyes[1] - vertices[:, 1]) / height, np.abs(vertices[:, 0])
    region = _step(0.36, 0.50, below + 0.10 * _step(0.35, 0.75, aside)) * (1 - _step(1.02, 1.22, below))
    region *= _step(-0.95, -0.55, vertices[:, 2] - eyes[2])
    moustache = (below < 0.46) & (aside < 0.32)
    return np.where(moustache, region * _step(0.33, 0.42, below), region).astype(np.float32)


def scalp_region(kit: Kit, hair: str) -> Floats:
    """How much of a style's hair grows at each vertex of the base mesh: where its cards are near the head."""
    part, vertices = kit.parts[hair], kit.vertices
    eyes = np.mean([vertices[eye].mean(0) for eye in kit.eyes], 0)
    size = distances(vertices, kit.head_size)
    cards = (vertices[part.anchors] * part.weights[..., None]).sum(1) + part.offsets * size / part.size
    near = 1 - _step(0.10, 0.28, cKDTree(cards).query(vertices)[0])
    up, back = vertices[:, 1] - eyes[1], eyes[2] - vertices[:, 2]
    # Hair that hangs down lies near cheeks and shoulders without growing there.
    return (near * np.maximum(_step(0.45, 0.70, up), _step(0.95, 1.2, back) * _step(-0.9, -0.5, up))).astype(
        np.float32
    )


def _mask(kit: Kit, name: str) -> Floats:
    return gaussian_filter(kit.masks[name].astype(np.float32) / 255, 1.0)


def _blend(base: Floats, colour: Colour | NDArray[np.floating], share: NDArray[np.floating]) -> Floats:
    part = share[..., None].astype(np.float32)
    return base * (1 - part) + np.asarray(colour, np.float32) * part


def _skin(kit: Kit, identity: Identity, noise: _Noise) -> Floats:
    """The skin with its grain, and how much of a lip each texel is as alpha."""
    small = linear(kit.skins[identity.skin])
    factor = CANVAS // len(small)
    skin = np.stack([zoom(small[..., c], factor, order=3) for c in range(3)], -1).clip(0.003, 1)
    skin *= (1 + 0.03 * noise(1, 0.8) + 0.025 * noise(2, 2.0))[..., None]
    # Blood shines through unevenly: red stays, green and blue vary.
    skin *= 1 + noise(16, 1.5)[..., None] * np.array([0.015, 0.04, 0.04], np.float32)
    grey = _light(skin)[..., None]
    skin = (grey + _SATURATION * (skin - grey)) * np.array(identity.skin_gain, np.float32)
    if identity.freckles:
        spots = np.clip(1.5 * (noise(1, 1.3) - 1.9), 0, 1) * identity.freckles
        skin *= 1 - spots[..., None] * np.array([0.25, 0.45, 0.60], np.float32)
    lips = _mask(kit, "lips")
    skin *= 1 - (0.25 * lips)[..., None] * np.array([0.1, 0.5, 0.45], np.float32)
    light = _light(skin)
    relative = np.clip(light / max(float(light[lips > 0.5].mean()), 1e-3), 0.4, 1.8)
    skin = _blend(skin, np.array(identity.lip_colour, np.float32) * relative[..., None], lips * identity.lips)
    skin *= 1 - identity.blush * kit.paint(_cheeks(kit))[..., None] * np.array([0.0, 0.35, 0.30], np.float32)
    return np.concatenate([_grow(kit, identity, skin, noise), lips[..., None]], -1).astype(np.float32)


def _cheeks(kit: Kit) -> Floats:
    """Where a face blushes, at each vertex of the base mesh."""
    vertices = kit.vertices
    eyes = np.stack([vertices[eye].mean(0) for eye in kit.eyes])
    apples = eyes + np.array([[0.10, -0.38, 0.0], [-0.10, -0.38, 0.0]])
    distance = np.linalg.norm(vertices[:, None] - apples, axis=-1).min(1)
    return np.exp(-0.5 * (distance / 0.22) ** 2).astype(np.float32)


def _grow(kit: Kit, identity: Identity, skin: Floats, noise: _Noise) -> Floats:
    """Paint roots of hair: a beard of some days, and the scalp below the cards of hair."""
    roots = np.clip(0.60 + 0.15 * noise(1, 0.6) + 0.07 * noise(8, 1.0), 0, 1)
    if identity.stubble:
        beard = gaussian_filter(kit.paint(beard_region(kit)), 2.5) * (kit.masks["lips"] < 40)
        skin = _blend(
            skin,
            np.array(identity.brow_colour) * 0.9 + 0.01,
            beard * roots * min(0.80, 0.9 * identity.stubble),
        )
    scalp = gaussian_filter(kit.paint(scalp_region(kit, identity.hair or _BARE)), 3.0)
    density = 0.97 if identity.hair else 0.45 * identity.shave
    hairs = _step(0.2, 0.9, scalp) * (0.85 + 0.15 * roots) if identity.hair else scalp * roots
    return _blend(skin, np.array(identity.hair_colour) * 0.8, density * hairs)


def _opaque(colours: Floats) -> Floats:
    return np.concatenate([colours, np.ones((*colours.shape[:2], 1), np.float32)], -1)


def _iris(kit: Kit, identity: Identity) -> Floats:
    eye = linear(kit.irises[identity.iris])
    if identity.iris.startswith("brown"):
        # The brown textures are nearly orange.
        orange = np.clip(6 * (eye[..., 0] - eye[..., 1] - 0.04), 0, 1)
        eye = _blend(eye, eye[..., :1] * np.array([0.48, 0.32, 0.20], np.float32), orange)
    return _opaque(eye)


def _teeth(kit: Kit) -> Floats:
    """White teeth in their gums; the texture's molars are grey, so only its local shading counts."""
    given = linear(_texture(kit, "teeth")[..., :3])
    white = np.clip(4 * (given[..., 1] / np.maximum(given[..., 0], 1e-3) - 0.45), 0, 1)
    light = given.mean(-1)
    around = gaussian_filter(light * white, 20) / np.maximum(gaussian_filter(white, 20), 1e-2)
    relief = np.clip(gaussian_filter(light, 1) / np.maximum(around, 0.05), 0.75, 1.15)
    return _opaque(_blend(given, relief[..., None] * np.array([0.60, 0.56, 0.49], np.float32), white))


def _texture(kit: Kit, part: str) -> NDArray[np.uint8]:
    texture = kit.parts[part].texture
    if texture is None:
        raise ValueError(f"the part {part!r} has no texture")
    return texture


def _strands(texture: NDArray[np.uint8], colour: Colour) -> Floats:
    """Hair of a colour: the texture gives its alpha and how light each strand is among its neighbours."""
    light, alpha = _light(linear(texture[..., :3])), texture[..., 3].astype(np.float32) / 255
    mean = float((light * alpha).sum() / max(alpha.sum(), 1e-6))
    around = gaussian_filter(light * alpha, 14) / np.maximum(gaussian_filter(alpha, 14), 1e-3)
    strand = np.clip((light + 0.02) / (around + 0.02), 0.45, 1.6) * np.clip(
        around / max(mean, 1e-4), 0.6, 1.25
    )
    return np.concatenate([strand[..., None] * np.array(colour, np.float32), alpha[..., None]], -1)


def _flat(texture: NDArray[np.uint8], colour: Colour) -> Floats:
    alpha = texture[..., 3:].astype(np.float32) / 255
    return np.concatenate([np.broadcast_to(np.array(colour, np.float32), (*alpha.shape[:2], 3)), alpha], -1)


_LASH: Colour = (0.012, 0.010, 0.009)
_NONE = np.zeros((2, 2, 4), np.float32)


def textures(kit: Kit, identity: Identity) -> Atlas:
    """The textures of all ``MATERIALS`` in their order, and after them the bumps of the skin."""
    noise = _Noise(identity.seed)
    clothes = linear(_texture(kit, identity.clothes)[..., :3]) * np.array(identity.clothes_gain, np.float32)
    pores = noise(1, 0.8) + 0.8 * noise(1, 2.0)
    return atlas(
        [
            _skin(kit, identity, noise),
            _iris(kit, identity),
            _teeth(kit),
            _opaque(linear(_texture(kit, "tongue")[..., :3])),
            _opaque(clothes.clip(0, 0.9)),
            _flat(_texture(kit, identity.brows), identity.brow_colour),
            _flat(_texture(kit, identity.lashes), _LASH),
            _strands(_texture(kit, identity.hair), identity.hair_colour) if identity.hair else _NONE,
            np.repeat(pores[..., None], 4, -1),
        ]
    )
