"""P1's mapping: M is linear and splits, E_m sees what it should, files bring it back."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from remime.errors import InputError
from remime.faces.mesh import BLENDSHAPES, POINTS
from remime.methods import Driving, build_method, load_method
from remime.methods.mapping import Correction, DirectionMap, FullMap, Mapping, MeshMotionEncoder
from remime.methods.resting import RESTS, Rest
from remime.models import load_model, save_model
from remime.sources.directions import load_directions
from tests import tiny

ROWS = 3


def small(seed=0, rows=tiny.ROWS, **more):
    torch.manual_seed(seed)
    method = Mapping(rows, "small", width=16, components=4, **more)
    torch.nn.init.normal_(method.map.directions, std=3)
    if method.map.correction is not None:
        method.map.correction.initialise(torch.randn(20, rows, 512))
        torch.nn.init.normal_(method.map.correction.out.weight)
    torch.nn.init.normal_(method.motion_encoder.out.weight)
    method.motion_encoder.attach(tiny.Mesh())
    return method.eval().requires_grad_(False)


def frames(n=4, side=32):
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_full_map_is_one_linear_layer():
    """Linear(2·rows·512 → rows·512) on [identity, motion], weights 1e-5, bias 1e-3 (methods.md, Sec. 1)."""
    torch.manual_seed(0)
    full = FullMap(2)
    identity, motion = torch.randn(2, 3, 2, 512)
    weight, bias = full.state_dict()["linear_relu.0.weight"], full.state_dict()["linear_relu.0.bias"]
    assert weight.shape == (1024, 2048)
    expected = F.linear(torch.cat([identity, motion], 1).flatten(1), weight, bias).view(3, 2, 512)
    assert torch.allclose(full.identity(identity) + full.motion(motion), expected, atol=1e-6)
    assert torch.equal(bias, torch.full((1024,), 1e-3))
    assert float(weight.detach().std()) == pytest.approx(1e-5, rel=0.01)


def test_size_of_the_papers_map():
    with torch.device("meta"):
        method = Mapping(18)
    assert sum(p.numel() for p in method.map.parameters()) == 2 * (18 * 512) ** 2 + 18 * 512
    shapes = {k: tuple(v.shape) for k, v in method.motion_encoder.state_dict().items()}
    assert shapes["linear.weight"] == (18 * 512, 512)
    assert shapes["output_layer_2.3.weight"] == (512, 25088)


def test_small_map_moves_along_its_directions_only():
    """z + (c_s - c_t) · D, by hand."""
    method = small(rows=ROWS)
    latents, codes, own = torch.randn(5, ROWS, 512), torch.randn(5, 4), torch.randn(5, 4)
    by_hand = latents + torch.einsum("bk,krd->brd", codes - own, method.map.directions)
    assert torch.allclose(method(latents, codes, own), by_hand, atol=1e-4)
    with pytest.raises(ValueError, match="codes of the targets"):
        method(latents, codes)


@pytest.mark.parametrize("correction", [0, 5])
def test_target_driven_by_itself_stays(correction):
    method = small(rows=ROWS, correction=correction)
    latent, own = torch.randn(ROWS, 512), frames(1)
    assert torch.allclose(method.drive(method.identify(latent, own[0]), own)[0], latent, atol=1e-5)


def test_strength_multiplies_the_motion():
    latent, target, driving = torch.randn(ROWS, 512), frames(1, 48)[0], frames()
    moved = {}
    for strength in (0.0, 0.5, 1.0):
        method = small(rows=ROWS, strength=strength)
        moved[strength] = method.drive(method.identify(latent, target), driving) - latent
    assert not moved[0.0].any()
    assert torch.allclose(2 * moved[0.5], moved[1.0], atol=1e-5)
    assert moved[1.0].abs().min() > 0


def test_correction_depends_on_the_target_and_lies_in_its_latents():
    correction = small(rows=ROWS, correction=5).map.correction
    targets, difference = torch.randn(2, ROWS, 512), torch.randn(1, 4).expand(2, -1)
    added = correction(targets, difference)
    assert not torch.allclose(added[0], added[1], atol=1e-3)
    assert torch.allclose(correction(targets[:1], difference[:1]), added[:1], atol=1e-4)
    axes = correction.axes
    assert torch.allclose(axes @ axes.T, torch.eye(5), atol=1e-4)
    flat = added.flatten(1)
    assert torch.allclose(flat @ axes.T @ axes, flat, rtol=1e-3, atol=1e-3)
    method = small(rows=ROWS, correction=5)
    codes, own = torch.randn(2, 4), torch.randn(2, 4)
    expected = targets + method.map.motion(codes - own) + correction(targets, codes - own)
    assert torch.allclose(method(targets, codes, own), expected, atol=1e-4)


def test_correction_of_few_latents_has_few_axes():
    correction = Correction(ROWS, 4, rank=8)
    correction.initialise(torch.randn(3, ROWS, 512))
    assert not correction.axes[3:].any()
    assert not correction(torch.randn(2, ROWS, 512), torch.randn(2, 4)).any()  # nothing is learned yet


@pytest.mark.parametrize(
    "option",
    [{"strength": 0.5}, {"expression_strength": 0.5}, {"relative_expression": 0.5}, {"correction": 4}],
)
def test_the_papers_map_has_no_rest(option):
    with pytest.raises(InputError, match="does not tell motion from rest"):
        Mapping(1, "paper", **option)


def test_expressions_are_scaled_and_turns_are_not():
    """M's directions as sums of measured ones: the summands that turn the head stay, the others shrink."""
    source = torch.Generator().manual_seed(3)
    measured = torch.randn(6, 8, 512, generator=source)
    measured[4] = measured[5]  # as good as equal ones must not blow up
    weights = torch.randn(4, 6, generator=source)
    weights[:, 4] = 0
    small_map = DirectionMap(8 + 2, components=4)
    beyond = torch.randn(4, 2, 512, generator=source)
    with torch.no_grad():
        small_map.directions[:, :8] = torch.einsum("ck,krd->crd", weights, measured)
        small_map.directions[:, 8:] = beyond
    small_map.take_apart(measured, [1, 3], 0.25)
    kept = torch.tensor([0.25, 1, 0.25, 1, 0.25, 0.25])
    expected = torch.einsum("ck,krd->crd", weights * kept, measured)
    assert torch.allclose(small_map.directions[:, :8], expected, atol=1e-4)
    assert torch.allclose(small_map.directions[:, 8:], 0.25 * beyond, atol=1e-5)


