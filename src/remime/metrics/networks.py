"""What measures frames for the metrics: networks behind plain functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from remime.metrics.registry import METRICS

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Networks:
    """What measures the frames; a role that no wanted metric needs may be None.

    Args:
        pose: images [b, 3, h, w] in [−1, 1] → [b, 3] yaw, pitch, roll in degrees.
        landmarks: one image, uint8 [h, w, 3] → [68, 2] in its pixels, or None where no face is found.
        identity: images [b, 3, h, w] in [−1, 1] → [b, d].
        lpips: two batches of images in [−1, 1] and, where only a part counts, masks [b, h, w] → [b].
        names: role → name and variant of the network, as it stands in score rows.
        device: where the networks are.
        mesh: images [b, 3, h, w] in [−1, 1] → [b, 52] in the order of ``remime.faces.mesh.BLENDSHAPES``.
    """

    pose: Callable[[Tensor], Tensor] | None = None
    landmarks: Callable[[Image], NDArray[np.floating] | None] | None = None
    identity: Callable[[Tensor], Tensor] | None = None
    lpips: Callable[..., Tensor] | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    device: str | torch.device = "cpu"
    mesh: Callable[[Tensor], Tensor] | None = None


def load_networks(
    metrics: Sequence[str],
    *,
    pose: str = "hopenet-lite",
    identity: str = "sface",
    lpips: str = "alex",
    device: str | torch.device = "cpu",
) -> Networks:
    """The networks that the named metrics need, by name, on one device.

    Args:
        metrics: keys of ``METRICS``.
        pose, identity, lpips: names of the networks. The identity network must not be one that a model was
            trained against.
        device: where they compute.
    """
    where = torch.device(device)
    roles = {role for name in metrics for role in METRICS[name].networks}
    found: dict[str, Any] = {}
    names: dict[str, str] = {}
    if "pose" in roles:
        from remime.faces.pose import load_pose

        found["pose"], names["pose"] = load_pose(pose).to(where), pose
    if "identity" in roles:
        from remime.faces.identity import load_identity

        found["identity"], names["identity"] = load_identity(identity).to(where).embed, identity
    if "lpips" in roles:
        from remime.perceptual import load_lpips

        found["lpips"], names["lpips"] = load_lpips(lpips).to(where), f"lpips-{lpips}"
    if "landmarks" in roles:
        found["landmarks"], names["landmarks"] = landmark_finder(), "dlib-landmarks-68"
    if "mesh" in roles:
        found["mesh"], names["mesh"] = _blendshapes(where), "face-mesh"
    return Networks(**found, names=names, device=where)


def landmark_finder() -> Callable[[Image], NDArray[np.floating] | None]:
    """dlib's detector and 68 landmarks on single aligned frames; of several faces the largest counts."""
    from remime.faces.landmarks import FaceTracker

    tracker = FaceTracker()

    def find(frame: Image) -> NDArray[np.floating] | None:
        faces = tracker.detect(np.ascontiguousarray(frame))
        if not faces:
            return None
        return max(faces, key=lambda face: np.ptp(face.landmarks, axis=0).prod()).landmarks

    return find


def _blendshapes(device: torch.device) -> Callable[[Tensor], Tensor]:
    from remime.faces.mesh import load_mesh

    mesh = load_mesh().to(device)
    return lambda images: mesh(images).blendshapes


def run(network: Callable[..., Tensor], *tensors: Tensor) -> NDArray[np.float64]:
    """What a network says of tensors, as an array."""
    with torch.inference_mode():
        return network(*tensors).double().cpu().numpy()
