"""Crops of aligned frames against Pillow's resampling, dlib's chips, and known geometry."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from remime.faces import template
from remime.faces.template import ARCFACE, DLIB_CHIP, MEAN_LANDMARKS, Box, crop, inverse, similarity, warp

from ...clips import view


def frame(size=256):
    return torch.from_numpy(view(1.2, size=size)).permute(2, 0, 1)[None].float()


def pixels(landmarks, size):
    """Frame units to pixels with centres at integers."""
    return landmarks * size - 0.5


@pytest.mark.parametrize(("box", "size"), [(Box(0.1, 0.2, 0.8, 0.9), 64), (Box(0.25, 0.25, 0.5, 0.5), 100)])
def test_a_crop_is_what_pillow_resamples(box, size):
    image = frame()
    ours = crop(image, box, size)[0]
    corners = tuple(256 * v for v in (box.left, box.top, box.right, box.bottom))
    for plane, channel in zip(ours, image[0], strict=True):
        pillow = Image.fromarray(channel.numpy()).resize((size, size), Image.Resampling.BILINEAR, box=corners)
        # Pillow does not read beyond the box, so its border differs.
        assert np.abs(plane.numpy() - np.asarray(pillow))[2:-2, 2:-2].max() < 0.05


def test_the_whole_frame_at_its_own_size_is_the_frame():
    torch.testing.assert_close(crop(frame(), Box(0, 0, 1, 1), 256), frame())


def test_beyond_the_frame_its_border_is_repeated():
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    result = crop(ramp, Box(-0.5, 0.0, 1.5, 1.0), 16)[0, 0, 0]
    torch.testing.assert_close(result, torch.tensor([0.0] * 4 + list(range(8)) + [7.0] * 4))


def test_a_box_and_the_same_transform_cut_out_the_same():
    box = Box(0.2, 0.3, 0.7, 0.8)
    scale = 0.5 * 256 / 64
    shift = [v * 256 - 0.5 + 0.5 * scale for v in (box.left, box.top)]
    transform = torch.tensor([[[scale, 0.0, shift[0]], [0.0, scale, shift[1]]]])
    difference = crop(frame(), box, 64) - warp(frame(), transform, 64)
    assert difference.abs().mean() < 2.0  # of 255; a triangle and a box filter
    assert difference.mean().abs() < 0.05


def test_a_warp_follows_rotation():
    angle = math.radians(90)
    turn = torch.tensor(
        [[[math.cos(angle), -math.sin(angle), 255.0], [math.sin(angle), math.cos(angle), 0.0]]]
    )
    torch.testing.assert_close(warp(frame(), turn, 256), torch.rot90(frame(), 1, (2, 3)), atol=1e-2, rtol=0)


def test_shrinking_averages_instead_of_picking():
    checks = (torch.arange(256)[:, None] + torch.arange(256)[None]).remainder(2).float()[None, None]
    transform = torch.tensor([[[4.0, 0.0, 1.5], [0.0, 4.0, 1.5]]])
    torch.testing.assert_close(warp(checks, transform, 64), torch.full((1, 1, 64, 64), 0.5))
    assert (crop(checks, Box(0, 0, 1, 1), 64) - 0.5).abs().max() < 0.02


def test_absurd_landmarks_do_not_cost_more_memory_than_others():
    huge = torch.tensor([[[1e6, 0.0, 0.0], [0.0, 1e6, 0.0]]])
    assert warp(frame(), huge, 112).isfinite().all()


def test_gradients_reach_every_pixel_under_the_box():
    image = frame().requires_grad_()
    crop(image, Box(0.25, 0.25, 0.75, 0.75), 48).sum().backward()
    assert (image.grad[0, 0, 66:190, 66:190] > 0).all()
    assert (image.grad[0, 0, :60] == 0).all()


def test_weights_made_in_inference_serve_training():
    box = Box(0.11, 0.12, 0.63, 0.64)
    with torch.inference_mode():
        crop(frame(), box, 33)
    image = frame().requires_grad_()
    crop(image, box, 33).sum().backward()
    assert image.grad.abs().sum() > 0


@pytest.mark.parametrize("shape", [(1, 3, 8, 9), (3, 8, 8)])
def test_frames_that_are_not_square_are_refused(shape):
    with pytest.raises(ValueError, match=r"square.*\("):
        crop(torch.zeros(shape), Box(0, 0, 1, 1), 4)


def test_a_similarity_is_recovered_and_inverted():
    points = torch.randn(3, 7, 2, dtype=torch.float64)
    a, b = 1.3 * math.cos(0.4), 1.3 * math.sin(0.4)
    truth = torch.tensor([[a, -b, 5.0], [b, a, -2.0]], dtype=torch.float64)
    moved = points @ truth[:, :2].T + truth[:, 2]
    found = similarity(points, moved)
    torch.testing.assert_close(found, truth.expand(3, 2, 3))
    torch.testing.assert_close(similarity(moved, points), inverse(found))


def test_the_mean_face_is_symmetric_and_where_the_ffhq_quad_puts_it():
    torch.testing.assert_close(MEAN_LANDMARKS[:17, 0].flip(0), 1 - MEAN_LANDMARKS[:17, 0])
    left, right = MEAN_LANDMARKS[36:42].mean(0), MEAN_LANDMARKS[42:48].mean(0)
    eyes, mouth = (left + right) / 2, MEAN_LANDMARKS[[48, 54]].mean(0)
    # The side is 2 · max(2 · eye distance, 1.8 · eye-mouth distance), the centre a tenth from eyes to mouth.
    side = 2 * max(2 * (right - left).norm(), 1.8 * (mouth - eyes).norm())
    assert abs(float(side) - 1) < 0.05
    torch.testing.assert_close(
        eyes + 0.1 * (mouth - eyes), torch.tensor([0.5, 0.5]).double(), atol=0.005, rtol=0
    )


@pytest.mark.parametrize("network", [ARCFACE, DLIB_CHIP])
def test_the_fixed_box_is_the_alignment_of_the_mean_face(network):
    image = frame()
    points = pixels(MEAN_LANDMARKS, 256)[None]
    difference = network(image) - network(image, points)
    assert difference.abs().mean() < 3.0  # of 255; the fixed box leaves out half a degree of rotation


def test_landmarks_of_the_wrong_shape_are_refused():
    with pytest.raises(ValueError, match=r"\[1, 68, 2\]"):
        ARCFACE(frame(), torch.zeros(1, 5, 2))


def test_chips_lie_where_dlib_cuts_them():
    dlib = pytest.importorskip("dlib")
    generator = np.random.default_rng(0)
    for _ in range(5):
        points = pixels(MEAN_LANDMARKS, 512).numpy()
        points = np.rint(points @ _turn(generator.uniform(-30, 30)).T + generator.normal(0, 9, (68, 2)))
        shape = dlib.full_object_detection(
            dlib.rectangle(0, 0, 511, 511), [dlib.point(int(x), int(y)) for x, y in points]
        )
        details = dlib.get_face_chip_details(shape, 150, 0.25)
        transform = DLIB_CHIP.place(torch.from_numpy(points)[None])[0].numpy()
        side = details.rect.right() - details.rect.left() + 1
        np.testing.assert_allclose(np.hypot(*transform[:, 0]) * 150, side, rtol=1e-4)
        np.testing.assert_allclose(np.arctan2(transform[1, 0], transform[0, 0]), details.angle, atol=1e-4)
        # dlib maps the middle of the chip, 75 from its edge, to the middle of the rectangle.
        middle = transform @ [74.5, 74.5, 1]
        expected = [details.rect.left() + side / 2 - 0.5, details.rect.top() + side / 2 - 0.5]
        np.testing.assert_allclose(middle, expected, atol=0.02)


def _turn(degrees):
    angle = math.radians(degrees)
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


def test_arcface_points_land_where_they_belong():
    points = pixels(MEAN_LANDMARKS, 512)[None]
    to_frame = ARCFACE.place(points)
    back = inverse(to_frame)
    five = template.five_points(points)[0] @ back[0, :, :2].T + back[0, :, 2]
    # Eyes, nose and mouth corners of the canonical 112² crop; the mean face is not quite that face.
    expected = torch.tensor([[38.3, 51.7], [73.5, 51.5], [56.0, 71.7], [41.5, 92.4], [70.7, 92.2]])
    assert (five - expected).abs().max() < 3