def test_directions_that_only_rounding_tells_apart_share_their_weight():
    """As the shipped ones of both lids, which are one direction times the spread of either."""
    source = torch.Generator().manual_seed(3)
    measured = torch.randn(4, ROWS, 512, generator=source)
    measured[3] = measured[2] * 0.97 / 3 * 3.0000001
    weights = torch.tensor([[0.5, -1.0, 1.0, 1.0], [0.2, 0.0, -0.6, -0.6]])
    small_map = DirectionMap(ROWS, components=2)
    with torch.no_grad():
        small_map.directions.copy_(torch.einsum("ck,krd->crd", weights, measured))
    rest = Rest(0.5, own=0.1, spread=1.0)
    small_map.take_apart(measured, [0], 1.0, {2: rest, 3: rest})
    assert torch.allclose(small_map.resting.readings, weights[:, 2:], atol=0.05)


def test_the_shipped_directions_give_sane_weights():
    steps = torch.from_numpy(load_directions().steps)
    small_map = DirectionMap(16, components=4)
    weights = torch.randn(4, len(steps), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        small_map.directions[:, : steps.shape[1]] = torch.einsum("ck,krd->crd", weights, steps)
    before = small_map.directions.clone()
    rest = Rest(0.5, own=0.1, spread=1.0)
    small_map.take_apart(steps, [0], 1.0, dict.fromkeys(range(len(steps)), rest))
    assert small_map.resting.readings.abs().max() < 10
    assert torch.allclose(small_map.directions, before, atol=1e-3)


MEASURED = torch.randn(3, ROWS, 512, generator=torch.Generator().manual_seed(4))


def relative(share, **more):
    """A mapping along three measured directions; faces rest at the last, a quarter of which is their own."""
    method = small(rows=ROWS, relative_expression=share, **more)
    weights = torch.randn(4, 3, generator=torch.Generator().manual_seed(6))
    method.map.directions.copy_(torch.einsum("ck,krd->crd", weights, MEASURED))
    method.map.take_apart(MEASURED, [0], method.expression_strength, {2: Rest(0.0, own=0.25, spread=1e3)})
    method.map.resting.usual.fill_(-0.7)
    return method, weights


@pytest.mark.parametrize(("share", "strength", "expression"), [(1, 1, 1), (0.5, 0.5, 0.25)])
def test_relative_expressions_leave_out_what_the_driving_face_rests_at(share, strength, expression):
    """By hand: of the parameter at which faces rest, the lowest of the clip becomes the target's rest."""
    method, weights = relative(share, strength=strength, expression_strength=expression)
    latent, target, driving = torch.randn(ROWS, 512), frames(1, 48)[0], frames()
    codes, own = method.motion_encoder(driving) @ weights, method.motion_encoder(target[None]) @ weights
    motion = codes - own
    motion[:, 2] -= share * (codes[:, 2].min() - (0.75 * -0.7 + 0.25 * own[0, 2]))
    motion = strength * motion * torch.tensor([1, expression, expression])
    expected = latent + torch.einsum("bk,krd->brd", motion, MEASURED)
    clip = Driving(rest=method.rest(method.observe(driving)))
    out = method.drive(method.identify(latent, target), driving, driving=clip)
    assert torch.allclose(out, expected, atol=1e-3)


def test_a_face_at_rest_brings_the_target_to_its_own_rest():
    method, weights = relative(1)
    latent, target, still = torch.randn(ROWS, 512), frames(1, 48)[0], frames(1).expand(3, -1, -1, -1)
    clip = Driving(rest=method.rest(method.observe(still)))
    moved = method.drive(method.identify(latent, target), still, driving=clip) - latent
    found = torch.linalg.lstsq(MEASURED.flatten(1).T, moved.flatten(1).T).solution
    own = (method.motion_encoder(target[None]) @ weights)[0, 2]
    assert found[2] == pytest.approx(float(0.75 * (-0.7 - own)), abs=1e-3)
    assert found[:2].abs().min() > 1e-2


def test_relative_expressions_ask_for_the_rest():
    method, _ = relative(1)
    absolute, _ = relative(0)
    assert (method.needs_rest, absolute.needs_rest) == (True, False)
    identity = method.identify(torch.randn(ROWS, 512), frames(1, 48)[0])
    with pytest.raises(ValueError, match="how the driving face rests"):
        method.drive(identity, frames())
    # A single image may show anything; it is taken as it is.
    assert torch.equal(
        method.drive(identity, frames(), driving=Driving()), absolute.drive(identity, frames())
    )


def test_direction_map_starts_from_measured_directions():
    small_map = DirectionMap(ROWS + 8, components=4)
    directions = torch.randn(3, 8, 512)
    small_map.initialise(directions)
    assert torch.equal(small_map.directions[:3, :8], directions)
    assert not small_map.directions[3].any()
    assert not small_map.directions[:, 8:].any()


@pytest.mark.parametrize("preset", ["small", "paper"])
def test_driving_is_the_mapping(preset):
    """A target mapped once and then driven gives what M gives for its latent and the frames' motion."""
    if preset == "small":
        method, driving = small(rows=ROWS), frames()
    else:
        torch.manual_seed(0)
        method, driving = Mapping(1).eval().requires_grad_(False), frames(1)
    latent = torch.randn(method.rows, 512)
    codes = method.motion_encoder(driving)
    assert codes.shape == (len(driving), *method.map.code_shape)
    target = frames(1, 48)
    own = method.motion_encoder(target) if preset == "small" else None
    expected = method(latent[None], codes[:1], own)
    assert torch.allclose(method.drive(method.identify(latent, target[0]), driving)[:1], expected, atol=1e-5)
    assert not method.needs_latents


def test_mesh_encoder_sees_the_mesh_and_the_expression():
    encoder = small().motion_encoder
    measured = encoder.measure(frames())
    result = tiny.Mesh()(frames())
    assert measured.shape == (4, 3 * POINTS + len(BLENDSHAPES))
    assert torch.allclose(measured[:, : 3 * POINTS], (result.points / 32 - 0.5).flatten(1))
    assert torch.equal(measured[:, 3 * POINTS :], result.blendshapes)


def test_mesh_encoder_standardises():
    encoder = small().motion_encoder
    measured = encoder.measure(frames())
    before = encoder.encode(measured)
    encoder.mean += 3
    encoder.spread *= 2
    assert torch.allclose(encoder.encode(2 * measured + 3), before, atol=1e-4)


def test_mesh_is_no_part_of_the_method():
    method = small()
    assert not any("mesh" in name for name in method.state_dict())
    assert not any(p.requires_grad for p in method.parameters())
    method.double()
    assert method.motion_encoder._mesh[0].points.dtype == torch.double
    with pytest.raises(ValueError, match="attach a mesh"):
        MeshMotionEncoder()(frames())


def test_wrong_shapes_and_names():
    with pytest.raises(ValueError, match="motion codes"):
        small()(torch.zeros(2, 8, 512), torch.zeros(2, 5), torch.zeros(2, 4))
    with pytest.raises(InputError, match="paper, small"):
        Mapping(2, "huge")
    with pytest.raises(InputError, match="linear, mapping"):
        build_method({"method": "fomm"}, tiny.generator())


@pytest.fixture
def file(tmp_path, monkeypatch):
    """``file(**tensors)``: the path of a small mapping's file."""
    monkeypatch.setattr("remime.faces.mesh.load_mesh", tiny.Mesh)

    def write(**more):
        tensors = {f"method.{k}": v for k, v in small(seed=5).state_dict().items()} | more
        options = {"method": "mapping", "preset": "small", "width": 16, "components": 4}
        save_model(tmp_path / "m.safetensors", tensors, {"kind": "method", "options": options})
        return tmp_path / "m.safetensors"

    return write


def test_file_gives_the_same_method(file):
    generator = tiny.generator()
    plain = {k: v.clone() for k, v in generator.state_dict().items()}
    loaded = load_method({"method": "mapping", "preset": "paper"}, file(), generator)
    latent = torch.randn(tiny.ROWS, 512)
    expected = small(seed=5).drive(small(seed=5).identify(latent, frames(1)[0]), frames())
    assert torch.equal(loaded.drive(loaded.identify(latent, frames(1)[0]), frames()), expected)
    assert not any(p.requires_grad for p in loaded.parameters())
    assert not loaded.training
    assert all(torch.equal(v, plain[k]) for k, v in generator.state_dict().items())


def test_faces_usually_rest_as_the_mean_face_does(file):
    generator = tiny.generator()
    loaded = load_method({"method": "mapping", "relative_expression": 0.5}, file(), generator)
    face = generator.synthesize(generator.broadcast(generator.mean_latent[None])).clamp(-1, 1)
    assert len(loaded.map.resting.usual) == len(RESTS)
    assert torch.allclose(loaded.map.resting.usual, loaded.observe(face)[0])
    assert loaded.map.resting.own.tolist() == pytest.approx([rest.own for rest in RESTS.values()])


def test_faces_usually_rest_as_the_tuned_generator_shows_it(file):
    generator = tiny.generator()
    tuned = {"generator.input.input": torch.full_like(generator.input.input, 3.0)}
    loaded = load_method({"method": "mapping", "relative_expression": 0.5}, file(**tuned), generator)
    face = generator.synthesize(generator.broadcast(generator.mean_latent[None])).clamp(-1, 1)
    assert torch.allclose(loaded.map.resting.usual, loaded.observe(face)[0])
    plain = load_method({"method": "mapping", "relative_expression": 0.5}, file(), tiny.generator())
    assert not torch.allclose(loaded.map.resting.usual, plain.map.resting.usual, atol=1e-3)


def test_tuned_generator_comes_with_the_file(file):
    generator = tiny.generator()
    tuned = {"generator.input.input": torch.full_like(generator.input.input, 0.25)}
    load_method({"method": "mapping"}, file(**tuned), generator)
    assert torch.equal(generator.input.input, tuned["generator.input.input"])
    assert torch.equal(generator.conv1.conv.weight, tiny.generator().conv1.conv.weight)


@pytest.mark.parametrize(("key", "usual"), [("expression_strength", 1), ("relative_expression", 0)])
def test_expressions_of_other_generators_cannot_be_told_from_turns(file, tmp_path, key, usual):
    options = {"method": "mapping", key: 0.5}
    model = load_model(file()).tensors
    meta = {"kind": "method", "generator": "stylegan2-x"}
    meta["options"] = {"method": "mapping", "preset": "small", "width": 16, "components": 4}
    save_model(tmp_path / "other.safetensors", model, meta)
    with pytest.raises(InputError, match="known of 'mobile-ffhq' alone, not of 'stylegan2-x'"):
        load_method(options, tmp_path / "other.safetensors", tiny.generator())
    load_method({**options, key: usual}, tmp_path / "other.safetensors", tiny.generator())


@pytest.mark.parametrize("key", ["expression_strength", "relative_expression"])
def test_a_correction_cannot_be_taken_apart(tmp_path, monkeypatch, key):
    monkeypatch.setattr("remime.faces.mesh.load_mesh", tiny.Mesh)
    tensors = {f"method.{k}": v for k, v in small(correction=4).state_dict().items()}
    meta = {"kind": "method", "options": {"preset": "small", "width": 16, "components": 4, "correction": 4}}
    save_model(tmp_path / "m.safetensors", tensors, meta)
    with pytest.raises(InputError, match=key + r": is 0\.5, but a mapping with a correction"):
        load_method({"method": "mapping", key: 0.5}, tmp_path / "m.safetensors", tiny.generator())


def test_tuned_generator_leaves_its_previews(file, monkeypatch):
    """They were fitted to the generator as it was."""
    dropped = []
    monkeypatch.setattr(tiny.StyleGAN2, "drop_previews", lambda self: dropped.append(self))
    generator = tiny.generator()
    load_method({"method": "mapping"}, file(), generator)
    assert not dropped
    old = {"generator.input.input": generator.input.input, "generator.previews.128.x": torch.ones(1)}
    load_method({"method": "mapping"}, file(**old), generator)
    assert dropped == [generator]
