"""True answers in the aligned frames of the driving clip: picture, labels, landmarks, pose and face units."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from remime.errors import InputError
from remime.faces.alignment import apply, quad_of, warp
from remime.heads.renderer import Camera
from remime.heads.shape import Pose, Shape, angles, rotation
from remime.heads.take import Take, answer, figure_of, motion_of, scene_of


@dataclass(frozen=True)
class Answer:
    """What a perfect reenactment of one driving frame looks like, and what is shown in it.

    Args:
        image: [S, S, 3] uint8 sRGB.
        labels: [S, S] uint8, numbers of ``remime.heads.renderer.LABELS``.
        landmarks: [68, 2] in pixels of the image, x right, y down, pixel centres at integers.
        pose: [3] yaw, pitch, roll of the head in degrees, relative to the line of sight and to the image's
            axes; signs as in ``remime.faces.pose``.
        coefficients: [52] in the order of ``remime.heads.assets.COEFFICIENTS``.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    landmarks: NDArray[np.float32]
    pose: NDArray[np.float32]
    coefficients: NDArray[np.float32]


def frame_numbers(take: Take, time: NDArray[np.floating]) -> list[int]:
    """Which frames of a take stand at some seconds of its video.

    Raises:
        InputError: there are no frames there, so the video is not the take's.
    """
    numbers = np.rint(np.asarray(time) * take.fps).astype(int)
    off = np.abs(numbers / take.fps - time).max(initial=0.0)
    if off > 0.25 / take.fps or numbers.min(initial=0) < 0 or numbers.max(initial=0) >= take.frames:
        raise InputError(
            "the aligned frames", f"do not lie at the times of {take}", "run collect and align again"
        )
    return [int(number) for number in numbers]


def seen_pose(shape: Shape, pose: Pose, camera: tuple[float, float, float]) -> NDArray[np.float64]:
    """Yaw, pitch and roll [3] in degrees of a head as a camera sees it.

    A head beside the camera's axis shows a cheek although it is turned straight ahead; networks that look at
    a crop of it can only tell the angle to the line of sight.

    Args:
        shape: the person.
        pose: how the head is held.
        camera: its place in decimetres; it looks along -z.
    """
    turn, place = shape.head_move(pose)
    ahead = np.asarray(camera) - place
    ahead = ahead / np.linalg.norm(ahead)
    right = np.cross([0.0, 1.0, 0.0], ahead)
    right = right / np.linalg.norm(right)
    return angles(np.stack([right, np.cross(ahead, right), ahead]) @ turn)


def in_frame(pose: NDArray[np.floating], transform: NDArray[np.floating]) -> NDArray[np.float64]:
    """The same angles [3] after the picture was turned by an affine map [2, 3]."""
    clockwise = np.degrees(np.arctan2(transform[1, 0], transform[0, 0]))
    return angles(rotation(0, 0, float(clockwise)) @ rotation(*(float(angle) for angle in pose)))


def aligned_answers(
    take: Take, identity: int, time: NDArray[np.floating], transform: NDArray[np.floating], size: int
) -> Iterator[Answer]:
    """The true answer to each of a driving clip's aligned frames.

    Another person's face is cropped as the driving person's was, not as its own would be: position, size and
    angle in the frame are part of the motion.

    Args:
        take: the driving clip.
        identity: the seed of the target.
        time: [n] seconds of the frames in the clip's video.
        transform: [n, 2, 3] from pixels of the video to those of the aligned frames.
        size: side of the aligned frames in pixels.

    Raises:
        InputError: the frames are not those of the take.
        WeightsError: what heads are built of is not there.
    """
    motion, scene, figure = motion_of(take), scene_of(take), figure_of(identity)
    camera = Camera.of(scene, take.size).position
    numbers = frame_numbers(take, time)
    for number, matrix, rendered in zip(numbers, transform, answer(take, identity, numbers), strict=True):
        pose = seen_pose(figure.shape, motion[number], camera)
        yield Answer(
            warp(rendered.image, quad_of(matrix, size), size)[0],
            np.asarray(cv2.warpAffine(rendered.labels, matrix, (size, size), flags=cv2.INTER_NEAREST)),
            apply(matrix, rendered.landmarks).astype(np.float32),
            in_frame(pose, matrix).astype(np.float32),
            motion.coefficients[number].astype(np.float32),
        )
