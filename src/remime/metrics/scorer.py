"""Score a generated video against its driving video and its target, in one pass and constant memory.

Both videos are aligned (FFHQ) and square. The same networks measure both, frame by frame without memory, so
that neither side is smoothed more than the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from remime.errors import InputError
from remime.images import to_tensor
from remime.metrics import expression, identity, image, pose, statistics, temporal
from remime.metrics.answers import AnswerScorer, TrueFrame
from remime.metrics.networks import Image, Networks, run
from remime.metrics.registry import IMAGE, METRICS, SIGNALS, TRUTH

BATCH = 16

_INVERSION = ("csim_inversion", "inversion_csim")
CROSS = tuple(name for name in METRICS if name not in (*IMAGE, *TRUTH))
SELF = tuple(name for name in METRICS if name not in TRUTH)
ANSWERED = (*CROSS, *TRUTH)


@dataclass(frozen=True)
class Measures:
    """What the networks saw in one video; NaN where a frame is missing or holds no face.

    Args:
        pose: [n, 3] degrees.
        landmarks: [n, 68, 2] pixels of the aligned frame.
        embeddings: [n, d]; d is 0 when identity was not measured.
    """

    pose: NDArray[np.float64]
    landmarks: NDArray[np.float64]
    embeddings: NDArray[np.float64]

    @property
    def found(self) -> NDArray[np.bool_]:
        """[n]: frames in which a face was detected."""
        return np.asarray(np.isfinite(self.landmarks).all(axis=(1, 2)), dtype=np.bool_)


@dataclass(frozen=True)
class Scores:
    """The result of one pair.

    Args:
        rows: ``frame`` (None: the whole clip), ``metric``, ``version``, ``value``, ``n``, ``networks``.
        driving, generated: what was measured.
        missing: driving frames for which no generated frame came.
    """

    rows: list[dict[str, Any]]
    driving: Measures
    generated: Measures
    missing: int


class _Recorder:
    """Measures one video chunk by chunk."""

    def __init__(self, networks: Networks, *, with_identity: bool) -> None:
        self._networks = networks
        self._identity = networks.identity if with_identity else None
        self._pose: list[NDArray] = []
        self._landmarks: list[NDArray] = []
        self._embeddings: list[NDArray | None] = []

    def add(self, frames: Sequence[Image | None]) -> None:
        """Measure the next frames; None stands for a frame that does not exist."""
        present = [i for i, frame in enumerate(frames) if frame is not None]
        images = [frame for frame in frames if frame is not None]
        tensor = to_tensor(images, self._networks.device) if images else None
        poses = np.full((len(frames), 3), np.nan)
        embeddings: list[NDArray | None] = [None] * len(frames)
        if tensor is not None and self._networks.pose is not None:
            poses[present] = run(self._networks.pose, tensor)
        if tensor is not None and self._identity is not None:
            for i, vector in zip(present, run(self._identity, tensor), strict=True):
                embeddings[i] = vector
        self._pose.append(poses)
        self._embeddings += embeddings
        self._landmarks += [self._find(frame) for frame in frames]

    def _find(self, frame: Image | None) -> NDArray:
        found = None
        if frame is not None and self._networks.landmarks is not None:
            found = self._networks.landmarks(frame)
        return np.full((68, 2), np.nan) if found is None else np.asarray(found, dtype=np.float64)

    def result(self) -> Measures:
        size = next((len(e) for e in self._embeddings if e is not None), 0)
        missing = np.full(size, np.nan)
        n = len(self._landmarks)
        return Measures(
            np.concatenate(self._pose) if self._pose else np.zeros((0, 3)),
            np.stack(self._landmarks) if n else np.zeros((0, 68, 2)),
            np.stack([missing if e is None else e for e in self._embeddings]) if n else np.zeros((0, 0)),
        )


def _chunks(
    driving: Iterable[Image | None], generated: Iterable[Image | None], size: int
) -> Iterator[tuple[list[Image | None], list[Image | None]]]:
    """Frames of both videos side by side; the driving video says how many there are."""
    first, second = iter(driving), iter(generated)
    while chunk := list(islice(first, size)):
        other = list(islice(second, len(chunk)))
        yield chunk, other + [None] * (len(chunk) - len(other))


def _compare(
    names: Sequence[str],
    driving: Sequence[Image | None],
    generated: Sequence[Image | None],
    networks: Networks,
) -> dict[str, list[float]]:
    """Image metrics of a chunk, at the driving frames' size; NaN where one of the two is missing."""
    values = {name: [float("nan")] * len(driving) for name in names}
    pairs = [
        (i, a, image.resize(b, a.shape[0]))
        for i, (a, b) in enumerate(zip(driving, generated, strict=True))
        if a is not None and b is not None
    ]
    simple = {"l1": image.l1, "mse": image.mse, "psnr": image.psnr, "ssim": image.ssim}
    for name in names:
        if name in simple:
            for i, a, b in pairs:
                values[name][i] = simple[name](a, b)
    if "lpips" in names and networks.lpips is not None and pairs:
        left = to_tensor([a for _, a, _ in pairs], networks.device)
        right = to_tensor([b for _, _, b in pairs], networks.device)
        for (i, _, _), value in zip(pairs, run(networks.lpips, left, right), strict=True):
            values["lpips"][i] = float(value)
    return values


