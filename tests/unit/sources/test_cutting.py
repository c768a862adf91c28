"""Clips are cut at exact times, with room for the FFHQ crop, and look like their source."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from remime.faces import alignment
from remime.sources import ClipError
from remime.sources.cutting import FACE, HEAD, Cut, Margin, crop_of, cut_clip, part_of
from remime.sources.parts import Part, copy_parts
from remime.video import probe, provenance, read
from tests import clips

BORDER = 0.1  # of the quad's side, remime.faces.alignment


def turned(points: NDArray[np.float64], degrees: float) -> NDArray[np.float64]:
    a = np.deg2rad(degrees)
    return points @ np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]])


def room(box_points: NDArray[np.float64], corners: NDArray[np.float64]) -> list[float]:
    """How far a quad with its border reaches over the box of points: left, right, above, below."""
    side = np.linalg.norm(corners[3] - corners[0])
    low, high = box_points.min(0), box_points.max(0)
    width, height = high - low
    first, last = corners.min(0) - BORDER * side, corners.max(0) + BORDER * side
    return [
        (low[0] - first[0]) / width,
        (last[0] - high[0]) / width,
        (low[1] - first[1]) / height,
        (last[1] - high[1]) / height,
    ]


def needed(points: NDArray[np.float64], *, head: bool) -> NDArray[np.float64]:
    """The most room over all angles up to 45°; the box holds the landmarks, or the upright quad."""
    points = points - alignment.quad(points).mean(0)
    quads = {a: alignment.quad(turned(points, a)) for a in np.linspace(-45, 45, 91)}
    boxes = {a: quads[0.0] if head else turned(points, a) for a in quads}
    return np.max([room(boxes[a], quads[a]) for a in quads], axis=0)


def mean_face() -> NDArray[np.float64]:
    from remime.faces import template

    return template._mean_landmarks().numpy().astype(np.float64)


@pytest.mark.parametrize(("margin", "head"), [(FACE, False), (HEAD, True)])
def test_margins_are_what_the_quad_of_a_turned_head_needs(margin: Margin, head: bool) -> None:
    left, right, above, below = needed(mean_face(), head=head)
    found = [margin.side, margin.side, margin.above, margin.below]
    assert np.array(found) == pytest.approx([left, right, above, below], abs=0.01)


def test_margins_serve_a_real_face() -> None:
    """Another face than the mean one: its box with the margin holds its whole turned quad, without border."""
    for angle in (-40, 0, 25):
        points = turned(clips.LANDMARKS, angle)
        low, high = points.min(0), points.max(0)
        width, height = high - low
        corners = alignment.quad(points)
        assert low[0] - FACE.side * width <= corners[:, 0].min()
        assert high[0] + FACE.side * width >= corners[:, 0].max()
        assert low[1] - FACE.above * height <= corners[:, 1].min()
        assert high[1] + FACE.below * height >= corners[:, 1].max()


def test_boxes_in_pixels_of_another_height_and_in_fractions() -> None:
    pixels = Cut("v", 0, 1, (200, 100, 100, 50), 360, "head")
    # Of 720 lines everything is twice as large: x 400, y 200, 200 × 100, and 0.31 of it on each side.
    assert crop_of(pixels, 1280, 720) == (338, 169, 324, 162)
    fractions = Cut("v", 0, 1, (0.5, 0.25, 0.1, 0.5), 0, "head")
    assert crop_of(fractions, 1000, 400) == (469, 38, 162, 324)
    assert crop_of(Cut("v", 0, 1), 1000, 400) is None


def test_a_crop_stays_within_the_picture() -> None:
    assert crop_of(Cut("v", 0, 1, (0, 0, 1, 1), 0, "face"), 640, 360) == (0, 0, 640, 360)
    with pytest.raises(ClipError, match="lies outside of the 640×360 picture") as caught:
        crop_of(Cut("v", 0, 1, (700, 10, 50, 50), 360, "face"), 640, 360)
    assert caught.value.status == "unreadable"


def test_a_cut_is_the_same_after_a_round_trip() -> None:
    cut = Cut("AAAAAAAAAAA", 1.25, 2.5, (0.1, 0.2, 0.3, 0.4), 0, "face")
    assert Cut.parse(cut.text()) == cut


@pytest.fixture(scope="module")
def part(tmp_path_factory: pytest.TempPathFactory) -> Part:
    folder = tmp_path_factory.mktemp("part")
    codec = ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", 4, "-g", 50)
    video = clips.encode(folder / "v.mp4", clips.numbered(150), 25, codec)
    with video.open("rb") as file:
        return copy_parts(file, [(2.0, 9.0)], folder)[0]


@pytest.mark.parametrize(
    ("start", "end", "first", "count"), [(2.0, 3.0, 50, 25), (2.68, 4.0, 67, 33), (3.999, 4.001, 100, 1)]
)
def test_a_clip_has_exactly_its_frames(
    part: Part, tmp_path: Path, start: float, end: float, first: int, count: int
) -> None:
    path = tmp_path / "c.mp4"
    assert cut_clip(Cut("v", start, end), part, path) == count
    found = [clips.read_number(frame.image) for frame in read(path)]
    assert found == list(range(first, first + count))
    assert (probe(path).fps, provenance(path)["cut_from"]) == (25, "v")


def test_a_clip_behind_the_end_of_its_video_is_too_short(part: Part, tmp_path: Path) -> None:
    with pytest.raises(ClipError, match=r"ends before 7 s") as caught:
        cut_clip(Cut("v", 7.0, 8.0), part, tmp_path / "c.mp4")
    assert caught.value.status == "too_short"
    assert cut_clip(Cut("v", 5.0, 8.0), part, tmp_path / "c.mp4") == 25


def test_a_part_of_several_is_found(part: Part) -> None:
    other = Part(part.path, 20.0, 30.0, 20.0, 25.0, 64, 64, False)
    assert part_of(Cut("v", 21, 22), [part, other]) is other


def test_a_clip_looks_like_its_source(tmp_path: Path) -> None:
    """Less is lost than between the source and its own compression (PSNR of luminance and colour)."""
    frames = clips.moving_face(12, size=320, scale=2.0)
    codec = ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", 20)
    video = clips.encode(tmp_path / "v.mp4", frames, 25, codec)
    with video.open("rb") as file:
        (part,) = copy_parts(file, [(0, 1)], tmp_path)
    cut_clip(Cut("v", 0, 1, (80, 80, 120, 120), 320, "head"), part, tmp_path / "c.mp4")
    x, y, w, h = crop_of(Cut("v", 0, 1, (80, 80, 120, 120), 320, "head"), 320, 320) or ()
    source = [frame.image[y : y + h, x : x + w] for frame in read(video)]
    found = [frame.image[:h, :w] for frame in read(tmp_path / "c.mp4")]
    original = [frame[y : y + h, x : x + w] for frame in frames]
    assert psnr(found, source) > 42
    assert psnr(found, source) > psnr(source, original)


def psnr(a: list[NDArray[np.uint8]], b: list[NDArray[np.uint8]]) -> float:
    error = np.mean([np.mean((x.astype(float) - y) ** 2) for x, y in zip(a, b, strict=True)])
    return float(10 * np.log10(255**2 / error))
