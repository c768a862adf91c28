"""Pictures of heads with their labels and landmarks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from remime.heads.assets import Floats, Kit
from remime.heads.identity import Identity
from remime.heads.landmarks import landmark_vertices
from remime.heads.lids import calibrate
from remime.heads.raster import (
    FAR,
    draw,
    draw_layers,
    draw_shadow,
    empty_coverage,
    empty_layers,
    vertex_normals,
)
from remime.heads.scene import Scene, backdrop
from remime.heads.shading import LABELS, Mesh, Setting, shade
from remime.heads.shape import BROWS, LASHES, MATERIALS, Pose, Shape, rotated
from remime.heads.textures import GAMMA, textures

SAMPLES = 2
"""Samples per pixel along each axis."""

_LAYERS = 8
_SHADOW, _SHADOW_SPAN = 320, 5.2  # texels, decimetres
_HAIR = np.array([0.0, 0.35, -1.0], np.float32)  # about the middle of the head
# Brows and lashes lie on the skin: drawn this much nearer than they are, in decimetres.
_LIFT = np.zeros(len(MATERIALS), np.float64)
_LIFT[[BROWS, LASHES]] = 0.012, 0.02
# From which alpha on a material casts a shadow.
_CASTS = np.zeros(len(MATERIALS), np.float64)
_CASTS[BROWS:] = 2.0, 2.0, 0.5
_BEHIND = 0.06  # decimetres behind the surface, from which a landmark counts as hidden


class Figure:
    """What is built once per person: the mesh with calibrated lids, and the textures.

    Args:
        kit: the assets.
        identity: the person.
    """

    def __init__(self, kit: Kit, identity: Identity) -> None:
        self.kit, self.identity = kit, identity
        self.shape = Shape(kit, identity)
        calibrate(self.shape)
        self.textures = textures(kit, identity)
        self.landmarks = landmark_vertices(kit)


@dataclass(frozen=True)
class Rendered:
    """A picture and its truth.

    Args:
        image: [S, S, 3] uint8 sRGB, without the scene's noise.
        labels: [S, S] uint8, numbers of ``remime.heads.shading.LABELS``.
        landmarks: [68, 2] float32 in pixels, x right, y down, pixel centres at integers.
        visible: [68] which of them lie in the picture and behind nothing opaque; hair hides none.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    landmarks: Floats
    visible: NDArray[np.bool_]


@dataclass(frozen=True)
class Camera:
    """A pinhole camera that looks along -z.

    Args:
        focal: in samples.
        middle: of the picture, in samples.
        position: [3] in decimetres.
    """

    focal: float
    middle: float
    position: tuple[float, float, float]

    @classmethod
    def of(cls, scene: Scene, side: int) -> Camera:
        """The scene's camera for pictures of ``side`` × ``side`` samples."""
        right, down = scene.shift
        return cls(side / scene.span * scene.distance, side / 2, (right, -down, scene.distance))

    def in_pixels(self) -> NDArray[np.float64]:
        """The same in pixels, whose centres are at integers."""
        focal, middle = self.focal / SAMPLES, self.middle / SAMPLES - 0.5
        return np.array([focal, middle, middle, *self.position])

    def project(self, vertices: Floats) -> Floats:
        """Vertices [V, 3] as samples right and down, with edges at integers, and the distance."""
        away = self.position[2] - vertices[:, 2]
        points = np.empty_like(vertices)
        points[:, 0] = self.middle + self.focal * (vertices[:, 0] - self.position[0]) / away
        points[:, 1] = self.middle - self.focal * (vertices[:, 1] - self.position[1]) / away
        points[:, 2] = away
        return points

    def array(self) -> NDArray[np.float64]:
        """Focal length, centre right and down, position: as ``shade`` wants it, in samples."""
        return np.array([self.focal, self.middle, self.middle, *self.position])


@lru_cache(maxsize=4)
def _backdrop(scene: Scene, size: int) -> Floats:
    return backdrop(scene, size)