def score_videos(
    driving: Iterable[Image | None],
    generated: Iterable[Image | None],
    target: Image,
    inversion: Image | None = None,
    *,
    networks: Networks,
    metrics: Sequence[str] = CROSS,
    driving_measures: Measures | None = None,
    answers: Iterable[TrueFrame] | None = None,
    batch: int = BATCH,
) -> Scores:
    """All values of one generated video.

    Args:
        driving: aligned driving frames, uint8 [h, h, 3]; None for a frame without an aligned face.
        generated: aligned generated frames in the same order, uint8 of any square size; None where one is
            missing. What comes after the last driving frame is ignored, what is missing counts as such.
        target: the aligned target frame.
        inversion: its reconstruction by the inverter, for ``csim_inversion`` and ``inversion_csim``.
        networks: from ``load_networks`` for the same metrics.
        metrics: names; image metrics (``IMAGE``) only make sense when the driving frame is the right answer.
        driving_measures: what an earlier call measured on the same driving frames; those are then only read
            for image metrics and may be None otherwise.
        answers: the true answers of the driving frames, for the metrics ``TRUTH``.
        batch: frames that go through a network at once.

    Raises:
        InputError: an unknown metric, or no frame to compare.
    """
    unknown = [name for name in metrics if name not in METRICS]
    if unknown:
        raise InputError("metrics", f"unknown: {', '.join(unknown)}", f"known: {', '.join(METRICS)}")
    pictures = [name for name in metrics if name in IMAGE]
    recorders = (
        _Recorder(networks, with_identity=False),
        _Recorder(networks, with_identity=networks.identity is not None),
    )
    compared: dict[str, list[float]] = {name: [] for name in pictures}
    truth = AnswerScorer(networks, metrics) if answers is not None else None
    expected = iter(answers if answers is not None else ())
    missing = 0
    for left, right in _chunks(driving, generated, batch):
        if driving_measures is None:
            recorders[0].add(left)
        recorders[1].add(right)
        missing += sum(frame is None for frame in right)
        for name, values in _compare(pictures, left, right, networks).items():
            compared[name] += values
        if truth is not None:
            truth.add(right, list(islice(expected, len(right))))
    own = recorders[0].result() if driving_measures is None else driving_measures
    made = recorders[1].result()
    if missing == len(made.pose):
        raise InputError("generated video", "there is no frame to score", "both videos need at least one")
    frames: dict[str, NDArray | Sequence[float]] = dict(compared)
    clips: dict[str, tuple[float, int]] = {}
    _motion(own, made, metrics, frames, clips)
    _identity(made, target, inversion, networks, metrics, frames, clips)
    if truth is not None:
        of_frames, of_clips = truth.result(made.pose, made.landmarks)
        frames |= of_frames
        clips |= of_clips
    return Scores(_rows(metrics, frames, clips, networks), own, made, missing)


