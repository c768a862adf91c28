"""What every metric is called, what it means, and which version of its definition is in force."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """The definition of one metric.

    Args:
        name: key in the score tables.
        version: raised whenever a definition changes; a score row carries it.
        unit: of the value; empty for plain ratios.
        higher_is_better: direction; None when neither is (a count, a state).
        networks: roles of the networks it rests on (``pose``, ``landmarks``, ``identity``, ``lpips``,
            ``mesh``).
        per: ``frame``: a value for each frame, whose mean is the clip's; ``clip``: one value for a clip.
        title: for tables and axes.
        description: one sentence for the report.
        digits: decimals that are worth printing.
        counts_frames: whether a score row's ``n`` counts frames, so that it gives a coverage.
    """

    name: str
    version: int
    unit: str
    higher_is_better: bool | None
    networks: tuple[str, ...]
    per: Literal["frame", "clip"]
    title: str
    description: str
    digits: int = 3
    counts_frames: bool = True

    @property
    def arrow(self) -> str:
        """``↑`` when larger is better, ``↓`` when smaller is, else nothing."""
        return {True: "↑", False: "↓", None: ""}[self.higher_is_better]


_ALL = (
    Metric(
        "pose_mae", 1, "°", False, ("pose",), "frame", "Pose (MAE)",
        "Mean of |Δyaw| and |Δpitch| between the generated and the driving frame (P1, Sec. 4.3).",
        digits=2,
    ),
    Metric(
        "yaw_corr", 1, "", True, ("pose",), "clip", "Yaw correlation",
        "Pearson correlation of the yaw of both videos; only clips whose yaw varies by 2° or more.",
    ),
    Metric(
        "pitch_corr", 1, "", True, ("pose",), "clip", "Pitch correlation",
        "Pearson correlation of the pitch of both videos; only clips whose pitch varies by 2° or more.",
    ),
    Metric(
        "fl_corr", 1, "", True, ("landmarks",), "clip", "FL (CORR)",
        "Zero-lag correlation of five landmark ratios of both videos, mean over the ratios (P1, Sec. 4.3).",
    ),
    Metric(
        "fl_left_eye", 1, "", True, ("landmarks",), "clip", "Left eye correlation",
        "Correlation of the aspect ratio of the eye of landmarks 36–41.",
    ),
    Metric(
        "fl_right_eye", 1, "", True, ("landmarks",), "clip", "Right eye correlation",
        "Correlation of the aspect ratio of the eye of landmarks 42–47.",
    ),
    Metric(
        "fl_mouth", 1, "", True, ("landmarks",), "clip", "Mouth correlation",
        "Correlation of the aspect ratio of the inner lips (landmarks 60–67).",
    ),
    Metric(
        "fl_left_brow", 1, "", True, ("landmarks",), "clip", "Left brow correlation",
        "Correlation of the brow's distance to its eye (landmarks 17–21) over the eye's width.",
    ),
    Metric(
        "fl_right_brow", 1, "", True, ("landmarks",), "clip", "Right brow correlation",
        "Correlation of the brow's distance to its eye (landmarks 22–26) over the eye's width.",
    ),
    Metric(
        "fl_interpolated", 1, "frames", None, ("landmarks",), "clip", "Interpolated frames",
        "Frames whose landmark ratios were interpolated over a short gap in detection.",
        digits=1,
    ),
    Metric(
        "fl_constant", 1, "signals", None, ("landmarks",), "clip", "Constant signals",
        "Landmark ratios without a correlation, because one of the two signals does not change.",
        digits=1, counts_frames=False,
    ),
    Metric(
        "csim", 1, "", True, ("identity",), "frame", "ID (CSIM)",
        "Cosine of the identity embeddings of the generated frame and the target frame (P1, Sec. 4.3).",
    ),
    Metric(
        "csim_inversion", 1, "", True, ("identity",), "frame", "ID to the inversion",
        "Cosine of the identity embeddings of the generated frame and the inverted target frame.",
    ),
    Metric(
        "inversion_csim", 1, "", True, ("identity",), "clip", "Inversion ceiling",
        "Cosine of the target frame and its own inversion: what the encoder leaves within reach (P1: 0.83).",
        counts_frames=False,
    ),
    Metric(
        "l1", 1, "", False, (), "frame", "L1",
        "Mean absolute difference to the driving frame on the scale 0–255.",
        digits=1,
    ),
    Metric(
        "mse", 1, "", False, (), "frame", "MSE",
        "Mean squared difference to the driving frame on the scale 0–1.",
        digits=4,
    ),
    Metric(
        "psnr", 1, "dB", True, (), "frame", "PSNR",
        "Peak signal-to-noise ratio against the driving frame, peak 255, mean over frames.",
        digits=1,
    ),
    Metric(
        "ssim", 1, "", True, (), "frame", "SSIM",
        "Structural similarity to the driving frame: RGB, 11×11 Gaussian window, σ 1.5, range 255.",
    ),
    Metric(
        "lpips", 1, "", False, ("lpips",), "frame", "LPIPS",
        "Learned perceptual distance to the driving frame.",
    ),
    Metric(
        "jitter", 1, "×", False, ("landmarks",), "clip", "Jitter",
        "Landmark acceleration of the generated video over that of the driving one; 1: equally steady.",
        digits=2,
    ),
    Metric(
        "coverage", 1, "", True, ("landmarks",), "clip", "Coverage",
        "Share of frames with a detected face in both the driving and the generated video.",
    ),
    Metric(
        "truth_lpips", 1, "", False, ("lpips",), "frame", "LPIPS to the answer",
        "Learned perceptual distance to the true answer, weighted by the answer's face.",
    ),
    Metric(
        "truth_ssim", 1, "", True, (), "frame", "SSIM to the answer",
        "Structural similarity to the true answer, over windows centred in the answer's face.",
    ),
    Metric(
        "truth_psnr", 1, "dB", True, (), "frame", "PSNR to the answer",
        "Peak signal-to-noise ratio against the true answer inside its face, peak 255, mean over frames.",
        digits=1,
    ),
    Metric(
        "truth_l1", 1, "", False, (), "frame", "L1 to the answer",
        "Mean absolute difference to the true answer inside its face, on the scale 0–255.",
        digits=1,
    ),
    Metric(
        "truth_nme", 1, "%", False, ("landmarks",), "frame", "NME to true landmarks",
        "Normalised mean error: distance of 51 landmarks (no contour) of the generated frame to the true "
        "ones, over the true distance of the outer eye corners.",
        digits=2,
    ),
    Metric(
        "truth_nme_shape", 1, "%", False, ("landmarks",), "frame", "NME, registered",
        "The same after the best similarity transform: without position, size and roll of the face.",
        digits=2,
    ),
    Metric(
        "truth_pose_mae", 1, "°", False, ("pose",), "frame", "Pose to the truth (MAE)",
        "Mean of |Δyaw| and |Δpitch| between the generated frame and the true angles.",
        digits=2,
    ),
    Metric(
        "truth_pose_to_answer", 1, "°", False, ("pose",), "frame", "Pose to the answer (MAE)",
        "Mean of |Δyaw| and |Δpitch| between the generated frame and the answer, as the network sees both.",
        digits=2,
    ),
    Metric(
        "truth_blendshape_mae", 1, "", False, ("mesh",), "frame", "Blendshapes (MAE)",
        "Mean absolute difference of 51 blendshapes, 0–1, of the generated frame to the true coefficients.",
    ),
    Metric(
        "truth_blendshape_corr", 1, "", True, ("mesh",), "clip", "Blendshapes (CORR)",
        "Pearson correlation over time of generated and true blendshapes, mean over those that move.",
    ),
)  # fmt: skip

METRICS: dict[str, Metric] = {metric.name: metric for metric in _ALL}

TABLE1 = ("pose_mae", "fl_corr", "csim")
TRUTH = tuple(name for name in METRICS if name.startswith("truth_"))
"""Those that compare with a true answer; in protocols of the kind ``truth`` only."""
IMAGE = ("l1", "mse", "psnr", "ssim", "lpips")
SIGNALS = ("fl_left_eye", "fl_right_eye", "fl_mouth", "fl_left_brow", "fl_right_brow")
