"""What the parts of a reenactment need, on real networks and a clock that is told what to say."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image

from remime.cli import networks, parts
from tests import clips


def test_the_first_round_does_not_count():
    said = iter([100.0, 6.0, 2.0, 4.0])
    clock = parts._Clock("cpu")
    clock.once = lambda work: next(said)  # type: ignore[method-assign]
    assert clock.per_item(lambda: None, 2) == 2.0


def test_single_inversions_give_what_batches_do():
    """The loop beside which batches are measured does the same work."""
    from remime.encoders.restyle import ReStyle
    from tests import tiny

    generator = tiny.generator()

    class Halves(torch.nn.Module):
        def forward(self, x):
            seen.append((x.shape, x.detach().clone()))
            return (x[:, :3] - x[:, 3:]).mean((1, 2, 3))[:, None, None].expand(-1, generator.rows, 512)

    seen: list = []
    inverter = ReStyle(Halves(), generator, steps=2, size=generator.resolution)
    frames = torch.rand(3, 3, generator.resolution, generator.resolution) * 2 - 1
    inverter.invert(frames, 3)
    batched, seen[:] = [x for _, x in seen], []
    engine = type("E", (), {"inverter": inverter})()
    parts._one_by_one(engine, frames)
    single = [torch.cat([x for _, x in seen[step::2]]) for step in range(2)]
    assert [shape[0] for shape, _ in seen] == [1] * 6
    for one, many in zip(single, batched, strict=True):
        torch.testing.assert_close(one, many, atol=1e-5, rtol=1e-5)


@pytest.mark.weights
def test_all_parts_are_told(remime, weights, tmp_path):
    for name in networks.REENACT:
        weights(name)
    Image.fromarray(clips.portrait()).save(tmp_path / "face.png")
    ended = remime(
        "bench", "--driving", tmp_path / "face.png", "--parts", "--images", 1, "--device", "cpu", "--json"
    )
    assert ended.code == 0
    rows = {row["part"]: row for row in json.loads(ended.out)["parts"]}
    assert all(row["seconds"] > 0 for row in rows.values())
    assert {row["per"] for row in rows.values()} == {"frame", "target", "clip"}
    # More work takes longer, whatever the machine does meanwhile.
    assert rows["inversion, image by image with full decodes"]["seconds"] > rows["motion encoder"]["seconds"]
    assert {"faces: read, find, align", "generator, 256²", "x264, 256²"} <= set(rows)


@pytest.mark.weights
def test_a_video_without_a_face(remime, weights, tmp_path):
    weights("dlib-landmarks-68")
    driving = clips.encode(tmp_path / "empty.mp4", clips.no_face(3))
    ended = remime("bench", "--driving", driving, "--parts", "--device", "cpu")
    assert ended.code == 2
    assert f"{driving}: no face was found" in ended.err
