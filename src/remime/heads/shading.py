"""How lit surfaces look: one kernel that turns samples into a picture and its labels.

Skin scatters light (a wrapped diffuse term, wider for red, as light that entered the skin comes out
elsewhere) and has a Blinn–Phong lobe with Schlick's Fresnel factor; hair has Kajiya and Kay's lobes along
its strands; shadows are soft by averaging comparisons with the shadow map; light from all around is dimmed
by what stands near a point on the screen.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from remime.heads.assets import CANVAS
from remime.heads.raster import FAR, texel
from remime.heads.shape import BROWS, CLOTHES, EYES, HAIR, LASHES, SKIN, TEETH, TONGUE
from remime.heads.textures import BUMP

LABELS = ("background", "skin", "hair", "brows", "lashes", "eyes", "teeth", "tongue", "lips", "clothes")
"""What a pixel shows; the numbers of a label map."""

_LIPS = LABELS.index("lips")
_LABEL_OF = np.array(
    [LABELS.index(n) for n in ("skin", "eyes", "teeth", "tongue", "clothes", "brows", "lashes", "hair")],
    np.int64,
)
# Red, green and blue light wraps around edges by so much, per material; skin first.
_WRAP = np.array(
    [[0.36, 0.18, 0.12], [0.30, 0.25, 0.25], [0.40, 0.35, 0.30], [0.40, 0.20, 0.20], [0.05, 0.05, 0.05]],
    np.float64,
)
# Strength and sharpness of highlights.
_GLOSS = np.array([[0.30, 22.0], [1.2, 350.0], [0.30, 60.0], [0.40, 30.0], [0.02, 8.0]], np.float64)
# How fast it gets dark in the mouth, per decimetre behind the front teeth, and where that starts.
_MOUTH = np.array([[1.7, 0.05], [2.4, 0.08]], np.float64)
# Alphas of cards are of single hairs; several lie behind each other.
_DENSE = np.array([1.7, 0.9, 1.3], np.float64)
_OPAQUE = np.array([0.92, 0.95, 1.0], np.float64)
_TAPS = 10


@njit(cache=True, nogil=True)
def _lit(nearest, x, y, height, bias, reach):
    """How much of a distant light arrives, by 3 × 3 comparisons with its map."""
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


@njit(cache=True, nogil=True)
def _open(depth, view, column, row, px, py, pz, nx, ny, nz):
    """How much of the surroundings a point sees, from the depths around it on the screen."""
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


@njit(cache=True, nogil=True)
def _mix(values, i, j, k, a, b, c):
    """A vector of the corners' values, interpolated."""
    return (
        a * values[i, 0] + b * values[j, 0] + c * values[k, 0],
        a * values[i, 1] + b * values[j, 1] + c * values[k, 1],
        a * values[i, 2] + b * values[j, 2] + c * values[k, 2],
    )


@njit(cache=True, nogil=True)
def _unit(x, y, z):
    length = np.sqrt(x * x + y * y + z * z) + 1e-9
    return x / length, y / length, z / length


@njit(cache=True, nogil=True)
def _surface(colour, normal, eye, lights, ambient, lit, seen, kind, gloss, sharp):
    """Light that a surface sends to the camera, per channel."""
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
        soft = shadow**0.7 if kind == SKIN else shadow
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
            hx, hy, hz = _unit(lx + vx, ly + vy, lz + vz)
            lobe = max(0.0, nx * hx + ny * hy + nz * hz) ** sharp
            fresnel = 0.04 + 0.96 * (1.0 - max(0.0, vx * hx + vy * hy + vz * hz)) ** 5
            shine = gloss * fresnel * (sharp + 8.0) / 8.0 * lobe * min(1.0, 3.0 * facing) * shadow * seen
            red += lights[n, 3] * shine
            green += lights[n, 4] * shine
            blue += lights[n, 5] * shine
    if kind == SKIN or kind == EYES:
        # At grazing angles skin mirrors what is around; eyes mirror the sky.
        edge = (
            0.10 * (1.0 - max(0.0, nx * vx + ny * vy + nz * vz)) ** 4 if kind == SKIN else 0.06 * max(0.0, ny)
        )
        red, green, blue = red + ar * edge * seen, green + ag * edge * seen, blue + ab * edge * seen
    return red, green, blue


