"""The rasteriser: a triangle worked out by hand, and a slow reference that shares no code with it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from remime.heads import raster
from remime.heads.raster import FAR, atlas, cover, draw_layers, draw_shadow, empty_layers
from tests import heads


def inside(points, triangle, side):
    """Screen shares [S, S, 3] of a triangle's corners at all samples, and where it covers them."""
    y, x = np.mgrid[:side, :side] + 0.5
    corners = np.column_stack([points[triangle][:, :2], np.ones(3)]).T.astype(float)
    shares = np.einsum("ij,jhw->ihw", np.linalg.inv(corners), np.stack([x, y, np.ones_like(x)]))
    return shares.transpose(1, 2, 0), (shares >= 0).all(0)


def reference(points, triangles, side):
    """Depth, triangle and the surface's shares [S, S, 3], by solving for each triangle everywhere."""
    depth, number = np.full((side, side), np.inf), np.full((side, side), -1)
    shares = np.zeros((side, side, 3))
    for t, triangle in enumerate(triangles):
        screen, covered = inside(points, triangle, side)
        inverse = screen / points[triangle][:, 2]
        with np.errstate(divide="ignore"):
            distance = 1 / inverse.sum(-1)
        nearer = covered & (distance < depth)
        depth[nearer], number[nearer] = distance[nearer], t
        shares[nearer] = (inverse * distance[..., None])[nearer]
    return depth, number, shares


def scene(seed, count=30, side=40):
    rng = np.random.default_rng(seed)
    points = np.column_stack([rng.uniform(-8, side + 8, (3 * count, 2)), rng.uniform(2, 9, 3 * count)])
    return points.astype(np.float32), np.arange(3 * count, dtype=np.int32).reshape(-1, 3), side


def test_a_triangle_by_hand():
    """Corners at (0, 0), (4, 0), (0, 4), at distances 1, 1, 2."""
    points = np.array([[0, 0, 1], [4, 0, 1], [0, 4, 2]], np.float32)
    found = cover(points, np.array([[0, 1, 2]], np.int32), 4)
    assert (found.triangle >= 0).astype(int).tolist() == [
        [1, 1, 1, 1],
        [1, 1, 1, 0],
        [1, 1, 0, 0],
        [1, 0, 0, 0],
    ]
    # At (1.5, 0.5) the screen shares are 1/2, 3/8, 1/8: 1 / distance = 7/8 + 1/16.
    assert found.depth[0, 1] == pytest.approx(16 / 15)
    assert found.shares[0, 1].tolist() == pytest.approx([3 / 8 * 16 / 15, 1 / 16 * 16 / 15])
    assert found.depth[3, 3] == np.float32(FAR)


@pytest.mark.parametrize("seed", range(3))
def test_cover_is_the_reference(seed):
    points, triangles, side = scene(seed)
    found = cover(points, triangles, side)
    depth, number, shares = reference(points, triangles, side)
    assert np.array_equal(found.triangle, number)
    covered = number >= 0
    assert 0.5 < covered.mean() < 1
    np.testing.assert_allclose(found.depth[covered], depth[covered], rtol=1e-5)
    np.testing.assert_allclose(found.shares[covered], shares[covered][:, 1:], atol=1e-4)


def test_only_fronts_are_drawn_when_asked():
    points = np.array([[0, 0, 1], [4, 0, 1], [0, 4, 1]], np.float32)
    for order, seen in (([0, 2, 1], True), ([0, 1, 2], False)):
        found = raster.empty_coverage(4)
        raster.draw(
            points, np.array([order], np.int32), 0, 1, True, found.depth, found.triangle, found.shares
        )
        assert (found.triangle >= 0).any() == seen


