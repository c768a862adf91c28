"""Light on surfaces.

Skin scatters light (a wrapped diffuse term, wider for red, as light that entered the skin comes out
elsewhere) and has a Blinn–Phong lobe with Schlick's Fresnel factor; hair has Kajiya and Kay's lobes along
its strands; shadows are soft by averaging comparisons with the shadow map; light from all around is dimmed
by what stands near a point on the screen.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from remime.heads.raster import FAR
from remime.heads.shape import EYES, SKIN

# Red, green and blue light wraps around edges by so much, per material; skin first.
_WRAP = np.array(
    [[0.36, 0.18, 0.12], [0.30, 0.25, 0.25], [0.40, 0.35, 0.30], [0.40, 0.20, 0.20], [0.05, 0.05, 0.05]],
    np.float64,
)
_TAPS = 10  # points around a point, from which its openness is judged


@njit(nogil=True)
def lit_share(nearest, x, y, height, bias, reach):
    """How much of a distant light arrives, in [0, 1], by 3 × 3 comparisons with its map.

    Args:
        nearest: [M, M] how near to the light the nearest surface is, see ``draw_shadow``.
        x, y, height: the point in the map, in texels right and down, and how far towards the light.
        bias: how much nearer than the point is no shadow yet, in decimetres.
        reach: texels between the comparisons.
    """
    side, total = nearest.shape[0], 0.0
    for dy in range(-1, 2):
        for dx in range(-1, 2):
            column, row = int(np.floor(x + dx * reach)), int(np.floor(y + dy * reach))
            if column < 0 or row < 0 or column >= side or row >= side:
                total += 1.0
            else:
                above = nearest[row, column] - height - bias
                total += 1.0 if above <= 0.0 else max(0.0, 1.0 - 10.0 * above)
    return total / 9.0


@njit(nogil=True)
def openness(depth, view, column, row, point, normal):
    """How much of the surroundings a point sees, in (0, 1], from the depths around it on the screen.

    Args:
        depth: [S, S] of the opaque surfaces.
        view: [6] focal length and centre in samples; x, y, z of the camera.
        column, row: the sample that shows the point.
        point, normal: x, y, z.
    """
    px, py, pz = point
    nx, ny, nz = normal
    side, scale, hidden = depth.shape[0], view[0] / depth[row, column], 0.0
    turn = ((column * 7 + row * 13) % 17) * 0.37
    for tap in range(_TAPS):
        angle = tap * 2.399963 + turn  # the golden angle
        reach = (0.05 + 0.30 * ((tap + 0.5) / _TAPS) ** 1.3) * scale
        x, y = int(column + np.cos(angle) * reach), int(row + np.sin(angle) * reach)
        if x < 0 or y < 0 or x >= side or y >= side or depth[y, x] >= FAR:
            continue
        far = depth[y, x]
        dx = (x + 0.5 - view[1]) * far / view[0] + view[3] - px
        dy = view[4] - (y + 0.5 - view[2]) * far / view[0] - py
        dz = view[5] - far - pz
        above = nx * dx + ny * dy + nz * dz
        if above > 0.012:
            square = dx * dx + dy * dy + dz * dz
            hidden += (above - 0.012) / np.sqrt(square + 1e-5) * max(0.0, 1.0 - 2.5 * square)
    seen = max(0.12, 1.0 - 1.7 * hidden / _TAPS)
    return 0.5 * seen * seen + 0.5 * seen


@njit(nogil=True)
def mix(values, i, j, k, a, b, c):
    """A vector of the corners' values, interpolated."""
    return (
        a * values[i, 0] + b * values[j, 0] + c * values[k, 0],
        a * values[i, 1] + b * values[j, 1] + c * values[k, 1],
        a * values[i, 2] + b * values[j, 2] + c * values[k, 2],
    )


@njit(nogil=True)
def unit(x, y, z):
    """A vector of length 1 in this direction."""
    length = np.sqrt(x * x + y * y + z * z) + 1e-9
    return x / length, y / length, z / length


