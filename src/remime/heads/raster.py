"""From triangles to samples: what is in front, what is see-through before it, what a light sees.

Points are [V, 3]: x to the right and y down in samples, and the distance from the camera. The sample of
column i and row j lies at (i + 0.5, j + 0.5). Kernels run on one core, without reordered arithmetic, so that
the same points always give the same samples. They take nothing from other modules, so that compiled ones can
be kept on disk: a change of this file is all that could outdate them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

FAR = 1e9
"""The depth of samples that nothing covers."""

MIN_ALPHA = 0.03
"""Less than this of a see-through surface is nothing."""


class Coverage(NamedTuple):
    """What is nearest at each sample of a square picture.

    Args:
        depth: [S, S] distance from the camera, ``FAR`` where nothing is.
        triangle: [S, S] its number, -1 where nothing is.
        shares: [S, S, 2] how much of the triangle's second and third corner is there (of the surface, not of
            its projection).
    """

    depth: NDArray[np.float32]
    triangle: NDArray[np.int32]
    shares: NDArray[np.float32]


def empty_coverage(side: int) -> Coverage:
    """The buffers of a picture of ``side`` × ``side`` samples."""
    shape = (side, side)
    return Coverage(
        np.full(shape, FAR, np.float32), np.full(shape, -1, np.int32), np.zeros((*shape, 2), np.float32)
    )


class Layers(NamedTuple):
    """See-through surfaces before the opaque ones, the nearest first.

    Args:
        filled: [S, S] how many there are at a sample.
        depth, triangle, alpha: [S, S, K].
        shares: [S, S, K, 2].
    """

    filled: NDArray[np.int8]
    depth: NDArray[np.float32]
    triangle: NDArray[np.int32]
    alpha: NDArray[np.float32]
    shares: NDArray[np.float32]


def empty_layers(side: int, most: int) -> Layers:
    """The buffers of ``most`` layers of a picture of ``side`` × ``side`` samples."""
    shape = (side, side, most)
    return Layers(
        np.zeros((side, side), np.int8),
        np.zeros(shape, np.float32),
        np.zeros(shape, np.int32),
        np.zeros(shape, np.float32),
        np.zeros((*shape, 2), np.float32),
    )


class Atlas(NamedTuple):
    """Textures of any sizes in one array, which kernels can index.

    Args:
        texels: [n, 4] linear red, green, blue and alpha.
        places: [m, 3] first texel, height and width of each texture.
    """

    texels: NDArray[np.float32]
    places: NDArray[np.int64]


def atlas(textures: list[NDArray[np.float32]]) -> Atlas:
    """Pack textures [H, W, 4] of at least 2 × 2 texels."""
    sizes = [texture.shape[0] * texture.shape[1] for texture in textures]
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    places = [(start, *texture.shape[:2]) for start, texture in zip(starts, textures, strict=True)]
    texels = np.concatenate([texture.reshape(-1, 4) for texture in textures])
    return Atlas(np.ascontiguousarray(texels, np.float32), np.array(places, np.int64))


def cover(points: NDArray[np.float32], triangles: NDArray[np.int32], side: int) -> Coverage:
    """What of the triangles is nearest at each sample, seen from both sides."""
    found = empty_coverage(side)
    draw(points, triangles, 0, len(triangles), False, found.depth, found.triangle, found.shares)
    return found


@njit(cache=True, nogil=True)
def _corners(points, triangles, t):
    """A triangle's points, one after the other."""
    i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
    return (
        (points[i, 0], points[i, 1], points[i, 2]),
        (points[j, 0], points[j, 1], points[j, 2]),
        (points[k, 0], points[k, 1], points[k, 2]),
    )


@njit(cache=True, nogil=True)
def _bounds(a, b, c, most):
    """The samples between three coordinates, clipped to the picture."""
    low, high = min(a, min(b, c)), max(a, max(b, c))
    return range(max(0, int(np.ceil(low - 0.5))), min(most, int(np.floor(high - 0.5)) + 1))


@njit(cache=True, nogil=True)
def _window(corners, side, cull):
    """Twice a triangle's area on the screen, positive when clockwise, and the rows and columns around it.

    There are no rows when nothing of it is drawn: seen from its edge or, if ``cull``, from behind.
    """
    (x0, y0, _), (x1, y1, _), (x2, y2, _) = corners
    area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
    hidden = abs(area) < 1e-9 or (cull and area > 0)
    return area, _bounds(y0, y1, y2, 0 if hidden else side), _bounds(x0, x1, x2, side)


