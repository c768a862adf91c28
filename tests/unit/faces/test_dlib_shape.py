"""The regression-tree ensemble, against predictors that dlib trained on the spot."""

import dlib
import numpy as np
import pytest
import torch
from skimage.data import lfw_subset

from remime.faces.dlib_shape import ShapePredictor
from remime.weights.convert.dlib import convert


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Thirty real faces, 100×100, grey."""
    faces = (lfw_subset()[:30] * 255).astype(np.uint8)
    return np.ascontiguousarray(faces.repeat(4, 1).repeat(4, 2))


@pytest.fixture(scope="module", params=[(2, 3), (4, 6)], ids=["2 levels deep", "4 levels deep"])
def both(request, images, tmp_path_factory) -> tuple[dlib.shape_predictor, ShapePredictor]:
    depth, levels = request.param
    rng = np.random.default_rng(0)
    truth = []
    for _ in images:
        points = [dlib.point(*map(int, point)) for point in rng.integers(20, 80, (7, 2))]
        truth.append([dlib.full_object_detection(dlib.rectangle(20, 18, 80, 82), points)])
    options = dlib.shape_predictor_training_options()
    options.tree_depth, options.cascade_depth, options.num_trees_per_cascade_level = depth, levels, 30
    options.feature_pool_size, options.num_threads, options.oversampling_amount = 60, 1, 2
    trained = dlib.train_shape_predictor(list(images), truth, options)
    path = tmp_path_factory.mktemp("dlib") / "tiny.dat"
    trained.save(str(path))
    return trained, ShapePredictor.from_tensors(convert({"tiny.dat": path})[0])


def boxes_near(count: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    return np.array([20, 18, 80, 82]) + rng.integers(-15, 16, (count, 4))


def reference(trained: dlib.shape_predictor, images: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    shapes = [
        trained(np.ascontiguousarray(image), dlib.rectangle(*map(int, box)))
        for image, box in zip(images, boxes, strict=True)
    ]
    return np.array([[[point.x, point.y] for point in shape.parts()] for shape in shapes])


def test_grey_faces_as_dlib_sees_them(both, images):
    trained, ours = both
    boxes = boxes_near(len(images))
    found = ours(torch.from_numpy(images), torch.from_numpy(boxes))
    assert found.dtype == torch.float32
    np.testing.assert_array_equal(np.floor(found.numpy() + 0.5), reference(trained, images, boxes))


def test_colour_is_the_mean_rounded_down(both, images):
    trained, ours = both
    rng = np.random.default_rng(2)
    noise = rng.integers(-20, 21, (*images.shape, 3))
    coloured = np.clip(images[..., None] + noise, 0, 255).astype(np.uint8)
    boxes = boxes_near(len(images))
    found = ours(torch.from_numpy(coloured), torch.from_numpy(boxes))
    np.testing.assert_array_equal(np.floor(found.numpy() + 0.5), reference(trained, coloured, boxes))


def test_boxes_that_leave_the_image(both, images):
    trained, ours = both
    boxes = np.array([[-40, -30, 40, 50], [70, 60, 160, 150], [-200, -200, -100, -100], [50, 50, 50, 50]])
    found = ours(torch.from_numpy(images[:4]), torch.from_numpy(boxes))
    np.testing.assert_array_equal(np.floor(found.numpy() + 0.5), reference(trained, images[:4], boxes))


def test_a_batch_is_its_faces_one_by_one(both, images):
    _, ours = both
    boxes = torch.from_numpy(boxes_near(5))
    batch = torch.from_numpy(images[:5])
    together = ours(batch, boxes)
    alone = torch.cat([ours(batch[i : i + 1], boxes[i : i + 1]) for i in range(5)])
    assert torch.equal(together, alone)
    assert ours(batch[:0], boxes[:0]).shape == (0, 7, 2)


def test_wrong_arguments(both, images):
    _, ours = both
    batch = torch.from_numpy(images[:2])
    with pytest.raises(ValueError, match=r"boxes: expected shape \[2, 4\], got \(1, 4\)"):
        ours(batch, torch.zeros(1, 4))
    with pytest.raises(ValueError, match="uint8"):
        ours(batch.float(), torch.zeros(2, 4))
    with pytest.raises(ValueError, match="H, W, 3"):
        ours(batch[..., None], torch.zeros(2, 4))