@njit(nogil=True)
def surface(colour, normal, eye, lights, ambient, lit, seen, kind, gloss, sharp):
    """Light that a surface sends to the camera: linear red, green, blue.

    Args:
        colour: how much of each channel it throws back.
        normal, eye: unit vectors; where it faces, and towards the camera.
        lights: [L, 6] direction and colour; the first one casts shadows.
        ambient: [2, 3] light from above and from below.
        lit: how much of the first light arrives.
        seen: how much of the surroundings it sees.
        kind: number of its material, up to ``CLOTHES``.
        gloss, sharp: strength and exponent of its highlight.
    """
    r, g, b = colour
    nx, ny, nz = normal
    vx, vy, vz = eye
    up = 0.5 + 0.5 * ny
    around = seen**0.75 if kind == SKIN else seen
    ar = ambient[0, 0] * up + ambient[1, 0] * (1.0 - up)
    ag = ambient[0, 1] * up + ambient[1, 1] * (1.0 - up)
    ab = ambient[0, 2] * up + ambient[1, 2] * (1.0 - up)
    red, green, blue = r * ar * around, g * ag * seen, b * ab * seen
    wr, wg, wb = _WRAP[kind, 0], _WRAP[kind, 1], _WRAP[kind, 2]
    for n in range(lights.shape[0]):
        lx, ly, lz = lights[n, 0], lights[n, 1], lights[n, 2]
        facing = nx * lx + ny * ly + nz * lz
        shadow = lit if n == 0 else 1.0
        soft = shadow**0.7 if kind == SKIN and n == 0 else shadow
        dim = 0.55 + 0.45 * seen
        dr, dg, db = (
            max(0.0, facing + wr) / (1.0 + wr),
            max(0.0, facing + wg) / (1.0 + wg),
            max(0.0, facing + wb) / (1.0 + wb),
        )
        red += r * lights[n, 3] * dim * soft * dr * (0.65 + 0.35 * dr)
        green += g * lights[n, 4] * dim * shadow * dg * (0.65 + 0.35 * dg)
        blue += b * lights[n, 5] * dim * shadow * db * (0.65 + 0.35 * db)
        if facing > 0.0:
            hx, hy, hz = unit(lx + vx, ly + vy, lz + vz)
            lobe = max(0.0, nx * hx + ny * hy + nz * hz) ** sharp
            fresnel = 0.04 + 0.96 * (1.0 - max(0.0, vx * hx + vy * hy + vz * hz)) ** 5
            shine = gloss * fresnel * (sharp + 8.0) / 8.0 * lobe * min(1.0, 3.0 * facing) * shadow * seen
            red += lights[n, 3] * shine
            green += lights[n, 4] * shine
            blue += lights[n, 5] * shine
    if kind in (SKIN, EYES):
        # At grazing angles skin mirrors what is around; eyes mirror the sky.
        edge = (
            0.10 * (1.0 - max(0.0, nx * vx + ny * vy + nz * vz)) ** 4 if kind == SKIN else 0.06 * max(0.0, ny)
        )
        red, green, blue = red + ar * edge * seen, green + ag * edge * seen, blue + ab * edge * seen
    return red, green, blue


@njit(nogil=True)
def strand(colour, normal, outward, eye, lights, ambient, lit, dim):
    """Light that hair sends to the camera: linear red, green, blue. Strands run down the head.

    Args:
        colour, normal, eye, lights, ambient, lit: as for ``surface``.
        outward: unit vector from the middle of the head.
        dim: how much of the light from all around arrives.
    """
    r, g, b = colour
    vx, vy, vz = eye
    side = 1.0 if normal[0] * outward[0] + normal[1] * outward[1] + normal[2] * outward[2] > 0.0 else -1.0
    # Cards are flat; the head below them is round.
    nx, ny, nz = unit(
        0.4 * side * normal[0] + 0.6 * outward[0],
        0.4 * side * normal[1] + 0.6 * outward[1],
        0.4 * side * normal[2] + 0.6 * outward[2],
    )
    tx, ty, tz = unit(nx * ny, ny * ny - 1.0, nz * ny)
    up = 0.5 + 0.5 * ny
    red = r * dim * (ambient[0, 0] * up + ambient[1, 0] * (1.0 - up))
    green = g * dim * (ambient[0, 1] * up + ambient[1, 1] * (1.0 - up))
    blue = b * dim * (ambient[0, 2] * up + ambient[1, 2] * (1.0 - up))
    for n in range(lights.shape[0]):
        lx, ly, lz = lights[n, 0], lights[n, 1], lights[n, 2]
        facing = nx * lx + ny * ly + nz * lz
        shadow = lit if n == 0 else 1.0
        diffuse = max(0.0, (facing + 0.25) / 1.25) * shadow
        hx, hy, hz = unit(lx + vx, ly + vy, lz + vz)
        along = tx * hx + ty * hy + tz * hz
        across = np.sqrt(max(0.0, 1.0 - along * along))
        front = min(1.0, max(0.0, 2.0 * facing + 0.3)) * shadow
        white, tinted = 0.012 * front * across**60, 0.25 * front * across**14
        red += lights[n, 3] * (r * (diffuse + tinted) + white)
        green += lights[n, 4] * (g * (diffuse + tinted) + white)
        blue += lights[n, 5] * (b * (diffuse + tinted) + white)
    return red, green, blue


@njit(nogil=True)
def tone(value, exposure):
    """Linear light as it is shown, in [0, 1]: bright light is compressed. The display's gamma comes after."""
    value = min(8.0, max(0.0, value * exposure))
    return min(1.0, value * (1.0 + value / 16.0) / (1.0 + 0.38 * value))
