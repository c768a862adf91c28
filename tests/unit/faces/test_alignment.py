"""The FFHQ quad, smoothing over time and the warp: geometry that must hold exactly."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remime.faces import alignment
from tests import clips

similarities = st.tuples(
    st.floats(0.2, 5), st.floats(-3.1, 3.1), st.floats(-500, 500), st.floats(-500, 500)
).map(lambda v: similarity(*v))


def similarity(scale: float, angle: float, x: float, y: float) -> np.ndarray:
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[cos, -sin, x], [sin, cos, y]])


def faces(seed: int, n: int) -> np.ndarray:
    """Landmarks of n faces that differ a little."""
    return clips.LANDMARKS + np.random.default_rng(seed).normal(0, 1.5, (n, 68, 2))


def test_quad_of_an_upright_face() -> None:
    """Worked out by hand: eyes 40 apart and level, the mouth 50 below them."""
    points = np.zeros((68, 2))
    points[36:42], points[42:48] = (100, 100), (140, 100)
    points[48], points[54] = (105, 150), (135, 150)
    # 1.8·50 = 90 beats 2·40, so half a side is 90; the centre lies a tenth of the way down to the mouth.
    assert alignment.quad(points).tolist() == [[30, 15], [30, 195], [210, 195], [210, 15]]


@settings(max_examples=50, deadline=None)
@given(similarities)
def test_quad_moves_turns_and_grows_with_the_face(transform: np.ndarray) -> None:
    points = faces(0, 3)
    moved = alignment.quad(alignment.apply(transform, points))
    np.testing.assert_allclose(moved, alignment.apply(transform, alignment.quad(points)), atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(similarities)
def test_transforms_invert_and_map_the_quad_to_the_frame(transform: np.ndarray) -> None:
    corner = alignment.apply(transform, alignment.quad(clips.LANDMARKS))
    to_frame = alignment.transform_of(corner, 256)
    edges = [[-0.5, -0.5], [-0.5, 255.5], [255.5, 255.5], [255.5, -0.5]]
    np.testing.assert_allclose(alignment.apply(to_frame, corner), edges, atol=1e-6)
    np.testing.assert_allclose(alignment.invert(alignment.invert(to_frame)), to_frame, atol=1e-8)
    back = alignment.apply(alignment.invert(to_frame), np.array(edges))
    np.testing.assert_allclose(back, corner, atol=1e-6)
    np.testing.assert_allclose(alignment.quad_of(to_frame, 256), corner, atol=1e-6)


def test_axes_and_corners_are_inverses() -> None:
    quads = alignment.quad(faces(1, 5))
    np.testing.assert_allclose(alignment.corners(*alignment.axes(quads)), quads, atol=1e-9)


def test_impossible_landmarks_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[\.\.\., 68, 2\].*\(5, 2\)"):
        alignment.quad(np.zeros((5, 2)))
    with pytest.raises(ValueError, match="one point"):
        alignment.quad(np.ones((68, 2)))


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 60), fps=st.floats(1, 120), centre=st.floats(0, 5), axes=st.floats(0, 8))
def test_smoothing_leaves_a_face_at_rest(n: int, fps: float, centre: float, axes: float) -> None:
    quads = np.repeat(alignment.quad(faces(2, 1)), n, axis=0)
    smoothed = alignment.smooth(quads, fps, sigma_centre=centre, sigma_axes=axes)
    np.testing.assert_allclose(smoothed, quads, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 40), seed=st.integers(0, 99), fps=st.floats(5, 120))
def test_smoothing_leaves_steady_motion(n: int, seed: int, fps: float) -> None:
    """Also at the ends and at a variable rate: nothing lags behind."""
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.uniform(0.3, 1.7, n)) / fps
    start, speed = alignment.quad(faces(seed, 1))[0], rng.normal(0, 50, 2)
    quads = start + times[:, None, None] * speed
    np.testing.assert_allclose(alignment.smooth(quads, fps, times), quads, atol=1e-6)


def test_smoothing_is_a_gaussian() -> None:
    """Away from the ends it equals scipy's filter, centre and axes by their own widths."""
    from scipy.ndimage import gaussian_filter1d

    quads = alignment.quad(faces(3, 80))
    centre, x, _ = alignment.axes(quads)
    got_centre, got_x, _ = alignment.axes(alignment.smooth(quads, 25.0))
    inner = slice(10, 70)
    expected = gaussian_filter1d(centre, 1.0, axis=0, truncate=3)
    np.testing.assert_allclose(got_centre[inner], expected[inner], atol=1e-9)
    expected = gaussian_filter1d(x, 3.0, axis=0, truncate=3)
    np.testing.assert_allclose(got_x[inner], expected[inner], atol=1e-9)