def lost_rows(metrics: Sequence[str], names: Mapping[str, str], frames: int) -> list[dict[str, Any]]:
    """The rows of a pair of which there is no video: no value, and nothing covered.

    Args:
        metrics: names; those that take an inversion are left out.
        names: as in ``Networks``.
        frames: driving frames of the pair.
    """
    found = {name: (float("nan"), 0) for name in metrics if name not in _INVERSION}
    found |= {"coverage": (0.0, frames)} if "coverage" in found else {}
    return _rows(metrics, {}, found, Networks(names=names))


def _motion(
    own: Measures, made: Measures, metrics: Sequence[str], frames: dict[str, Any], clips: dict[str, Any]
) -> None:
    known = int((~np.isnan(own.pose[:, :2] + made.pose[:, :2]).any(axis=1)).sum())
    seen = own.found & made.found
    if "pose_mae" in metrics:
        frames["pose_mae"] = pose.pose_mae(own.pose, made.pose)
    if "yaw_corr" in metrics:
        clips["yaw_corr"] = pose.yaw_corr(own.pose, made.pose), known
    if "pitch_corr" in metrics:
        clips["pitch_corr"] = pose.pitch_corr(own.pose, made.pose), known
    if {"fl_corr", "fl_interpolated", "fl_constant", *SIGNALS} & set(metrics):
        fl = expression.fl_corr(own.landmarks, made.landmarks)
        detected = int(seen.sum())
        clips["fl_corr"] = fl.value, detected
        clips |= {name: (value, detected) for name, value in fl.parts.items()}
        clips["fl_interpolated"] = float(fl.interpolated), len(seen)
        clips["fl_constant"] = float(fl.constant), len(SIGNALS)
    if "jitter" in metrics:
        clips["jitter"] = temporal.jitter(own.landmarks, made.landmarks), int(seen.sum())
    if "coverage" in metrics:
        clips["coverage"] = statistics.coverage(own.found, made.found), len(seen)


def _identity(
    made: Measures,
    target: Image,
    inversion: Image | None,
    networks: Networks,
    metrics: Sequence[str],
    frames: dict[str, Any],
    clips: dict[str, Any],
) -> None:
    if networks.identity is None:
        return
    reference = run(networks.identity, to_tensor([target], networks.device))[0]
    if "csim" in metrics:
        frames["csim"] = identity.cosine(made.embeddings, reference)
    if inversion is None:
        return
    reached = run(networks.identity, to_tensor([inversion], networks.device))[0]
    if "csim_inversion" in metrics:
        frames["csim_inversion"] = identity.cosine(made.embeddings, reached)
    if "inversion_csim" in metrics:
        clips["inversion_csim"] = float(identity.cosine(reached[None], reference)[0]), 1


def _rows(
    metrics: Sequence[str],
    frames: Mapping[str, NDArray | Sequence[float]],
    clips: Mapping[str, tuple[float, int]],
    networks: Networks,
) -> list[dict[str, Any]]:
    rows = []
    for name in metrics:
        metric = METRICS[name]
        common = {
            "metric": name,
            "version": metric.version,
            "networks": ", ".join(networks.names.get(role, role) for role in metric.networks),
        }
        if name in frames:
            rows += [
                {**common, "frame": i, "value": _number(value), "n": int(np.isfinite(value))}
                for i, value in enumerate(frames[name])
            ]
            value, n = statistics.clip_mean(frames[name])
        elif name in clips:
            value, n = clips[name]
        else:
            continue
        rows.append({**common, "frame": None, "value": _number(value), "n": n})
    return rows


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