@njit(cache=True, nogil=True)
def _strand(colour, normal, outward, eye, lights, ambient, lit, dim):
    """Light that hair sends to the camera, per channel; strands run down the head."""
    r, g, b = colour
    vx, vy, vz = eye
    side = 1.0 if normal[0] * outward[0] + normal[1] * outward[1] + normal[2] * outward[2] > 0.0 else -1.0
    # Cards are flat; the head below them is round.
    nx, ny, nz = _unit(
        0.4 * side * normal[0] + 0.6 * outward[0],
        0.4 * side * normal[1] + 0.6 * outward[1],
        0.4 * side * normal[2] + 0.6 * outward[2],
    )
    tx, ty, tz = _unit(nx * ny, ny * ny - 1.0, nz * ny)
    up = 0.5 + 0.5 * ny
    red = r * dim * (ambient[0, 0] * up + ambient[1, 0] * (1.0 - up))
    green = g * dim * (ambient[0, 1] * up + ambient[1, 1] * (1.0 - up))
    blue = b * dim * (ambient[0, 2] * up + ambient[1, 2] * (1.0 - up))
    for n in range(lights.shape[0]):
        lx, ly, lz = lights[n, 0], lights[n, 1], lights[n, 2]
        facing = nx * lx + ny * ly + nz * lz
        shadow = lit if n == 0 else 1.0
        diffuse = max(0.0, (facing + 0.25) / 1.25) * shadow
        hx, hy, hz = _unit(lx + vx, ly + vy, lz + vz)
        along = tx * hx + ty * hy + tz * hz
        across = np.sqrt(max(0.0, 1.0 - along * along))
        front = min(1.0, max(0.0, 2.0 * facing + 0.3)) * shadow
        white, tinted = 0.012 * front * across**60, 0.25 * front * across**14
        red += lights[n, 3] * (r * (diffuse + tinted) + white)
        green += lights[n, 4] * (g * (diffuse + tinted) + white)
        blue += lights[n, 5] * (b * (diffuse + tinted) + white)
    return red, green, blue


@njit(cache=True, nogil=True)
def _tone(value, exposure):
    """Linear light to a displayed value: bright light is compressed, then the display's gamma."""
    value = min(8.0, max(0.0, value * exposure))
    return min(1.0, value * (1.0 + value / 16.0) / (1.0 + 0.38 * value))