def test_smoothing_spans_the_same_time_at_every_rate() -> None:
    """A step in the centre is blurred over the same seconds at 25 and at 100 fps."""
    middle = {}
    for fps in (25, 100):
        times = np.arange(2 * fps) / fps
        quads = np.repeat(alignment.quad(clips.LANDMARKS)[None], len(times), axis=0)
        quads = quads + np.where(times < 1.0, 0.0, 10.0)[:, None, None]
        centre = alignment.axes(alignment.smooth(quads, fps))[0][:, 0]
        rise = (centre - centre[0]) / 10
        middle[fps] = np.interp([0.2, 0.8], rise, times)
    width = {fps: high - low for fps, (low, high) in middle.items()}
    assert width[25] == pytest.approx(width[100], rel=0.15)
    assert width[100] == pytest.approx(2 * 0.8416 / 25, rel=0.1)  # of a Gaussian's distribution function


def test_warp_puts_landmarks_where_the_transform_says() -> None:
    """Dots painted at the landmarks appear at the transformed landmarks."""
    image = np.zeros((512, 512, 3), np.uint8)
    for i in (36, 45, 8, 30):
        cv2.circle(image, tuple(int(v) for v in clips.LANDMARKS[i].round()), 2, (255, 255, 255), -1)
    aligned, transform = alignment.warp(image, alignment.quad(clips.LANDMARKS), 512)
    for i in (36, 45, 8, 30):
        x, y = alignment.apply(transform, clips.LANDMARKS[i].round()[None])[0]
        patch = aligned[int(y) - 12 : int(y) + 13, int(x) - 12 : int(x) + 13, 0].astype(float)
        rows, columns = np.mgrid[int(y) - 12 : int(y) + 13, int(x) - 12 : int(x) + 13]
        assert (rows * patch).sum() / patch.sum() == pytest.approx(y, abs=0.3)
        assert (columns * patch).sum() / patch.sum() == pytest.approx(x, abs=0.3)


@pytest.mark.parametrize("scale", [1.0, 1.7, 3.0, 6.3])
def test_warp_does_not_alias(scale: float) -> None:
    """A pattern finer than the output's pixels becomes grey, not moiré."""
    side = 600
    image = np.zeros((side, side, 3), np.uint8)
    image[:, ::2] = 255
    corner = np.array([[100, 100], [100, 500], [500, 500], [500, 100]], float)
    size = round(400 / scale)
    aligned, _ = alignment.warp(image, corner, size)
    inner = aligned[2:-2, 2:-2].astype(float)
    if scale >= 1.7:
        assert inner.std() < 45
    assert inner.mean() == pytest.approx(127.5, abs=3)


@settings(max_examples=25, deadline=None)
@given(
    x=st.floats(-400, 800),
    y=st.floats(-400, 800),
    side=st.floats(4, 900),
    angle=st.floats(-3, 3),
    size=st.sampled_from([16, 64]),
)
def test_warp_never_fails_whatever_the_crop(x: float, y: float, side: float, angle: float, size: int) -> None:
    transform = similarity(side, angle, x, y)
    corner = alignment.apply(transform, np.array([[0, 0], [0, 1], [1, 1], [1, 0]], float))
    image = clips.portrait()[:300, :200]
    aligned, moved = alignment.warp(image, corner, size)
    assert aligned.shape == (size, size, 3)
    assert aligned.dtype == np.uint8
    assert np.isfinite(moved).all()


def test_crop_beyond_the_image_is_mirrored_and_blurred() -> None:
    image = clips.portrait()[60:300, 150:300]  # the face at the picture's edges
    points = clips.LANDMARKS - [150, 60]
    aligned, _ = alignment.warp(image, alignment.quad(points), 256)
    assert aligned[:, :3].std() > 1  # no black border
    outside, inside = aligned[60:200, :20].astype(float), aligned[60:200, 100:120].astype(float)
    assert np.abs(np.diff(outside, axis=0)).mean() < 0.5 * np.abs(np.diff(inside, axis=0)).mean()


def test_a_tiny_image_can_be_warped() -> None:
    aligned, _ = alignment.warp(np.full((2, 3, 3), 7, np.uint8), alignment.quad(clips.LANDMARKS), 32)
    assert (aligned == 7).all()
