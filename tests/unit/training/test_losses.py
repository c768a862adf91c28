"""Losses against computations by hand."""

from __future__ import annotations

import math

import pytest
import torch

from remime.training.losses import ImageLosses, cosface, face_crop


def test_cosface_by_hand():
    """P1's Eq. 4 and 5 with two positive and two negative pairs, a = 5, b = 0.2."""
    positive, negative = [0.9, 0.4], [0.1, -0.3]
    d = [[math.exp(5 * (s - 0.2)) for s in pairs] for pairs in (positive, negative)]
    expected = -sum(math.log(p / (p + sum(d[1]))) for p in d[0]) / 2
    assert float(cosface(torch.tensor(positive), torch.tensor(negative))) == pytest.approx(expected, rel=1e-5)


def test_cosface_margin_cancels_and_scale_does_not():
    pairs = torch.tensor([0.3, 0.8]), torch.tensor([0.2, 0.6, -0.5])
    assert cosface(*pairs, margin=0.2) == pytest.approx(float(cosface(*pairs, margin=0.7)), rel=1e-5)
    assert abs(float(cosface(*pairs, scale=5) - cosface(*pairs, scale=2))) > 0.01


def test_cosface_wants_positives_near_and_negatives_far():
    positive = torch.zeros(2, requires_grad=True)
    negative = torch.zeros(2, requires_grad=True)
    cosface(positive, negative).backward()
    assert (positive.grad < 0).all()
    assert (negative.grad > 0).all()


def test_cosface_does_not_overflow():
    assert torch.isfinite(cosface(torch.tensor([-1.0]), torch.tensor([1.0]), scale=500))


def test_crops():
    frame = torch.arange(256.0).expand(1, 3, 256, 256)
    columns, rows = frame, frame.transpose(2, 3)
    for crop, (top, bottom, left, right) in {
        "paper": (34, 221, 34, 221),
        "reference": (55, 242, 32, 219),
    }.items():
        assert face_crop(columns, crop).shape == (1, 3, 188, 188)
        assert (face_crop(columns, crop)[0, 0, 0, 0], face_crop(columns, crop)[0, 0, 0, -1]) == (left, right)
        assert (face_crop(rows, crop)[0, 0, 0, 0], face_crop(rows, crop)[0, 0, -1, 0]) == (top, bottom)
    assert face_crop(torch.zeros(2, 3, 512, 512)).shape == (2, 3, 376, 376)


@pytest.mark.weights
def test_image_losses(weights):
    for name in ("lpips-alex", "dlib-resnet-id"):
        weights(name)
    losses = ImageLosses()
    a, b = (torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(s)) * 2 - 1 for s in (0, 1))
    assert float(losses.l2(a, b)) == pytest.approx(float(((a - b) ** 2).mean()))
    for loss in (losses.l2, losses.perceptual, losses.same_person):
        assert abs(float(loss(a, a))) < 1e-5
        assert float(loss(a, b)) > 1e-4
    a.requires_grad_()
    b.requires_grad_()
    losses.same_person(a, b).backward()
    assert a.grad.abs().sum() > 0
    assert b.grad is None
    assert not any(parameter.requires_grad for parameter in losses.parameters())