@njit(cache=True, nogil=True)
def _shares(corners, area, row, column):
    """How much of each corner is at a sample, on the screen; negative outside the triangle."""
    (x0, y0, _), (x1, y1, _), (x2, y2, _) = corners
    dx, dy = column + 0.5 - x0, row + 0.5 - y0
    b = (dx * (y2 - y0) - (x2 - x0) * dy) / area
    c = ((x1 - x0) * dy - dx * (y1 - y0)) / area
    return 1.0 - b - c, b, c


@njit(cache=True, nogil=True)
def _surface(corners, area, row, column):
    """A triangle at a sample: its distance, and how much of the second and third corner of it is there.

    The distance is infinite outside the triangle.
    """
    (_, _, w0), (_, _, w1), (_, _, w2) = corners
    a, b, c = _shares(corners, area, row, column)
    if min(a, b, c) < 0.0:
        return np.inf, 0.0, 0.0
    # 1 / distance is linear on the screen.
    distance = 1.0 / (a / w0 + b / w1 + c / w2)
    return distance, b / w1 * distance, c / w2 * distance


@njit(cache=True, nogil=True)
def draw(points, triangles, first, last, cull, depth, triangle, shares):
    """Keep the nearest of triangles ``first`` … ``last`` - 1 at each sample.

    Args:
        cull: leave out triangles that are seen from behind (clockwise on the screen).
        depth, triangle, shares: the buffers of a ``Coverage``, updated.
    """
    for t in range(first, last):
        corners = _corners(points, triangles, t)
        area, rows, columns = _window(corners, depth.shape[0], cull)
        for row in rows:
            for column in columns:
                distance, second, third = _surface(corners, area, row, column)
                if distance < depth[row, column]:
                    depth[row, column] = distance
                    triangle[row, column] = t
                    shares[row, column, 0], shares[row, column, 1] = second, third


@njit(cache=True, nogil=True)
def _cell(places, texture, u, v):
    """Between which texels of a texture a place lies, v counted from the lower edge.

    Returns the first texel of the upper and of the lower row, and how far right and down from there.
    """
    start, height, width = places[texture, 0], places[texture, 1], places[texture, 2]
    x = min(max(u * width - 0.5, 0.0), width - 1.001)
    y = min(max((1.0 - v) * height - 0.5, 0.0), height - 1.001)
    column, row = int(x), int(y)
    upper = start + row * width + column
    return upper, upper + width, x - column, y - row


@njit(cache=True, nogil=True)
def texel(texels, places, texture, u, v):
    """Red, green, blue, alpha of a texture at a place, interpolated; v counts from the lower edge."""
    a, b, p, q = _cell(places, texture, u, v)
    wa, wb, wc, wd = (1.0 - p) * (1.0 - q), p * (1.0 - q), (1.0 - p) * q, p * q
    return (
        wa * texels[a, 0] + wb * texels[a + 1, 0] + wc * texels[b, 0] + wd * texels[b + 1, 0],
        wa * texels[a, 1] + wb * texels[a + 1, 1] + wc * texels[b, 1] + wd * texels[b + 1, 1],
        wa * texels[a, 2] + wb * texels[a + 1, 2] + wc * texels[b, 2] + wd * texels[b + 1, 2],
        wa * texels[a, 3] + wb * texels[a + 1, 3] + wc * texels[b, 3] + wd * texels[b + 1, 3],
    )


@njit(cache=True, nogil=True)
def alpha_at(texels, places, texture, u, v):
    """The alpha of a texture at a place, interpolated."""
    a, b, p, q = _cell(places, texture, u, v)
    upper = (1.0 - p) * texels[a, 3] + p * texels[a + 1, 3]
    return (1.0 - q) * upper + q * ((1.0 - p) * texels[b, 3] + p * texels[b + 1, 3])


@njit(cache=True, nogil=True)
def _alpha_of(texels, places, texture, uv, t, shares):
    """The alpha of a triangle where there is so much of each of its corners."""
    a, b, c = shares
    u = a * uv[t, 0, 0] + b * uv[t, 1, 0] + c * uv[t, 2, 0]
    v = a * uv[t, 0, 1] + b * uv[t, 1, 1] + c * uv[t, 2, 1]
    return alpha_at(texels, places, texture, u, v)