def test_layers_are_sorted_and_the_farthest_fall_off():
    points, triangles, side = scene(5, 40)
    uv = np.zeros((len(triangles), 3, 2), np.float32)
    opaque = np.full((side, side), 8.0, np.float32)
    half = atlas([np.full((2, 2, 4), 0.5, np.float32)])
    layers, most = empty_layers(side, 3), 3
    draw_layers(
        points, triangles, uv, np.zeros(len(triangles), np.int8), np.zeros(1), 0, opaque, layers, *half
    )
    expected = [[[] for _ in range(side)] for _ in range(side)]
    for t, triangle in enumerate(triangles):
        screen, covered = inside(points, triangle, side)
        distance = 1 / (screen / points[triangle][:, 2]).sum(-1)
        for row, column in zip(*np.nonzero(covered & (distance <= 8)), strict=True):
            expected[row][column].append((distance[row, column], t))
    fullest = 0
    for row in range(side):
        for column in range(side):
            wanted = sorted(expected[row][column])
            count = int(layers.filled[row, column])
            assert count == min(most, len(wanted))
            assert layers.triangle[row, column, :count].tolist() == [t for _, t in wanted[:count]]
            fullest = max(fullest, len(wanted))
    assert fullest > most
    assert set(np.unique(layers.alpha)) == {0, 0.5}


def test_layers_know_alpha_and_what_is_before_them():
    points = np.array([[0, 0, 5], [8, 0, 5], [0, 8, 5]], np.float32)
    triangles, uv = np.array([[0, 1, 2]], np.int32), np.zeros((1, 3, 2), np.float32)
    clear, dense = (atlas([np.full((2, 2, 4), value, np.float32)]) for value in (0.01, 0.7))
    for textures, depth, lift, seen in (
        (dense, 6, 0, True),
        (dense, 4.99, 0, False),
        (dense, 4.99, 0.02, True),
        (clear, 6, 0, False),
    ):
        layers = empty_layers(8, 2)
        front = np.full((8, 8), depth, np.float32)
        draw_layers(
            points, triangles, uv, np.zeros(1, np.int8), np.array([lift], float), 0, front, layers, *textures
        )
        assert layers.filled.any() == seen


def test_texels_are_interpolated():
    """As scipy does, with the texture's first row at v = 1 and centres of texels at halves."""
    rng = np.random.default_rng(0)
    textures = [rng.random((5, 7, 4)).astype(np.float32), rng.random((6, 3, 4)).astype(np.float32)]
    packed = atlas(textures)
    for number, texture in enumerate(textures):
        height, width = texture.shape[:2]
        for u, v in rng.uniform(0.2, 0.8, (20, 2)):
            place = [[(1 - v) * height - 0.5], [u * width - 0.5]]
            wanted = [map_coordinates(texture[..., c], place, order=1)[0] for c in range(4)]
            assert raster.texel(*packed, number, u, v) == pytest.approx(wanted, abs=1e-5)
            assert raster.alpha_at(*packed, number, u, v) == pytest.approx(wanted[3], abs=1e-5)
        edge = raster.texel(*packed, number, -3.0, 9.0)
        assert edge == pytest.approx(texture[0, 0].tolist(), abs=2e-2)


def test_shadows_are_cast_by_what_is_dense_and_nearest_to_the_light():
    points = np.array([[0, 0, 1], [8, 0, 1], [0, 8, 1], [0, 0, 3], [8, 0, 3], [0, 8, 3]], np.float32)
    triangles, uv = np.array([[0, 1, 2], [3, 4, 5]], np.int32), np.zeros((2, 3, 2), np.float32)
    thin = atlas([np.full((2, 2, 4), 0.4, np.float32)] * 2)
    for limit, height in ((0.0, 3), (0.3, 3), (0.5, 1), (2.0, 1)):
        nearest = np.full((8, 8), -FAR, np.float32)
        draw_shadow(points, triangles, uv, np.array([0, 1], np.int8), np.array([0.0, limit]), nearest, *thin)
        assert nearest[0, 0] == height
        assert nearest[7, 7] == np.float32(-FAR)


def test_normals_of_a_ball_point_outwards():
    vertices, triangles, _ = heads.ball(np.zeros(3), 2.0, 24, 36)
    normals = raster.vertex_normals(vertices.astype(np.float32), triangles.astype(np.int32))
    inner = (
        np.abs(vertices[:, 1]) < 1.8
    )  # the seam's and the poles' vertices have only some of their triangles
    inner &= np.abs(vertices[:, 0]) > 0.3
    np.testing.assert_allclose(normals[inner], vertices[inner] / 2, atol=0.02)
