"""Score generated frames against true answers, chunk by chunk and in constant memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from remime.images import to_tensor
from remime.metrics import image, pose, truth
from remime.metrics.networks import Image, Networks, run
from remime.metrics.registry import TRUTH

_PICTURES = {"truth_ssim": image.ssim, "truth_psnr": image.psnr, "truth_l1": image.l1}


class TrueFrame(NamedTuple):
    """The true answer to one driving frame.

    Args:
        image: uint8 [h, h, 3].
        face: [h, h] where it shows the face.
        landmarks: [68, 2] in its pixels.
        pose: [3] yaw, pitch, roll in degrees.
        blendshapes: [k] the first of ``remime.faces.mesh.BLENDSHAPES`` behind ``_neutral``.
    """

    image: Image
    face: NDArray[np.bool_]
    landmarks: NDArray[np.floating]
    pose: NDArray[np.floating]
    blendshapes: NDArray[np.floating]


class AnswerScorer:
    """Compares one generated video with the true one.

    Args:
        networks: with ``lpips`` and ``mesh`` where a wanted metric needs them.
        metrics: names; only those of ``TRUTH`` are looked at.
    """

    def __init__(self, networks: Networks, metrics: Sequence[str]) -> None:
        self._networks = networks
        self._wanted = [name for name in TRUTH if name in metrics]
        self._compared: dict[str, list[float]] = {
            n: [] for n in self._wanted if n in (*_PICTURES, "truth_lpips")
        }
        self._blendshapes: list[NDArray] = []
        self._poses: list[NDArray] = []
        self._truth: list[TrueFrame] = []
        self._scales: list[float] = []

    def add(self, generated: Sequence[Image | None], answers: Sequence[TrueFrame]) -> None:
        """Compare the next frames; None stands for one that does not exist."""
        present = [i for i, frame in enumerate(generated) if frame is not None]
        frames = [frame for frame in generated if frame is not None]
        resized = [image.resize(f, answers[i].image.shape[0]) for i, f in zip(present, frames, strict=True)]
        for name, compare in _PICTURES.items():
            if name in self._compared:
                found = [
                    compare(frame, answers[i].image, answers[i].face)
                    for i, frame in zip(present, resized, strict=True)
                ]
                self._compared[name] += _spread(found, present, len(answers))
        if "truth_lpips" in self._compared:
            found = self._distances(resized, [answers[i] for i in present])
            self._compared["truth_lpips"] += _spread(found, present, len(answers))
        self._add_blendshapes(frames, present, answers)
        self._poses.append(self._seen(answers))
        # Pictures and maps are not kept.
        nothing = np.zeros((0, 0), bool)
        for frame, answer in zip(generated, answers, strict=True):
            self._truth.append(answer._replace(image=np.zeros((0, 0, 3), np.uint8), face=nothing))
            self._scales.append(np.nan if frame is None else answer.image.shape[0] / frame.shape[0])

    def _distances(self, frames: Sequence[Image], answers: Sequence[TrueFrame]) -> list[float]:
        if self._networks.lpips is None or not frames:
            return [float("nan")] * len(frames)
        device = self._networks.device
        left, right = to_tensor(frames, device), to_tensor([answer.image for answer in answers], device)
        mask = torch.from_numpy(np.stack([answer.face for answer in answers])).to(device).float()
        return run(self._networks.lpips, left, right, mask).tolist()

    def _add_blendshapes(
        self, frames: Sequence[Image], present: Sequence[int], answers: Sequence[TrueFrame]
    ) -> None:
        rows = np.full((len(answers), len(answers[0].blendshapes)), np.nan)
        if self._networks.mesh is not None and frames:
            found = run(self._networks.mesh, to_tensor(frames, self._networks.device))
            rows[list(present)] = found[:, 1 : 1 + rows.shape[1]]
        self._blendshapes.append(rows)

    def _seen(self, answers: Sequence[TrueFrame]) -> NDArray[np.float64]:
        """What the pose network says of the answers [n, 3]."""
        if self._networks.pose is None or "truth_pose_to_answer" not in self._wanted:
            return np.full((len(answers), 3), np.nan)
        return run(self._networks.pose, to_tensor([a.image for a in answers], self._networks.device))

    def result(
        self, poses: NDArray[np.floating], landmarks: NDArray[np.floating]
    ) -> tuple[dict[str, NDArray], dict[str, tuple[float, int]]]:
        """The values of frames [n], and of the clip with what each rests on.

        Args:
            poses: [n, 3] degrees, of the generated frames.
            landmarks: [n, 68, 2] in their pixels.
        """
        frames: dict[str, NDArray] = {name: np.array(values) for name, values in self._compared.items()}
        scales = np.array(self._scales)[:, None, None]
        points = (landmarks + 0.5) * scales - 0.5
        known = np.stack([answer.landmarks for answer in self._truth])
        blendshapes = np.concatenate(self._blendshapes)
        moved = np.stack([answer.blendshapes for answer in self._truth])
        frames |= {
            "truth_nme": truth.nme(points, known),
            "truth_nme_shape": truth.nme_shape(points, known),
            "truth_pose_mae": pose.pose_mae(np.stack([answer.pose for answer in self._truth]), poses),
            "truth_pose_to_answer": pose.pose_mae(np.concatenate(self._poses), poses),
            "truth_blendshape_mae": truth.blendshape_mae(blendshapes, moved),
        }
        measured = int(np.isfinite(blendshapes).all(axis=1).sum())
        clips = {"truth_blendshape_corr": (truth.blendshape_corr(blendshapes, moved), measured)}
        return (
            {name: values for name, values in frames.items() if name in self._wanted},
            {name: value for name, value in clips.items() if name in self._wanted},
        )


def _spread(values: Sequence[float], places: Sequence[int], count: int) -> list[float]:
    """Values at some places among ``count``, NaN elsewhere."""
    spread = [float("nan")] * count
    for place, value in zip(places, values, strict=True):
        spread[place] = value
    return spread
