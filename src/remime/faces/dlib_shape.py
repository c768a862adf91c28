"""dlib's 68 landmarks: regression trees (Kazemi and Sullivan 2014), in batches on any device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor, nn

from remime.errors import shape_error


class ShapePredictor(nn.Module):
    """The network of dlib's ``shape_predictor``.

    Each of L levels reads F pixels at places that follow the current shape, compares pairs of them in T trees
    of depth D, and adds what the trees' leaves say to the shape.

    Args:
        levels: L.
        trees: T per level.
        pixels: F per level.
        depth: D.
        points: landmarks P.
    """

    initial_shape: Tensor  # [P, 2] in units of the box
    anchor: Tensor  # [L, F] the landmark that a pixel is near to
    delta: Tensor  # [L, F, 2] the pixel's offset from it in the initial shape
    split_first: Tensor  # [L, T, 2^D - 1] the pixels that a node compares, in heap order
    split_second: Tensor
    split_threshold: Tensor
    leaf_values: Tensor  # [L, T, 2^D, P, 2]

    def __init__(
        self, levels: int = 15, trees: int = 500, pixels: int = 500, depth: int = 4, points: int = 68
    ) -> None:
        super().__init__()
        self.depth = depth
        nodes = (levels, trees, 2**depth - 1)
        self.register_buffer("initial_shape", torch.zeros(points, 2))
        self.register_buffer("anchor", torch.zeros(levels, pixels, dtype=torch.long))
        self.register_buffer("delta", torch.zeros(levels, pixels, 2))
        self.register_buffer("split_first", torch.zeros(nodes, dtype=torch.long))
        self.register_buffer("split_second", torch.zeros(nodes, dtype=torch.long))
        self.register_buffer("split_threshold", torch.zeros(nodes))
        self.register_buffer("leaf_values", torch.zeros(levels, trees, 2**depth, points, 2))
        self.eval()

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        """The predictor with the converted weights ``dlib-landmarks-68``."""
        levels, trees, leaves, points, _ = tensors["leaf_values"].shape
        predictor = cls(levels, trees, tensors["anchor"].shape[1], leaves.bit_length() - 1, points)
        predictor.load_state_dict(dict(tensors))
        return predictor

    @torch.no_grad()
    def forward(self, images: Tensor, boxes: Tensor) -> Tensor:
        """Find the landmarks of one face per image.

        Args:
            images: [B, H, W] grey or [B, H, W, 3] RGB, uint8.
            boxes: [B, 4] left, top, right, bottom of the faces in pixels; the last two are the box's last
                column and row, as in ``dlib.rectangle``.

        Returns:
            [B, P, 2] float32 x, y in pixels (pixel centres at integers); dlib rounds them to integers. Pixels
            outside of the image count as black, as in dlib.
        """
        _check(images, boxes)
        boxes = boxes.to(torch.float64)
        corner, extent = boxes[:, None, :2], (boxes[:, 2:] - boxes[:, :2])[:, None]
        shape = self.initial_shape.expand(len(images), -1, -1)  # [B, P, 2]
        for level in range(len(self.anchor)):
            places = self._places(level, shape) * extent + corner
            values = _grey(images, torch.floor(places + 0.5).long())  # [B, F]
            shape = _accumulate(shape, self._evaluate(level, values))
        return (shape * extent + corner).float()

    def _places(self, level: int, shape: Tensor) -> Tensor:
        """Where the level reads its pixels, in units of the box: [B, F, 2] float64."""
        turn = _similarity(self.initial_shape.double(), shape.double()).float()  # [B, 2, 2]
        # Not a matrix product, which a GPU may compute with fewer bits.
        offsets = (turn[:, None] * self.delta[level][:, None]).sum(-1)
        return (offsets + shape[:, self.anchor[level]]).double()

    def _evaluate(self, level: int, values: Tensor) -> Tensor:
        """The leaves that pixel values [B, F] lead to, tree by tree: [T, B, P, 2]."""
        first = values[:, self.split_first[level].flatten()]
        second = values[:, self.split_second[level].flatten()]
        trees, nodes = self.split_first.shape[1:]
        left = (first - second).view(-1, trees, nodes) > self.split_threshold[level]  # [B, T, 2^D - 1]
        node = torch.zeros(len(values), trees, 1, dtype=torch.long, device=values.device)
        for _ in range(self.depth):
            node = 2 * node + 2 - left.gather(2, node).long()
        tree = torch.arange(trees, device=values.device)[:, None]
        return self.leaf_values[level, tree, (node - nodes).squeeze(2).T]


def _check(images: Tensor, boxes: Tensor) -> None:
    grey = images.ndim == 3
    if images.dtype != torch.uint8 or not (grey or (images.ndim == 4 and images.shape[-1] == 3)):
        raise shape_error(f"images ({images.dtype})", "[B, H, W] or [B, H, W, 3] uint8", images.shape)
    if boxes.shape != (len(images), 4):
        raise shape_error("boxes", f"[{len(images)}, 4]", boxes.shape)


def _accumulate(shape: Tensor, leaves: Tensor) -> Tensor:
    """Add leaves [T, B, P, 2] to shapes [B, P, 2] one tree after the other.

    dlib adds in this order in single precision. Another order differs in the last bit, which moves a pixel
    now and then, which sends trees elsewhere: one face in three then ends a pixel away.
    """
    total = shape.flatten(1).clone()
    index = torch.arange(len(shape), device=shape.device).repeat(len(leaves))
    parts = leaves.flatten(0, 1).flatten(1)
    # Each of the two keeps the order on one kind of device only.
    if shape.is_cuda:
        total.index_put_((index,), parts, accumulate=True)
    else:
        total.index_add_(0, index, parts)
    return total.view_as(shape)


def _similarity(reference: Tensor, shapes: Tensor) -> Tensor:
    """Rotation and scale that fit a shape [P, 2] to shapes [B, P, 2] best (Umeyama 1991): [B, 2, 2]."""
    a = reference - reference.mean(0)
    b = shapes - shapes.mean(1, keepdim=True)
    size = a.square().sum()
    along = (a * b).sum((1, 2)) / size
    across = (a[:, 0] * b[:, :, 1] - a[:, 1] * b[:, :, 0]).sum(1) / size
    return torch.stack([along, -across, across, along], -1).view(-1, 2, 2)


def _grey(images: Tensor, places: Tensor) -> Tensor:
    """Grey values [B, F] of images at integer places [B, F, 2], zero outside: float32."""
    height, width = images.shape[1:3]
    x, y = places.unbind(-1)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    index = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
    if images.ndim == 3:
        values = images.flatten(1).gather(1, index).float()
    else:
        flat = images.flatten(1, 2)
        colours = flat.gather(1, index[..., None].expand(-1, -1, 3)).to(torch.int32)
        values = torch.div(colours.sum(-1), 3, rounding_mode="floor").float()
    return values * inside
