"""The shipped mapping on rendered heads: what comes from the driving person, and what from the target."""

from itertools import combinations, product

import numpy as np
import pytest
import torch

from remime.faces.alignment import quad, warp
from remime.faces.mesh import BLENDSHAPES, load_mesh
from remime.faces.pose import load_pose
from remime.generators import load_generator
from remime.heads.take import Take, render
from remime.images import to_tensor
from remime.methods import Driving, load_method
from remime.metrics.temporal import pearson
from remime.models import shipped

NETWORKS = ("head-anatomy", "head-parts", "mobile-ffhq", "face-mesh", "blendshapes", "hopenet-lite")
PEOPLE, MOTIONS, FRAMES = 4, (7, 8, 9), 5
MOMENTS = len(MOTIONS) * FRAMES
TARGETS = 3

pytestmark = [pytest.mark.weights, pytest.mark.slow]


@pytest.fixture(scope="module")
def driving(weights):
    """Aligned frames [people, moments, 3, 256, 256] of people in the same motions, all in other scenes."""
    for name in NETWORKS:
        weights(name)
    frames = []
    for person, motion in product(range(PEOPLE), MOTIONS):
        take = Take(500 + person, motion, 900 + 10 * person + motion, FRAMES, 3, 256, 30, 15)
        frames += [warp(r.image, quad(r.landmarks), 256)[0] for r in render(take)]
    return to_tensor(np.stack(frames)).view(PEOPLE, MOMENTS, 3, 256, 256)


@pytest.fixture(scope="module")
def mapping(driving):
    generator = load_generator("mobile-ffhq")
    return load_method({"method": "mapping"}, shipped("mapping-small"), generator), generator


def leakage(values):
    """The standard deviation over people at one moment in that over moments, of [people, moments, k]."""
    people = values.var(0, correction=0).sum(-1).mean()
    moments = values.mean(0).var(0, correction=0).sum()
    return float((people / moments).sqrt())


def test_the_same_motion_by_other_people_is_much_the_same(driving, mapping):
    """Measured 0.55, of which all but 0.32 is the same for all moments; the bounds leave a tenth."""
    method, _ = mapping
    with torch.inference_mode():
        added = method.map.motion(method.motion_encoder(driving.flatten(0, 1))).view(PEOPLE, MOMENTS, -1)
    assert leakage(added) < 0.62
    assert leakage(added - added.mean(1, keepdim=True)) < 0.35


def test_relative_expressions_leave_out_how_faces_are_built(driving, mapping):
    """Measured 0.48, where it is 0.55 when all is transferred; the course over time stays as it was."""
    plain, generator = mapping
    relative = load_method(
        {"method": "mapping", "relative_expression": 1.0}, shipped("mapping-small"), generator
    )
    moved = {}
    with torch.inference_mode():
        clips = [Driving(rest=relative.rest(relative.observe(frames))) for frames in driving]
        latent = generator.broadcast(generator.mean_latent[None])[0]
        image = generator.synthesize(latent[None], resolution=256)[0]
        for method in (plain, relative):
            target = method.identify(latent, image)
            out = [
                method.drive(target, frames, driving=clip)
                for frames, clip in zip(driving, clips, strict=True)
            ]
            moved[method] = torch.stack(out).flatten(2)
    offsets = moved[relative] - moved[plain]
    assert torch.allclose(offsets, offsets[:, :1].expand_as(offsets), atol=1e-4)  # one for each person
    assert leakage(moved[relative]) < 0.9 * leakage(moved[plain])


def test_turns_are_told_from_expressions(driving, mapping):
    """Without expressions the head turns alike, three quarters as far, and the mouth hardly opens.

    Measured 0.77 and 0.04. What M has learned of turns beside the measured directions counts as expression.
    """
    plain, generator = mapping
    still = load_method(
        {"method": "mapping", "expression_strength": 0.0}, shipped("mapping-small"), generator
    )
    pose, mesh = load_pose("hopenet-lite"), load_mesh()
    yaw, jaw = [], []
    with torch.inference_mode():
        latent = generator.broadcast(generator.mean_latent[None])[0]
        image = generator.synthesize(latent[None], resolution=256)[0]
        for method in (plain, still):
            out = method.drive(method.identify(latent, image), driving[1])
            images = torch.cat([generator.synthesize(w_plus[None], resolution=256) for w_plus in out])
            yaw.append(pose(images)[:, 0].numpy())
            jaw.append(mesh(images).blendshapes[:, BLENDSHAPES.index("jawOpen")].numpy())
    assert pearson(*yaw) > 0.97
    assert 0.65 < yaw[1].std() / yaw[0].std() < 0.95
    assert jaw[1].std() < 0.2 * jaw[0].std()


def test_other_targets_move_alike(driving, mapping):
    """Of a target only itself gets into the result: W+ moves by the same, pictures turn and talk alike."""
    method, generator = mapping
    frames = driving[0]
    pose, mesh = load_pose("hopenet-lite"), load_mesh()
    source = torch.Generator().manual_seed(3)
    moved, yaw, jaw = [], [], []
    with torch.inference_mode():
        for w in generator.truncate(generator.mapping(torch.randn(TARGETS, 512, generator=source)), 0.7):
            latent = generator.broadcast(w[None])[0]
            target = method.identify(latent, generator.synthesize(latent[None], resolution=256)[0])
            out = method.drive(target, frames)
            moved.append(out - out[:1])
            images = torch.cat([generator.synthesize(w_plus[None], resolution=256) for w_plus in out])
            yaw.append(pose(images)[:, 0].numpy())
            jaw.append(mesh(images).blendshapes[:, BLENDSHAPES.index("jawOpen")].numpy())
    for a, b in combinations(range(TARGETS), 2):
        assert torch.allclose(moved[a], moved[b], atol=1e-4)  # of latents of about 1, in float32
        assert pearson(yaw[a], yaw[b]) > 0.9
        assert pearson(jaw[a], jaw[b]) > 0.5  # measured 0.78: one of them opens it late
