"""MediaPipe's face mesh with irises and its 52 expression coefficients, on aligned frames, in torch.

The landmark network sees a fixed crop of the frame (``remime.faces.template.MESH``); the blendshape network
sees 146 of the resulting points. Both are differentiable, so that a loss may ask for a mouth or a blink.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from remime.errors import shape_error
from remime.faces.template import MESH
from remime.graph import GraphNetwork

POINTS = 478
IRIS_RIGHT, IRIS_LEFT = 468, 473  # centres; right and left are the person's own

BLENDSHAPES: tuple[str, ...] = (
    "_neutral",
    "browDownLeft",
    "browDownRight",
    "browInnerUp",
    "browOuterUpLeft",
    "browOuterUpRight",
    "cheekPuff",
    "cheekSquintLeft",
    "cheekSquintRight",
    "eyeBlinkLeft",
    "eyeBlinkRight",
    "eyeLookDownLeft",
    "eyeLookDownRight",
    "eyeLookInLeft",
    "eyeLookInRight",
    "eyeLookOutLeft",
    "eyeLookOutRight",
    "eyeLookUpLeft",
    "eyeLookUpRight",
    "eyeSquintLeft",
    "eyeSquintRight",
    "eyeWideLeft",
    "eyeWideRight",
    "jawForward",
    "jawLeft",
    "jawOpen",
    "jawRight",
    "mouthClose",
    "mouthDimpleLeft",
    "mouthDimpleRight",
    "mouthFrownLeft",
    "mouthFrownRight",
    "mouthFunnel",
    "mouthLeft",
    "mouthLowerDownLeft",
    "mouthLowerDownRight",
    "mouthPressLeft",
    "mouthPressRight",
    "mouthPucker",
    "mouthRight",
    "mouthRollLower",
    "mouthRollUpper",
    "mouthShrugLower",
    "mouthShrugUpper",
    "mouthSmileLeft",
    "mouthSmileRight",
    "mouthStretchLeft",
    "mouthStretchRight",
    "mouthUpperUpLeft",
    "mouthUpperUpRight",
    "noseSneerLeft",
    "noseSneerRight",
)

# The points that the blendshape network reads, in its order.
# fmt: off
_EXPRESSIVE = (
    0, 1, 4, 5, 6, 7, 8, 10, 13, 14, 17, 21, 33, 37, 39, 40, 46, 52, 53, 54, 55, 58, 61, 63, 65, 66, 67,
    70, 78, 80, 81, 82, 84, 87, 88, 91, 93, 95, 103, 105, 107, 109, 127, 132, 133, 136, 144, 145, 146,
    148, 149, 150, 152, 153, 154, 155, 157, 158, 159, 160, 161, 162, 163, 168, 172, 173, 176, 178, 181,
    185, 191, 195, 197, 234, 246, 249, 251, 263, 267, 269, 270, 276, 282, 283, 284, 285, 288, 291, 293,
    295, 296, 297, 300, 308, 310, 311, 312, 314, 317, 318, 321, 323, 324, 332, 334, 336, 338, 356, 361,
    362, 365, 373, 374, 375, 377, 378, 379, 380, 381, 382, 384, 385, 386, 387, 388, 389, 390, 397, 398,
    400, 402, 405, 409, 415, 454, 466, 468, 469, 470, 471, 472, 473, 474, 475, 476, 477,
)
# fmt: on


@dataclass(frozen=True)
class MeshResult:
    """What the mesh network says of a batch.

    Args:
        points: [B, 478, 3]; x (right) and y (down) in pixels of the input frames, pixel centres at integers,
            and depth in the same unit, towards the camera negative, zero at about the middle of the head.
        score: [B], the probability that the crop shows a face.
        blendshapes: [B, 52] in [0, 1], in the order of ``BLENDSHAPES``.
    """

    points: Tensor
    score: Tensor
    blendshapes: Tensor


class MeshNetwork(nn.Module):
    """The landmark network and the blendshape network behind it.

    Args:
        landmarks: the converted ``face-mesh``.
        blendshapes: the converted ``blendshapes``.
    """

    def __init__(self, landmarks: GraphNetwork, blendshapes: GraphNetwork) -> None:
        super().__init__()
        self.landmarks, self.blendshapes = landmarks, blendshapes
        self.expressive: Tensor
        self.register_buffer("expressive", torch.tensor(_EXPRESSIVE), persistent=False)
        self.eval()

    def forward(self, images: Tensor) -> MeshResult:
        """Find the mesh and the expression; differentiable.

        Args:
            images: [B, 3, R, R] aligned frames in [-1, 1], any R.
        """
        if images.dim() != 4 or images.shape[1] != 3:
            raise shape_error("images", "[B, 3, R, R]", images.shape)
        crops = (MESH(images) + 1) / 2
        raw, presence, _ = self.landmarks(crops.permute(0, 2, 3, 1).contiguous())
        points = self._to_frame(raw.reshape(-1, POINTS, 3).float(), images.shape[-1])
        (coefficients,) = self.blendshapes(points[:, self.expressive, :2])
        return MeshResult(points, presence.flatten().float().sigmoid(), coefficients.float())

    def _to_frame(self, points: Tensor, side: int) -> Tensor:
        # The network counts from the crop's edge, not from the centre of its first pixel.
        scale = (MESH.box.right - MESH.box.left) * side / MESH.size
        shift = [MESH.box.left * side - 0.5, MESH.box.top * side - 0.5, 0.0]
        return points * scale + points.new_tensor(shift)


def load_mesh() -> MeshNetwork:
    """The mesh network with the converted weights ``face-mesh`` and ``blendshapes``.

    Raises:
        WeightsError: they are not there.
    """
    from remime import weights

    parts = [weights.load(name) for name in ("face-mesh", "blendshapes")]
    return MeshNetwork(*(GraphNetwork(part.meta["graph"], part.tensors) for part in parts))
