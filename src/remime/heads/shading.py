"""From samples to pixels: what each sample shows, and a picture with its labels.

Inner kernels are given arrays, not tuples of arrays: taking one out of a tuple counts a reference, which per
sample would take longer than the light. They are compiled by every process: numba's cache would not notice a
change of what they take from other modules.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from remime.heads.assets import CANVAS
from remime.heads.lighting import lit_share, mix, openness, strand, surface, tone, unit
from remime.heads.raster import alpha_at, texel
from remime.heads.shape import BROWS, CLOTHES, EYES, HAIR, LASHES, SKIN, TEETH, TONGUE
from remime.heads.textures import BUMP

LABELS = ("background", "skin", "hair", "brows", "lashes", "eyes", "teeth", "tongue", "lips", "clothes")
"""What a pixel shows; the numbers of a label map."""

_LIPS = LABELS.index("lips")
_LABEL_OF = np.array(
    [LABELS.index(n) for n in ("skin", "eyes", "teeth", "tongue", "clothes", "brows", "lashes", "hair")],
    np.int64,
)
# Strength and sharpness of highlights, per material; skin first.
_GLOSS = np.array([[0.30, 22.0], [1.2, 350.0], [0.30, 60.0], [0.40, 30.0], [0.02, 8.0]], np.float64)
# How fast it gets dark in the mouth, per decimetre behind the front teeth, and where that starts: of teeth
# and of the tongue.
_MOUTH = np.array([[1.7, 0.05], [2.4, 0.08]], np.float64)
# Alphas of cards are of single hairs; several lie behind each other. Of brows, lashes, hair: what the
# alphas are multiplied with, and the most that they may then be.
_DENSE = np.array([1.7, 0.9, 1.3], np.float64)
_OPAQUE = np.array([0.92, 0.95, 1.0], np.float64)


class Mesh(NamedTuple):
    """Triangles in one frame.

    Args:
        points, normals: [V, 3] vertices.
        shadowed: [V, 3] vertices in the shadow map, see ``draw_shadow``.
        triangles: [F, 3].
        uv: [F, 3, 2] texture coordinates of corners.
        material: [F] numbers of ``MATERIALS``.
        texels, places: the atlas of textures.
        anatomy: [5, 3] centres of both eyeballs and of the hair; the front of the teeth, and where they face.
    """

    points: NDArray[np.float32]
    normals: NDArray[np.float32]
    shadowed: NDArray[np.float32]
    triangles: NDArray[np.int32]
    uv: NDArray[np.float32]
    material: NDArray[np.int8]
    texels: NDArray[np.float32]
    places: NDArray[np.int64]
    anatomy: NDArray[np.float64]


class Setting(NamedTuple):
    """What the mesh is seen by.

    Args:
        lens: [6] focal length and centre in samples; x, y, z of the camera.
        lights: [L, 6] direction and colour; the first one casts shadows.
        ambient: [2, 3] light from above and from below.
        nearest: [M, M] the shadow map.
        background: [S, S, 3] per pixel.
        gloss: of skin.
        exposure: factor on all light.
    """

    lens: NDArray[np.float64]
    lights: NDArray[np.float64]
    ambient: NDArray[np.float64]
    nearest: NDArray[np.float32]
    background: NDArray[np.float32]
    gloss: float
    exposure: float


@njit(nogil=True)
def _place(points, normals, shadowed, triangles, uv, t, second, third):
    """A point of a triangle: its place, that in the shadow map, its normal, its texture coordinates."""
    first = 1.0 - second - third
    i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
    x, y, z = mix(normals, i, j, k, first, second, third)
    u = first * uv[t, 0, 0] + second * uv[t, 1, 0] + third * uv[t, 2, 0]
    v = first * uv[t, 0, 1] + second * uv[t, 1, 1] + third * uv[t, 2, 1]
    point = mix(points, i, j, k, first, second, third)
    return point, mix(shadowed, i, j, k, first, second, third), unit(x, y, z), u, v


@njit(nogil=True)
def _toward_camera(lens, point):
    return unit(lens[3] - point[0], lens[4] - point[1], lens[5] - point[2])


@njit(nogil=True)
def _pores(texels, places, normal, u, v):
    """A normal of the skin, tilted by its bumps."""
    near = 1.0 / CANVAS
    across = alpha_at(texels, places, BUMP, u + near, v) - alpha_at(texels, places, BUMP, u - near, v)
    along = alpha_at(texels, places, BUMP, u, v + near) - alpha_at(texels, places, BUMP, u, v - near)
    return unit(normal[0] + 0.010 * across, normal[1] + 0.010 * along, normal[2])


@njit(nogil=True)
def _eyeball_normal(anatomy, point):
    """Of the sphere that the eyeball is; its mesh is coarse, and highlights are small."""
    side = 0 if abs(point[0] - anatomy[0, 0]) < abs(point[0] - anatomy[1, 0]) else 1
    return unit(point[0] - anatomy[side, 0], point[1] - anatomy[side, 1], point[2] - anatomy[side, 2])


@njit(nogil=True)
def _mouth_light(anatomy, point, kind):
    """How much light reaches teeth and tongue, by how far behind the front teeth they are."""
    behind = (
        (anatomy[3, 0] - point[0]) * anatomy[4, 0]
        + (anatomy[3, 1] - point[1]) * anatomy[4, 1]
        + (anatomy[3, 2] - point[2]) * anatomy[4, 2]
    )
    return np.exp(-_MOUTH[kind - TEETH, 0] * max(0.0, behind - _MOUTH[kind - TEETH, 1]))


@njit(nogil=True)
def _solid(kind, place, seen, texels, places, anatomy, lens, lights, ambient, nearest, skin_gloss):
    """The colour of an opaque surface at a place, and its label."""
    point, (across, down, height), normal, u, v = place
    label = _LABEL_OF[kind]
    r, g, b, lips = texel(texels, places, kind, u, v)
    lit = lit_share(nearest, across, down, height, 0.05, 1.2)
    eye = _toward_camera(lens, point)
    gloss, sharp = _GLOSS[kind, 0], _GLOSS[kind, 1]
    if kind == SKIN:
        if lips > 0.5:
            label = _LIPS
        normal = _pores(texels, places, normal, u, v)
        gloss, sharp = skin_gloss * (gloss + 0.25 * lips), sharp + 30.0 * lips
    elif kind == EYES:
        normal = _eyeball_normal(anatomy, point)
        r, g, b, seen = 0.70 * r, 0.68 * g, 0.68 * b, 0.25 + 0.75 * seen
    elif kind in (TEETH, TONGUE):
        light = _mouth_light(anatomy, point, kind)
        lit, gloss = 0.2 + 0.8 * lit, light * gloss
        if kind == TEETH:
            r, g, b, seen = light * r, light * g, light * b, 0.4 + 0.6 * seen
        else:
            r, g, b = 0.8 * light * r, 0.6 * light * g, 0.6 * light * b
    elif kind == CLOTHES and normal[0] * eye[0] + normal[1] * eye[1] + normal[2] * eye[2] < 0.0:
        normal = (-normal[0], -normal[1], -normal[2])  # the inside of a collar
    return surface((r, g, b), normal, eye, lights, ambient, lit, seen, kind, gloss, sharp), label


@njit(nogil=True)
def _card(kind, place, texels, places, anatomy, lens, lights, ambient, nearest):
    """The colour of brows, lashes or hair at a place."""
    point, (across, down, height), normal, u, v = place
    r, g, b, _ = texel(texels, places, kind, u, v)
    if kind == LASHES:
        return r, g, b
    lit = 0.5 + 0.5 * lit_share(nearest, across, down, height, 0.35, 3.0) if kind == HAIR else 1.0
    outward = unit(point[0] - anatomy[2, 0], point[1] - anatomy[2, 1], point[2] - anatomy[2, 2])
    return strand((r, g, b), normal, outward, _toward_camera(lens, point), lights, ambient, lit, 0.78)


@njit(nogil=True)
def shade(mesh, setting, coverage, layers, image, labels):
    """Turn samples into pixels.

    Args:
        mesh: a ``Mesh``.
        setting: a ``Setting``.
        coverage, layers: what is where, see ``remime.heads.raster``.
        image: [S, S, 3], written: linear light after the tone curve.
        labels: [S, S], written: numbers of ``LABELS``, of most samples of a pixel.
    """
    points, normals, shadowed, triangles, uv, material, texels, places, anatomy = mesh
    lens, lights, ambient, nearest, background, gloss, exposure = setting
    depth, front, front_shares = coverage
    filled, _, behind, alphas, behind_shares = layers
    size = image.shape[0]
    per = depth.shape[0] // size
    votes = np.zeros(len(LABELS), np.int64)
    for y in range(size):
        for x in range(size):
            red, green, blue, seen = 0.0, 0.0, 0.0, -1.0
            votes[:] = 0
            for sample in range(per * per):
                row, column = y * per + sample // per, x * per + sample % per
                r, g, b = background[y, x, 0], background[y, x, 1], background[y, x, 2]
                label = 0
                t = front[row, column]
                if t >= 0:
                    second, third = front_shares[row, column, 0], front_shares[row, column, 1]
                    place = _place(points, normals, shadowed, triangles, uv, t, second, third)
                    if seen < 0.0:
                        # It changes slowly: once per pixel.
                        seen = openness(depth, lens, column, row, place[0], place[2])
                    (r, g, b), label = _solid(
                        material[t],
                        place,
                        seen,
                        texels,
                        places,
                        anatomy,
                        lens,
                        lights,
                        ambient,
                        nearest,
                        gloss,
                    )
                for n in range(filled[row, column] - 1, -1, -1):
                    t = behind[row, column, n]
                    kind = material[t]
                    alpha = min(_OPAQUE[kind - BROWS], alphas[row, column, n] * _DENSE[kind - BROWS])
                    second, third = behind_shares[row, column, n, 0], behind_shares[row, column, n, 1]
                    place = _place(points, normals, shadowed, triangles, uv, t, second, third)
                    above = _card(kind, place, texels, places, anatomy, lens, lights, ambient, nearest)
                    r, g, b = (
                        r + alpha * (above[0] - r),
                        g + alpha * (above[1] - g),
                        b + alpha * (above[2] - b),
                    )
                    if alpha > 0.5:
                        label = _LABEL_OF[kind]
                votes[label] += 1
                red, green, blue = (
                    red + tone(r, exposure),
                    green + tone(g, exposure),
                    blue + tone(b, exposure),
                )
            share = 1.0 / (per * per)
            image[y, x, 0], image[y, x, 1], image[y, x, 2] = red * share, green * share, blue * share
            labels[y, x] = np.argmax(votes)