@njit(cache=True, nogil=True)
def shade(
    view,
    points,
    normals,
    shadowed,
    triangles,
    uv,
    material,
    coverage,
    layers,
    texels,
    places,
    lights,
    ambient,
    nearest,
    background,
    anatomy,
    gloss,
    exposure,
    image,
    labels,
):
    """Turn samples into pixels.

    Args:
        view: [6] focal length and centre in samples; x, y, z of the camera.
        points, normals: [V, 3] vertices.
        shadowed: [V, 3] vertices in the shadow map, see ``draw_shadow``.
        triangles, uv, material: the mesh, see ``Shape``.
        coverage, layers: what is where, see ``remime.heads.raster``.
        texels, places: the atlas of textures.
        lights: [L, 6] direction and colour; the first one casts shadows.
        ambient: [2, 3] light from above and from below.
        nearest: [M, M] the shadow map.
        background: [S, S, 3] per pixel.
        anatomy: [5, 3] centres of both eyeballs and of the hair; a point at the front teeth, and where they face.
        gloss: of skin.
        exposure: factor on all light.
        image: [S, S, 3], written: linear light after the tone curve.
        labels: [S, S], written: numbers of ``LABELS``.
    """
    size = image.shape[0]
    per = coverage.depth.shape[0] // size
    votes = np.zeros(len(LABELS), np.int64)
    for y in range(size):
        for x in range(size):
            red, green, blue = 0.0, 0.0, 0.0
            votes[:] = 0
            seen = -1.0
            for s in range(per * per):
                row, column = y * per + s // per, x * per + s % per
                r, g, b = background[y, x, 0], background[y, x, 1], background[y, x, 2]
                label = 0
                t = coverage.triangle[row, column]
                if t >= 0:
                    i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
                    second, third = coverage.shares[row, column, 0], coverage.shares[row, column, 1]
                    first = 1.0 - second - third
                    kind = material[t]
                    px, py, pz = _mix(points, i, j, k, first, second, third)
                    nx, ny, nz = _unit(*_mix(normals, i, j, k, first, second, third))
                    u = first * uv[t, 0, 0] + second * uv[t, 1, 0] + third * uv[t, 2, 0]
                    v = first * uv[t, 0, 1] + second * uv[t, 1, 1] + third * uv[t, 2, 1]
                    if seen < 0.0:
                        # It changes slowly: once per pixel.
                        seen = _open(coverage.depth, view, column, row, px, py, pz, nx, ny, nz)
                    qx, qy, qz = _mix(shadowed, i, j, k, first, second, third)
                    lit = _lit(nearest, qx, qy, qz, 0.05, 1.2)
                    cr, cg, cb, lips = texel(texels, places, kind, u, v)
                    strength, sharp, open_ = _GLOSS[kind, 0], _GLOSS[kind, 1], seen
                    label = _LABEL_OF[kind]
                    if kind == SKIN:
                        if lips > 0.5:
                            label = _LIPS
                        near = 1.0 / CANVAS
                        right, left = (
                            texel(texels, places, BUMP, u + near, v)[0],
                            texel(texels, places, BUMP, u - near, v)[0],
                        )
                        upper, lower = (
                            texel(texels, places, BUMP, u, v + near)[0],
                            texel(texels, places, BUMP, u, v - near)[0],
                        )
                        nx, ny, nz = _unit(nx + 0.010 * (right - left), ny + 0.010 * (upper - lower), nz)
                        strength, sharp = gloss * (strength + 0.25 * lips), sharp + 30.0 * lips
                    elif kind == EYES:
                        nearer = 0 if abs(px - anatomy[0, 0]) < abs(px - anatomy[1, 0]) else 1
                        nx, ny, nz = _unit(
                            px - anatomy[nearer, 0], py - anatomy[nearer, 1], pz - anatomy[nearer, 2]
                        )
                        open_, cr, cg, cb = 0.25 + 0.75 * seen, 0.70 * cr, 0.68 * cg, 0.68 * cb
                    elif kind == TEETH or kind == TONGUE:
                        lit = 0.2 + 0.8 * lit
                        open_ = 0.4 + 0.6 * seen if kind == TEETH else seen
                        inside = (
                            (anatomy[3, 0] - px) * anatomy[4, 0]
                            + (anatomy[3, 1] - py) * anatomy[4, 1]
                            + (anatomy[3, 2] - pz) * anatomy[4, 2]
                        )
                        rate, start = _MOUTH[kind - TEETH, 0], _MOUTH[kind - TEETH, 1]
                        dark = np.exp(-rate * max(0.0, inside - start))
                        if kind == TONGUE:
                            cr, cg, cb = 0.8 * cr, 0.6 * cg, 0.6 * cb
                        cr, cg, cb, strength = dark * cr, dark * cg, dark * cb, dark * strength
                    eye = _unit(view[3] - px, view[4] - py, view[5] - pz)
                    if kind == CLOTHES and nx * eye[0] + ny * eye[1] + nz * eye[2] < 0.0:
                        nx, ny, nz = -nx, -ny, -nz  # the inside of a collar
                    r, g, b = _surface(
                        (cr, cg, cb), (nx, ny, nz), eye, lights, ambient, lit, open_, kind, strength, sharp
                    )
                for n in range(layers.filled[row, column] - 1, -1, -1):
                    t = layers.triangle[row, column, n]
                    kind = material[t]
                    alpha = min(_OPAQUE[kind - BROWS], layers.alpha[row, column, n] * _DENSE[kind - BROWS])
                    i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
                    second, third = layers.shares[row, column, n, 0], layers.shares[row, column, n, 1]
                    first = 1.0 - second - third
                    u = first * uv[t, 0, 0] + second * uv[t, 1, 0] + third * uv[t, 2, 0]
                    v = first * uv[t, 0, 1] + second * uv[t, 1, 1] + third * uv[t, 2, 1]
                    cr, cg, cb, _ = texel(texels, places, kind, u, v)
                    if kind != LASHES:
                        px, py, pz = _mix(points, i, j, k, first, second, third)
                        normal = _unit(*_mix(normals, i, j, k, first, second, third))
                        eye = _unit(view[3] - px, view[4] - py, view[5] - pz)
                        outward = _unit(px - anatomy[2, 0], py - anatomy[2, 1], pz - anatomy[2, 2])
                        lit = 1.0
                        if kind == HAIR:
                            qx, qy, qz = _mix(shadowed, i, j, k, first, second, third)
                            lit = 0.5 + 0.5 * _lit(nearest, qx, qy, qz, 0.35, 3.0)
                        cr, cg, cb = _strand((cr, cg, cb), normal, outward, eye, lights, ambient, lit, 0.78)
                    r, g, b = (
                        r * (1.0 - alpha) + cr * alpha,
                        g * (1.0 - alpha) + cg * alpha,
                        b * (1.0 - alpha) + cb * alpha,
                    )
                    if alpha > 0.5:
                        label = _LABEL_OF[kind]
                votes[label] += 1
                red, green, blue = (
                    red + _tone(r, exposure),
                    green + _tone(g, exposure),
                    blue + _tone(b, exposure),
                )
            share = 1.0 / (per * per)
            image[y, x, 0], image[y, x, 1], image[y, x, 2] = red * share, green * share, blue * share
            labels[y, x] = np.argmax(votes)