@njit(cache=True, nogil=True)
def _insert(count, depths, numbers, alphas, shares, distance, number, alpha, b, c):
    """Put a layer in its place among those of a sample; the farthest falls off. Returns the new count."""
    most = depths.shape[0]
    if count == most:
        if distance >= depths[most - 1]:
            return count
        count -= 1
    place = count
    while place > 0 and depths[place - 1] > distance:
        depths[place], numbers[place], alphas[place] = (
            depths[place - 1],
            numbers[place - 1],
            alphas[place - 1],
        )
        shares[place, 0], shares[place, 1] = shares[place - 1, 0], shares[place - 1, 1]
        place -= 1
    depths[place], numbers[place], alphas[place] = distance, number, alpha
    shares[place, 0], shares[place, 1] = b, c
    return count + 1


@njit(cache=True, nogil=True)
def draw_layers(points, triangles, uv, material, lift, first, depth, layers, texels, places):
    """Sort see-through triangles from ``first`` on into the layers before the opaque surfaces.

    Args:
        uv: [F, 3, 2] texture coordinates of corners.
        material: [F] the texture of each triangle.
        lift: [m] by how much a material is drawn nearer than it is, for cards that touch the skin.
        depth: [S, S] of the opaque surfaces.
        layers: a ``Layers``, updated.
    """
    for t in range(first, triangles.shape[0]):
        kind = material[t]
        corners = _corners(points, triangles, t)
        area, rows, columns = _window(corners, depth.shape[0], False)
        for row in rows:
            for column in columns:
                distance, second, third = _surface(corners, area, row, column)
                nearer = distance - lift[kind]
                if nearer > depth[row, column]:
                    continue
                alpha = _alpha_of(texels, places, kind, uv, t, (1.0 - second - third, second, third))
                if alpha < MIN_ALPHA:
                    continue
                layers.filled[row, column] = _insert(
                    layers.filled[row, column],
                    layers.depth[row, column],
                    layers.triangle[row, column],
                    layers.alpha[row, column],
                    layers.shares[row, column],
                    nearer,
                    t,
                    alpha,
                    second,
                    third,
                )


@njit(cache=True, nogil=True)
def draw_shadow(points, triangles, uv, material, casts, nearest, texels, places):
    """How near to a distant light the nearest surface is, at each texel of its map.

    Args:
        points: [V, 3] x, y in texels of the map, and how far towards the light.
        casts: [m] the alpha from which a material casts a shadow; above 1 it never does, 0 without a look.
        nearest: [M, M], updated.
    """
    for t in range(triangles.shape[0]):
        kind = material[t]
        if casts[kind] > 1.0:
            continue
        corners = _corners(points, triangles, t)
        (_, _, h0), (_, _, h1), (_, _, h2) = corners
        area, rows, columns = _window(corners, nearest.shape[0], False)
        for row in rows:
            for column in columns:
                screen = _shares(corners, area, row, column)
                if min(screen) < 0.0:
                    continue
                height = screen[0] * h0 + screen[1] * h1 + screen[2] * h2
                if height <= nearest[row, column]:
                    continue
                if casts[kind] > 0.0 and _alpha_of(texels, places, kind, uv, t, screen) < casts[kind]:
                    continue
                nearest[row, column] = height


@njit(cache=True, nogil=True)
def vertex_normals(points, triangles):
    """Unit normals [V, 3], the mean of adjacent triangles by their areas."""
    normals = np.zeros_like(points)
    for t in range(triangles.shape[0]):
        i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        ux, uy, uz = points[j, 0] - points[i, 0], points[j, 1] - points[i, 1], points[j, 2] - points[i, 2]
        vx, vy, vz = points[k, 0] - points[i, 0], points[k, 1] - points[i, 1], points[k, 2] - points[i, 2]
        x, y, z = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        for corner in (i, j, k):
            normals[corner, 0] += x
            normals[corner, 1] += y
            normals[corner, 2] += z
    for n in range(normals.shape[0]):
        length = np.sqrt(normals[n, 0] ** 2 + normals[n, 1] ** 2 + normals[n, 2] ** 2) + 1e-12
        normals[n] /= length
    return normals