def _toward(light: NDArray[np.float64], vertices: Floats, centre: Floats) -> Floats:
    """Vertices in the shadow map of a light: texels right and down, and the height towards it."""
    right = np.cross([0.0, 1.0, 0.0], light)
    right /= np.linalg.norm(right)
    axes = np.stack([right, np.cross(light, right), light])
    seen = rotated(vertices - centre, axes.astype(np.float32))
    seen[:, :2] = seen[:, :2] * (_SHADOW / _SHADOW_SPAN) + _SHADOW / 2
    return seen


class Renderer:
    """Renders pictures of one size, with buffers that it keeps.

    Args:
        size: width and height in pixels.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        side = size * SAMPLES
        self._coverage, self._layers = empty_coverage(side), empty_layers(side, _LAYERS)
        self._nearest = np.empty((_SHADOW, _SHADOW), np.float32)
        self._image = np.empty((size, size, 3), np.float32)
        self._labels = np.empty((size, size), np.uint8)

    def render(self, figure: Figure, pose: Pose, scene: Scene) -> Rendered:
        """One frame; the same bytes for the same arguments."""
        shape = figure.shape
        vertices = shape.posed(pose)
        normals = vertex_normals(vertices, shape.triangles)
        camera = Camera.of(scene, self.size * SAMPLES)
        points = camera.project(vertices)
        self._draw(figure, points)
        turn, shift = shape.head_move(pose)
        centre = turn @ _HAIR + shift
        lights = np.array([[*light.direction, *light.colour] for light in scene.lights])
        mesh = Mesh(
            vertices,
            normals,
            _toward(lights[0, :3], vertices, centre),
            shape.triangles,
            shape.uv,
            shape.material,
            *figure.textures,
            _anatomy(shape, vertices, turn, shift, centre),
        )
        self._nearest.fill(-FAR)
        draw_shadow(
            mesh.shadowed, mesh.triangles, mesh.uv, mesh.material, _CASTS, self._nearest, *figure.textures
        )
        setting = Setting(
            camera.array(),
            lights,
            np.array([scene.sky, scene.ground]),
            self._nearest,
            _backdrop(scene, self.size),
            scene.gloss,
            scene.exposure,
        )
        shade(mesh, setting, self._coverage, self._layers, self._image, self._labels)
        image = np.rint(255 * self._image.clip(0, 1) ** (1 / GAMMA)).astype(np.uint8)
        places = points[figure.landmarks]
        landmarks = (places[:, :2] / SAMPLES - 0.5).astype(np.float32)
        return Rendered(image, self._labels.copy(), landmarks, self._unhidden(places))

    def _draw(self, figure: Figure, points: Floats) -> None:
        shape, (depth, triangle, shares) = figure.shape, self._coverage
        depth.fill(FAR)
        triangle.fill(-1)
        self._layers.filled.fill(0)
        # Bodies are closed; of clothes the inside can be seen.
        draw(points, shape.triangles, 0, shape.closed, True, depth, triangle, shares)
        draw(points, shape.triangles, shape.closed, shape.opaque, False, depth, triangle, shares)
        mesh = (shape.triangles, shape.uv, shape.material)
        draw_layers(points, *mesh, _LIFT, shape.opaque, depth, self._layers, *figure.textures)

    def _unhidden(self, places: Floats) -> NDArray[np.bool_]:
        """Which projected points lie in the picture and on the nearest surface."""
        last = self._coverage.depth.shape[0] - 1
        columns, rows = np.floor(places[:, :2]).astype(int).T
        inside = (columns >= 0) & (rows >= 0) & (columns <= last) & (rows <= last)
        depth = self._coverage.depth[rows.clip(0, last), columns.clip(0, last)]
        return inside & (places[:, 2] < depth + _BEHIND)


def _anatomy(
    shape: Shape, vertices: Floats, turn: Floats, shift: Floats, centre: Floats
) -> NDArray[np.float64]:
    """Both eyes, the head's middle, the front of the teeth and where they face: ``Mesh.anatomy``."""
    fitted = shape.parts["teeth"]
    teeth, ahead = vertices[fitted.start : fitted.end], turn[:, 2]
    front = teeth.mean(0) + ahead * np.einsum("ni,i->n", teeth - teeth.mean(0), ahead).max()
    return np.stack([*(rotated(shape.eyes, turn) + shift), centre, front, ahead]).astype(np.float64)


__all__ = ["LABELS", "SAMPLES", "Camera", "Figure", "Rendered", "Renderer"]
