"""Published checkpoints: recognised by their contents, converted, and built into networks."""

import argparse
import json
import os
import pickle
import random
import shutil
from contextlib import suppress

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from remime.encoders.inverter import imported_inverter, load_inverter
from remime.encoders.irse import load_arcface
from remime.encoders.restyle import ReStyle, load_imported
from remime.errors import InputError, WeightsError
from remime.faces.identity import load_identity
from remime.faces.pose import load_pose
from remime.generators import load_generator
from remime.generators.base import estimate_mean_latent
from remime.generators.stylegan2 import StyleGAN2
from remime.methods import imported_method, load_method
from remime.models import load_model, save_model
from remime.stages import train
from remime.weights import ensure, load, store, stylegan2, unpickle, verify
from remime.weights.importing import import_file, imported, verify_imported
from remime.weights.recognise import recognise

from . import official

ROWS = 8


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of weights."""
    monkeypatch.setenv("REMIME_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


@pytest.fixture(scope="module")
def parameters():
    """A generator at 32² by NVIDIA's names."""
    return official.nvidia_generator()


def close(actual, expected):
    torch.testing.assert_close(actual.double(), expected.double(), rtol=1e-4, atol=2e-5)


class TestStyleGAN2:
    @pytest.mark.parametrize(
        "form", ["nvidia", "nvidia 4", "tensorflow", "rosinality", "rosinality legacy", "bare"]
    )
    def test_every_form_gives_the_image_of_the_formulas(self, tmp_path, folder, parameters, form):
        path = tmp_path / "some.file"
        state, mean = official.rosinality_state(parameters), parameters["mapping.w_avg"]
        if form.startswith("nvidia"):
            official.nvidia_pickle(path, parameters, protocol=int(form[7:] or 3))
        elif form == "tensorflow":
            official.tensorflow_pickle(path, parameters)
        elif form == "bare":
            official.save(path, {f"module.{k}": v for k, v in state.items()} | {"module.latent_avg": mean})
        else:
            options = argparse.Namespace(size=32, lr=0.002)
            content = {"g": {}, "g_ema": state, "latent_avg": mean, "args": options}
            official.save(path, content, legacy=form.endswith("legacy"))
        done = import_file(path)
        assert (done.kind.name, done.name) == ("stylegan2", "stylegan2-some")
        generator = load_generator(done.name)
        assert generator.resolution == 32
        assert not any(p.requires_grad for p in generator.parameters())
        torch.manual_seed(0)
        z, w_plus = torch.randn(2, 512), torch.randn(2, ROWS, 512)
        expected = torch.stack([official.render(parameters, w) for w in w_plus])
        close(generator.synthesize(w_plus), expected)
        close(generator.mapping(z), official.mapped(parameters, z))
        torch.testing.assert_close(generator.mean_latent, mean)
        assert done.meta["notes"] == []
        if form.startswith("rosinality"):
            assert done.meta["options"] == {"lr": 0.002, "size": 32}

    def test_truncation_and_noise_without_their_buffers_are_fixed_once(self, tmp_path, folder, parameters):
        state = official.rosinality_state(parameters)
        state = {k: v for k, v in state.items() if not k.startswith("noises.")}
        done = import_file(official.save(tmp_path / "a.pt", {"g_ema": state}))
        assert any("noise buffers" in note for note in done.meta["notes"])
        assert any("mean latent" in note for note in done.meta["notes"])
        generator = load_generator(done.name)
        torch.testing.assert_close(generator.mean_latent, estimate_mean_latent(generator))
        again = import_file(tmp_path / "a.pt", name="stylegan2-again", directory=tmp_path / "other")
        first, second = load(done.name).tensors, load(again.name, tmp_path / "other").tensors
        assert all(torch.equal(first[name], second[name]) for name in first)
        assert first["noises.noise_3"].std() > 0.5

    def test_source_in_a_pickle_is_not_executed(self, tmp_path, folder, parameters):
        marker = tmp_path / "ran"
        source = f"open({str(marker)!r}, 'w')\nclass Generator:\n    pass\n"
        import_file(official.nvidia_pickle(tmp_path / "a.pkl", parameters, source))
        assert source.encode() in (tmp_path / "a.pkl").read_bytes()
        assert not marker.exists()

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            ({"c_dim": 10}, "conditional"),
            ({"architecture": "resnet"}, "architecture is 'resnet'"),
            ({"activation": "relu"}, "activation is 'relu'"),
        ],
    )
    def test_what_the_network_does_not_compute_is_refused(self, tmp_path, parameters, change, told):
        path = official.nvidia_pickle(tmp_path / "a.pkl", parameters, **change)
        with pytest.raises(InputError, match=told):
            recognise(path)

    def test_clamping_is_noted(self, tmp_path, parameters):
        path = official.nvidia_pickle(tmp_path / "a.pkl", parameters, conv_clamp=256)
        assert recognise(path).meta["notes"] == [
            "activations were clamped to ±256 (for half precision); here they are not"
        ]

    @pytest.mark.parametrize(
        ("name", "value", "told"),
        [
            ("synthesis.b8.conv0.weight", torch.zeros(5, 5, 1, 1), r"convs\.0\.conv\.weight has shape"),
            ("synthesis.b8.resample_filter", torch.ones(4, 4), "low-pass filter"),
            ("synthesis.b16.torgb.bias", None, r"to_rgbs\.1\.bias is missing"),
            ("synthesis.input.weight", torch.zeros(1), "StyleGAN3"),
            ("synthesis.b12.conv0.weight", torch.zeros(1), "block conv0 of 12²"),
            ("mapping.w_avg", torch.zeros(256), "the mean latent has shape"),
            ("mapping.fc999.weight", torch.zeros(1), "1000 mapping layers"),
        ],
    )
    def test_wrong_parts_are_named(self, tmp_path, parameters, name, value, told):
        changed = {k: v for k, v in parameters.items() if k != name} | (
            {} if value is None else {name: value}
        )
        with pytest.raises(InputError, match=told):
            recognise(official.nvidia_pickle(tmp_path / "a.pkl", changed))

    def test_shapes_that_would_fill_the_memory_are_refused(self, tmp_path, parameters):
        state = official.rosinality_state(parameters)
        for name, value in (
            ("to_rgbs.40.bias", torch.zeros(1)),
            ("to_rgbs.123456789.bias", torch.zeros(1)),
            ("style.1000000.weight", torch.zeros(1)),
            ("convs.1.conv.weight", torch.zeros(1, 1 << 40, 0, 3, 3)),
            ("input.input", torch.zeros(0, 1 << 40, 4, 4)),
        ):
            with pytest.raises(InputError):
                recognise(official.save(tmp_path / "a.pt", {"g_ema": {**state, name: value}}))

    def test_tensorflow_settings_and_names(self, tmp_path, parameters):
        with pytest.raises(InputError, match="architecture is 'orig'"):
            recognise(official.tensorflow_pickle(tmp_path / "a.pkl", parameters, architecture="orig"))
        with pytest.raises(InputError, match="label_size is 3"):
            recognise(official.tensorflow_pickle(tmp_path / "a.pkl", parameters, label_size=3))


class TestEncoders:
    """Full-size encoders above a generator at 8²: 250 to 400 MB each."""

    @pytest.mark.parametrize(
        ("kind", "encoder_type", "legacy"),
        [
            ("psp", "GradualStyleEncoder", True),
            ("e4e", "Encoder4Editing", False),
            ("restyle-psp", "BackboneEncoder", False),
            ("restyle-e4e", "ProgressiveBackboneEncoder", True),
        ],
    )
    def test_the_four_kinds(self, tmp_path, folder, kind, encoder_type, legacy):
        rows, p = 4, official.nvidia_generator(8)
        pyramid = not kind.startswith("restyle-")
        encoder = official.encoder(pyramid, rows)
        state = {f"encoder.{k}": v for k, v in encoder.items()}
        state |= {f"decoder.{k}": v for k, v in official.rosinality_state(p).items()}
        average = p["mapping.w_avg"].repeat(rows, 1)
        options = {"encoder_type": encoder_type, "start_from_latent_avg": True, "output_size": 8}
        content = {"state_dict": state, "opts": options, "latent_avg": average, "global_step": 7}
        if kind == "psp":
            content["opts"] = argparse.Namespace(**options)
        path = official.save(tmp_path / "anything.bin", content, legacy)
        try:
            done = import_file(path, name="mine")
            assert done.kind.name == kind
            assert done.meta["options"]["encoder_type"] == encoder_type
            inverter, generator = load_imported("mine", steps=2)
            biases = torch.stack([encoder[f"styles.{row}.linear.bias"] for row in range(rows)])
            offsets = biases if kind.endswith("psp") else biases[:1] + torch.cat([0 * biases[:1], biases[1:]])
            steps = 1 if pyramid else 2
            images = torch.zeros(1, 3, 32, 32)
            if pyramid:
                inverter.size = 32
            else:
                inverter = ReStyle(inverter.encoder, generator, average, steps=2, size=32)
            found = inverter.invert(images)[0]
            torch.testing.assert_close(found, average + steps * offsets)
            close(generator.synthesize(found[None])[0], official.render(p, found))
            # As a start of a training, that is how the workflow uses it, it inverts alike.
            model = imported_inverter("mine", None, generator, "tiny")
            save_model(tmp_path / "model.safetensors", model.tensors, model.meta)
            again = load_inverter(tmp_path / "model.safetensors", generator)
            again.size = 32
            if not pyramid:
                again.average_image = again.decode(again.latent_avg[None])
                again.steps = 2
            torch.testing.assert_close(again.invert(images)[0], found)
            other = StyleGAN2.from_tensors(
                stylegan2.complete(official.rosinality_state(official.nvidia_generator(8, seed=1)))[0]
            )
            with pytest.raises(InputError, match="trained for another generator than 'other'"):
                imported_inverter("mine", None, other, "other")
            with pytest.raises(InputError, match="it has the names of"):
                recognise(path, "e4e" if not pyramid else "restyle-e4e")
        finally:
            path.unlink()
            shutil.rmtree(folder)

    def small(self, **changes):
        """A checkpoint whose trunk has only its first layer: enough to be told, not to be built."""
        state = {"encoder.input_layer.0.weight": torch.zeros(64, 6, 3, 3)}
        p = official.nvidia_generator(8)
        state |= {f"decoder.{k}": v for k, v in official.rosinality_state(p).items()}
        content = {"state_dict": state, "latent_avg": p["mapping.w_avg"]}
        return {**content, "opts": {"encoder_type": "BackboneEncoder"}, **changes}

    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            ({}, r"not that of restyle-psp for 4 rows: .*is missing"),
            ({"opts": {}}, "--kind restyle-psp or --kind restyle-e4e"),
            ({"opts": None}, "--kind restyle-psp"),
            ({"opts": {"encoder_type": "ResNetBackboneEncoder"}}, "'ResNetBackboneEncoder'; supported"),
            ({"opts": {"encoder_type": "Encoder4Editing"}}, "not of e4e"),
            ({"latent_avg": torch.zeros(5, 512)}, "the mean latent has shape"),
            ({"state_dict": {"encoder.conv1.weight": torch.zeros(64, 6, 7, 7)}}, "no IR-SE50 trunk"),
        ],
    )
    def test_what_does_not_fit_is_told(self, tmp_path, changes, told):
        with pytest.raises(InputError, match=told):
            recognise(official.save(tmp_path / "a.pt", self.small(**changes)))

    def test_offsets_that_are_not_from_the_mean_are_refused(self, tmp_path):
        content = self.small(opts={"encoder_type": "GradualStyleEncoder", "start_from_latent_avg": False})
        content["state_dict"]["encoder.latlayer1.weight"] = torch.zeros(512, 256, 1, 1)
        with pytest.raises(InputError, match="start_from_latent_avg"):
            recognise(official.save(tmp_path / "a.pt", content))

    def test_the_kind_that_a_user_names(self, tmp_path):
        path = official.save(tmp_path / "a.pt", self.small(opts={}))
        with pytest.raises(InputError, match="not that of restyle-e4e"):
            recognise(path, "restyle-e4e")
        with pytest.raises(InputError, match="--kind: 'stylegan2' is no kind"):
            recognise(path, "stylegan2")


def test_ir_se50(tmp_path, folder):
    state = official.arcface()
    done = import_file(official.save(tmp_path / "weights.bin", state, legacy=True))
    assert (done.kind.name, done.name, done.meta["role"]) == ("ir-se50", "ir-se50", "identity")
    # Zero convolutions leave the last bias.
    found = load_arcface()(torch.zeros(1, 3, 112, 112))
    expected = F.normalize(state["output_layer.3.bias"] / (1 + 1e-5) ** 0.5, dim=0)
    torch.testing.assert_close(found[0], expected)
    torch.testing.assert_close(load_identity("ir-se50").embed(torch.zeros(1, 3, 64, 64))[0], expected)
    del state["body.3.res_layer.5.fc1.weight"]
    with pytest.raises(
        InputError, match=r"not ArcFace's IR-SE50: body\.3\.res_layer\.5\.fc1\.weight is missing"
    ):
        recognise(official.save(tmp_path / "a.pth", state))


def test_the_identity_of_the_papers_losses(tmp_path, folder):
    """IR-SE50 on rows 35:223 and columns 32:220 of 256², averaged to 112² (methods.md, Sec. 0)."""
    state = official.randomised(official.arcface(), 5)
    import_file(official.save(tmp_path / "model_ir_se50.pth", state))
    images = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0)) * 2 - 1
    # 188 columns to 112: output i averages columns floor(188 i / 112) to ceil(188 (i + 1) / 112).
    cut = images[:, :, 35:223, 32:220]
    edges = [(188 * i // 112, -(-188 * (i + 1) // 112)) for i in range(112)]
    cut = torch.stack([cut[..., a:b].mean(-1) for a, b in edges], -1)
    cut = torch.stack([cut[..., a:b, :].mean(-2) for a, b in edges], -2)
    x = official.normalise(state, "output_layer.0", official.run_ir_se50(state, cut)).flatten(1)
    x = x @ state["output_layer.3.weight"].T + state["output_layer.3.bias"]
    expected = F.normalize(official.normalise(state, "output_layer.4", x))
    torch.testing.assert_close(load_identity("ir-se50").embed(images), expected, rtol=1e-3, atol=1e-4)


class TestMapping:
    """P1's ``best_model.pt`` above a generator at 8²."""

    rows = 4

    @pytest.fixture(scope="class")
    def content(self):
        return official.p1_model(self.rows, official.nvidia_generator(8))

    def test_drives_as_the_formulas_say(self, tmp_path, folder, content):
        done = import_file(official.save(tmp_path / "best_model.pt", content), "mapping-voxceleb2")
        assert (done.kind.name, done.meta["role"]) == ("mapping", "method")
        assert done.meta["options"]["train_decoder"] is False
        assert "VoxCeleb2" in done.meta["terms"]["weights"]
        generator = StyleGAN2.from_tensors(
            stylegan2.complete(official.rosinality_state(official.nvidia_generator(8)))[0]
        )
        model = imported_method("mapping-voxceleb2", None, generator, "tiny")
        # Every parameter of the file under its own name, and no other.
        published = {k for k in content["state_dict"] if not k.startswith("decoder.")}
        ours = {
            k.replace("method.motion_encoder.", "encoder.").replace("method.map.", "mapping_net.")
            for k in model.tensors
        }
        assert ours == published
        assert model.meta["options"]["variant"] == "ours"
        save_model(tmp_path / "m.safetensors", model.tensors, model.meta)
        method = load_method({"method": "mapping"}, tmp_path / "m.safetensors", generator)
        source = torch.Generator().manual_seed(0)
        latent = torch.randn(self.rows, 512, generator=source)
        frame = torch.rand(3, 256, 256, generator=source) * 2 - 1
        found = method.drive(method.identify(latent, frame), frame[None])[0]
        expected = official.run_p1(content["state_dict"], latent, frame)
        torch.testing.assert_close(found, expected, rtol=2e-3, atol=2e-3)
        assert expected.std() > 0.1

    def test_the_stage_train_takes_it_as_a_start(self, tmp_path, folder, content):
        import_file(official.save(tmp_path / "best_model.pt", content), "p1")
        import_file(official.nvidia_pickle(tmp_path / "g.pkl", official.nvidia_generator(8)), "stylegan2-p1")
        options = {
            "kind": "method",
            "method": "mapping",
            "preset": "paper",
            "generator": "stylegan2-p1",
            "steps": 0,
        }
        paths = [tmp_path / name for name in ("m.safetensors", "history.parquet", "card.md", "state")]
        train.run("mapping", *paths, options, init=folder / "p1.safetensors")
        made = load_model(paths[0], "method").tensors
        names = {k.replace("method.map.", "mapping_net.") for k in made}
        assert "mapping_net.linear_relu.0.weight" in names
        weight = content["state_dict"]["mapping_net.linear_relu.0.weight"]
        assert torch.equal(made["method.map.linear_relu.0.weight"], weight)
        assert "Imported from best_model.pt" in paths[2].read_text()
        with pytest.raises(InputError, match="'p1' is mapping"):
            train.run(
                "psp",
                *paths,
                {**options, "kind": "inverter", "method": "psp"},
                init=folder / "p1.safetensors",
            )

    def test_a_generator_that_was_trained_along_comes_with_it(self, tmp_path, folder, content):
        import_file(official.save(tmp_path / "best_model.pt", content), "gen")
        other = StyleGAN2.from_tensors(
            stylegan2.complete(official.rosinality_state(official.nvidia_generator(8, seed=1)))[0]
        )
        model = imported_method("gen", None, other, "tiny")
        assert model.meta["options"]["variant"] == "gen"
        save_model(tmp_path / "m.safetensors", model.tensors, model.meta)
        load_method({"method": "mapping"}, tmp_path / "m.safetensors", other)
        w_plus = torch.randn(1, self.rows, 512, generator=torch.Generator().manual_seed(2))
        close(other.synthesize(w_plus)[0], official.render(official.nvidia_generator(8), w_plus[0]))
        larger = StyleGAN2.from_tensors(
            stylegan2.complete(official.rosinality_state(official.nvidia_generator(16)))[0]
        )
        with pytest.raises(InputError, match="another generator than 'larger'"):
            imported_method("gen", None, larger, "larger")

    @pytest.mark.parametrize(
        ("name", "value", "told"),
        [
            (
                "mapping_net.linear_relu.0.weight",
                torch.zeros(3, 4),
                r"mapping_net\.linear_relu\.0\.weight has shape",
            ),
            ("encoder.linear.weight", None, r"encoder\.linear\.weight is missing"),
            (
                "encoder.styles.0.linear.bias",
                torch.zeros(512),
                r"encoder\.styles\.0\.linear\.bias is unknown",
            ),
            ("other.weight", torch.zeros(2), r"other\.weight is unknown"),
            ("decoder.conv1.conv.weight", torch.zeros(2), "it is no StyleGAN2"),
        ],
    )
    def test_what_does_not_fit_is_told(self, tmp_path, content, name, value, told):
        state = {**content["state_dict"], name: value}
        state = {k: v for k, v in state.items() if v is not None}
        with pytest.raises(InputError, match=told):
            recognise(official.save(tmp_path / "a.pt", {"state_dict": state}))


class TestDirections:
    def test_the_matrix_with_its_parameters_named(self, tmp_path, folder):
        content = official.p2_directions()
        done = import_file(official.save(tmp_path / "A_matrix.pt", content))
        assert (done.kind.name, done.name) == ("directions", "directions-a-matrix")
        assert "comes with a later version" in done.use
        assert done.meta["parameters"] == [
            "yaw",
            "pitch",
            "roll",
            "jaw",
            *(f"expression-{i}" for i in range(11)),
        ]
        assert done.meta["options"]["shift_scale"] == 6
        held = load(done.name).tensors
        change = torch.randn(15, generator=torch.Generator().manual_seed(0))
        expected = F.linear(change, content["A_matrix"]["linear.weight"], content["A_matrix"]["linear.bias"])
        found = torch.einsum("k,krc->rc", change, held["directions"]) + held["bias"]
        torch.testing.assert_close(found, expected.view(8, 512), rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            ({"learned_directions": 14}, r"linear\.weight has shape \[4096, 15\], not \[4096, 14\]"),
            ({"learned_directions": 10**9}, "1000000000 directions"),
            ({"num_layers_shift": None}, "without learned_directions"),
            ({"w_plus": False}, "without learned_directions"),
            ({"A_matrix": {"linear.weight": torch.zeros(4096, 15)}}, r"linear\.bias is missing"),
        ],
    )
    def test_what_does_not_fit_is_told(self, tmp_path, changes, told):
        with pytest.raises(InputError, match=told):
            recognise(official.save(tmp_path / "a.pt", {**official.p2_directions(), **changes}))

    def test_the_encoder_without_a_generator(self, tmp_path, folder):
        encoder = official.encoder(True, 4)
        done = import_file(official.save(tmp_path / "e4e-voxceleb.pt", {"e": encoder}))
        assert (done.kind.name, done.name) == ("directions-e4e", "directions-e4e-e4e-voxceleb")
        assert load(done.name).tensors.keys() == {f"encoder.{k}" for k in encoder}
        with pytest.raises(WeightsError, match="are directions-e4e"):
            load_imported(done.name)
        del encoder["styles.3.convs.0.weight"]
        with pytest.raises(InputError, match=r"styles\.3\.convs\.0\.weight is missing"):
            recognise(official.save(tmp_path / "a.pt", {"e": encoder}))


@pytest.mark.parametrize("prefix", ["", "module."])
def test_hopenet(tmp_path, folder, prefix):
    state = official.resnet50()
    for i, head in enumerate(("fc_yaw", "fc_pitch", "fc_roll")):
        state[f"{head}.weight"] = torch.zeros(66, 2048)
        state[f"{head}.bias"] = 100 * F.one_hot(torch.tensor(20 + 10 * i), 66).float()
    state |= {"fc_finetune.weight": torch.zeros(3, 2051), "fc_finetune.bias": torch.zeros(3)}
    # Files of torch before 0.4.1 do not count batches.
    state = {f"{prefix}{k}": v for k, v in state.items() if "num_batches" not in k}
    done = import_file(official.save(tmp_path / "hopenet_alpha2.pkl", state, legacy=True))
    assert (done.kind.name, done.name) == ("hopenet", "hopenet")
    pose = load_pose("hopenet")
    torch.testing.assert_close(pose(torch.zeros(1, 3, 64, 64)), torch.tensor([[-39.0, -9.0, 21.0]]))
    # The file's terms are those of the table's row.
    assert "300W-LP" in done.meta["terms"]["weights"]


def test_what_no_network_reads_yet_is_stored(tmp_path, folder):
    bisenet = official.resnet50("cp.resnet.") | {
        "cp.resnet.conv1.weight": torch.randn(64, 3, 7, 7),
        "ffm.convblk.conv.weight": torch.randn(256, 256, 1, 1),
        "conv_out.conv_out.weight": torch.randn(19, 256, 1, 1),
    }
    bisenet = {k: v for k, v in bisenet.items() if "layer" not in k}
    deca = {
        "E_flame": {
            "encoder.conv1.weight": torch.randn(64, 3, 7, 7),
            "layers.0.weight": torch.randn(1024, 2048),
            "layers.2.weight": torch.randn(236, 1024),
        },
        "E_detail": {"layers.2.weight": torch.randn(128, 1024)},
        "opt": {"state": {}, "param_groups": [{"lr": 1e-4, "params": [0]}]},
    }
    channels = (64, 128, 256, 512, 512)
    lpips = {f"lin{i}.model.1.weight": torch.rand(1, c, 1, 1) for i, c in enumerate(channels)}
    inception = {
        "Conv2d_1a_3x3.conv.weight": torch.randn(32, 3, 3, 3),
        "Mixed_7c.branch_pool.conv.weight": torch.randn(192, 2048, 1, 1),
        "fc.weight": torch.randn(1008, 2048),
    }
    i3d = {
        "Conv3d_1a_7x7.conv3d.weight": torch.randn(64, 3, 7, 7, 7),
        "Mixed_5c.b3b.conv3d.weight": torch.randn(128, 832, 1, 1, 1),
        "logits.conv3d.weight": torch.randn(400, 1024, 1, 1, 1),
    }
    for content, kind, name in (
        (bisenet, "bisenet", "conv_out.conv_out.weight"),
        (deca, "deca", "E_flame.layers.2.weight"),
        (lpips, "lpips-heads", "lin4.model.1.weight"),
        (inception, "inception", "fc.weight"),
        (i3d, "i3d", "logits.conv3d.weight"),
    ):
        done = import_file(official.save(tmp_path / "x.tar", content))
        assert done.kind.name == kind
        held = load(kind)
        flat = dict(unpickle.leaves(content))
        assert torch.equal(held.tensors[name], flat[name])
        assert held.tensors.keys() == flat.keys()
        assert f"load({kind!r})" in done.use
        wrong = {**flat, name: torch.zeros(3, 5)}
        with pytest.raises(InputError, match=rf"names of {kind}, but {name} has shape \[3, 5\]"):
            recognise(official.save(tmp_path / "wrong.tar", wrong))


@pytest.mark.parametrize("protocol", [2, 4])
def test_flame(tmp_path, folder, protocol):
    content = official.flame()
    done = import_file(official.flame_pickle(tmp_path / "generic_model.pkl", content, protocol))
    assert done.kind.name == "flame"
    tensors = load("flame").tensors
    np.testing.assert_allclose(tensors["shapedirs"], content["shapedirs"].x, rtol=1e-6)
    np.testing.assert_allclose(tensors["posedirs"], content["posedirs"], rtol=1e-6)
    np.testing.assert_array_equal(tensors["f"], content["f"])
    sparse = content["J_regressor"]
    dense = np.zeros((5, 11))
    for column in range(11):
        for k in range(sparse.indptr[column], sparse.indptr[column + 1]):
            dense[sparse.indices[k], column] = sparse.data[k]
    np.testing.assert_allclose(tensors["J_regressor"], dense, rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"weights": np.zeros((11, 4))}, "weights has shape"),
        ({"f": np.zeros((3, 4), np.int64)}, "f has shape"),
        ({"posedirs": "text"}, "a str in place of an array"),
        ({"J_regressor": np.array([{}], object)}, "array without plain data"),
    ],
)
def test_flame_with_wrong_parts(tmp_path, change, told):
    with pytest.raises(InputError, match=told):
        recognise(official.flame_pickle(tmp_path / "a.pkl", {**official.flame(), **change}))
    missing = {k: v for k, v in official.flame().items() if k not in change}
    with pytest.raises(InputError, match="is missing"):
        recognise(official.flame_pickle(tmp_path / "a.pkl", missing))


def test_a_sparse_matrix_cannot_reach_beyond_itself(tmp_path):
    for name, value in (
        ("indices", np.array([999], np.int32)),
        ("indptr", np.array([0, 5], np.int32)),
        ("_shape", (1 << 40, 11)),
    ):
        content = official.flame()
        setattr(content["J_regressor"], name, value)
        with pytest.raises(InputError, match="sparse matrix"):
            recognise(official.flame_pickle(tmp_path / "a.pkl", content))


@pytest.mark.parametrize("opset", [11, 12])
def test_onnx(tmp_path, folder, opset):
    onnx = pytest.importorskip("onnx")
    helper, weight = onnx.helper, np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1]),
            helper.make_node("PRelu", ["y", "s"], ["z"]),
            helper.make_node("Flatten", ["z"], ["out"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", 1, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("out", 1, ["batch", 256])],
        [
            onnx.numpy_helper.from_array(weight, "w"),
            onnx.numpy_helper.from_array(np.full((4, 1, 1), 0.25, np.float32), "s"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=6)
    path = tmp_path / "w600k.bin"
    path.write_bytes(model.SerializeToString())
    done = import_file(path)
    assert (done.kind.name, done.name) == ("onnx", "onnx-w600k")
    from remime.graph import GraphNetwork

    held = load(done.name)
    x = torch.randn(2, 3, 8, 8)
    y = F.conv2d(x, torch.from_numpy(weight), padding=1)
    expected = torch.where(y > 0, y, 0.25 * y).flatten(1)
    (found,) = GraphNetwork(held.meta["graph"], held.tensors)(x)
    close(found, expected)


def test_onnx_does_not_read_other_files(tmp_path, monkeypatch):
    onnx = pytest.importorskip("onnx")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret").write_bytes(bytes(16))
    stored = onnx.TensorProto(name="w", data_type=1, dims=[4], data_location=onnx.TensorProto.EXTERNAL)
    stored.external_data.add(key="location", value="secret")
    node = onnx.helper.make_node("Add", ["x", "w"], ["out"])
    values = [onnx.helper.make_tensor_value_info(name, 1, ["batch", 4]) for name in ("x", "out")]
    graph = onnx.helper.make_graph([node], "g", values[:1], values[1:], [stored])
    (tmp_path / "a.onnx").write_bytes(onnx.helper.make_model(graph, ir_version=6).SerializeToString())
    with pytest.raises(InputError, match="the numbers of w lie in another file"):
        recognise(tmp_path / "a.onnx")


@pytest.mark.weights
def test_dlib(tmp_path, folder, monkeypatch, weights):
    with monkeypatch.context() as original:
        original.setenv(
            "REMIME_WEIGHTS", str(__import__("tests.conftest").conftest.ROOT / "resources/weights")
        )
        expected = weights("dlib-resnet-id").tensors
        path = store.original("dlib-resnet-id")
        done = import_file(path, directory=folder)
    assert (done.kind.name, done.name) == ("dlib-resnet", "dlib-resnet")
    held = load("dlib-resnet").tensors
    assert all(torch.equal(held[name], expected[name]) for name in expected)


@pytest.mark.weights
@pytest.mark.parametrize(("network", "scale"), [("sface", [0, 255]), ("edgeface-s", [-1, 1])])
def test_face_recognisers_of_onnx_embed_as_the_built_in_ones(
    tmp_path, folder, monkeypatch, weights, network, scale
):
    """The crop and the range follow from the file: SFace scales its input itself, EdgeFace does not."""
    with monkeypatch.context() as original:
        original.setenv(
            "REMIME_WEIGHTS", str(__import__("tests.conftest").conftest.ROOT / "resources/weights")
        )
        weights(network)
        expected = load_identity(network)
        done = import_file(store.original(network), "mine", directory=folder)
    assert (done.kind.name, done.meta["input_range"]) == ("arcface", scale)
    images = torch.rand(2, 3, 256, 256, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert torch.equal(load_identity("mine").embed(images), expected.embed(images))


class TestByHand:
    """Rows of the table whose file the user brings."""

    def test_any_copy_of_the_network_serves(self, tmp_path, folder, parameters):
        with pytest.raises(WeightsError, match=r"config-f\.pkl \(382 MB\) from https://nvlabs"):
            ensure("stylegan2-ffhq-1024")
        with pytest.raises(WeightsError, match="remime weights import FILE --name stylegan2-ffhq-1024"):
            load_generator("stylegan2-ffhq-1024")
        path = official.nvidia_pickle(tmp_path / "a.pkl", parameters)
        done = import_file(path, "stylegan2-ffhq-1024")
        assert done.meta["terms"]["class"] == "noncommercial"
        assert "its sha256 is not the one" in done.meta["notes"][-1]
        assert ensure("stylegan2-ffhq-1024") == done.path
        assert verify("stylegan2-ffhq-1024") == done.meta
        assert load_generator("stylegan2-ffhq-1024").resolution == 32
        with pytest.raises(WeightsError, match="their original is not kept"):
            store.originals("stylegan2-ffhq-1024")

    def test_the_very_file_is_known(self, tmp_path, folder, parameters, use_table):
        from remime.files import sha256

        path = official.nvidia_pickle(tmp_path / "a.pkl", parameters)
        row = {
            "name": "stylegan2-x", "role": "generator", "member": "x.pkl", "sha256": sha256(path),
            "converter": "import", "kind": "stylegan2", "terms": "research",
        }  # fmt: skip
        use_table(row)
        done = import_file(path, "stylegan2-x")
        assert done.meta["notes"][-1] == "its sha256 is the one that workflow/weights.tsv has of x.pkl"

    def test_another_kind_is_refused(self, tmp_path, folder):
        path = official.save(tmp_path / "a.pth", official.arcface())
        with pytest.raises(InputError, match="stands for a file of the kind hopenet, this one is ir-se50"):
            import_file(path, "hopenet")


def test_a_generator_without_its_filters_is_whole(tmp_path, parameters):
    state = official.rosinality_state(parameters)
    bare = {k: v for k, v in state.items() if not k.endswith(".kernel")}
    found = recognise(official.save(tmp_path / "a.pt", {"g_ema": bare})).tensors
    expected = recognise(official.save(tmp_path / "b.pt", {"g_ema": state})).tensors
    assert found.keys() == expected.keys()
    assert all(torch.allclose(found[k], expected[k]) for k in found)


class TestStored:
    def test_description_and_listing(self, tmp_path, folder, parameters):
        path = official.nvidia_pickle(tmp_path / "ffhq.pkl", parameters)
        done = import_file(path)
        assert done.path == folder / "stylegan2-ffhq.safetensors"
        meta = json.loads((folder / "stylegan2-ffhq.json").read_text())
        from remime.files import sha256

        assert meta["sha256"] == {"ffhq.pkl": sha256(path)}
        assert meta["kind"] == "stylegan2"
        assert meta["role"] == "generator"
        assert meta["terms"]["class"] == "unknown"
        assert meta["shapes"]["to_rgbs.2.bias"] == [1, 3, 1, 1]
        assert str(tmp_path) not in json.dumps(meta)
        assert list(imported()) == ["stylegan2-ffhq"]
        assert verify_imported("stylegan2-ffhq") == meta
        data = bytearray(done.path.read_bytes())
        data[-1] ^= 1
        done.path.write_bytes(data)
        with pytest.raises(WeightsError, match="was changed"):
            verify_imported("stylegan2-ffhq")

    def test_names(self, tmp_path, folder, parameters):
        path = official.nvidia_pickle(tmp_path / "a.pkl", parameters)
        for name, told in (
            ("../x", "cannot be a name"),
            ("Big", "cannot be a name"),
            ("sface", r"network of workflow/weights\.tsv"),
            ("mine", "must begin with stylegan2"),
        ):
            with pytest.raises(InputError, match=told):
                import_file(path, name=name)
        import_file(path, name="stylegan2-mine")
        import_file(path, name="stylegan2-mine")
        other = official.nvidia_pickle(tmp_path / "b.pkl", parameters, source="# other")
        with pytest.raises(InputError, match=r"imported from another file \(a\.pkl\)"):
            import_file(other, name="stylegan2-mine")
        with pytest.raises(WeightsError, match="remime weights import FILE --name stylegan2-none"):
            load_generator("stylegan2-none")

    def test_other_kinds_are_no_inverters(self, tmp_path, folder, parameters):
        import_file(official.nvidia_pickle(tmp_path / "a.pkl", parameters))
        with pytest.raises(WeightsError, match="are stylegan2"):
            load_imported("stylegan2-a")
        with pytest.raises(WeightsError):
            load_arcface("stylegan2-a")

    def test_nothing_is_left_of_a_file_that_is_refused(self, tmp_path, folder):
        path = tmp_path / "a.pt"
        path.write_bytes(b"\x80\x02}.")
        with pytest.raises(InputError):
            import_file(path)
        assert not folder.exists()


class TestDamaged:
    """Whatever the bytes, the error is the project's own and names the file."""

    @pytest.mark.parametrize(
        ("data", "told"),
        [
            (b"", "is empty"),
            (b"<!DOCTYPE html><html>Google Drive - Quota exceeded</html>", "web page"),
            (b"\n\n<html>", "web page"),
            (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
            (b"BZh91AY", "bzip2"),
            (b"\x89HDF\r\n", "HDF5"),
            (b"hello world", "no known checkpoint"),
            (b"PK\x03\x04" + bytes(60), "archive|central directory|damaged"),
            (b"\x08\x06" + b"\xff" * 50, "ONNX"),
            (b"\x01\x01\x82" + b"\xff" * 50, "dlib"),
            (pickle.dumps({"weights": [1, 2]}), "a pickle of a dictionary with weights"),
            (pickle.dumps([1]), "a pickle of a list"),
        ],
    )
    def test_what_it_is_instead(self, tmp_path, data, told):
        path = tmp_path / "model.pt"
        path.write_bytes(data)
        with pytest.raises(InputError, match=told) as error:
            recognise(path)
        assert str(error.value).startswith(str(path))

    def test_no_file(self, tmp_path):
        with pytest.raises(InputError, match="no such file"):
            recognise(tmp_path / "none.pt")
        with pytest.raises(InputError, match="not a file"):
            recognise(tmp_path)

    def test_other_contents_of_torch_files(self, tmp_path):
        for content, told in (
            ([torch.zeros(1)], "a list in place of a dictionary"),
            ({"a": torch.zeros(2, 3)}, r"1 tensors, a \[2, 3\]"),
            ({}, "no tensors"),
            ({"g_ema": 3}, "g_ema is no state dict"),
            ({"fc_yaw.weight": torch.zeros(5), "fc_pitch.weight": torch.zeros(5)}, "none of the known"),
            ({"a": torch.zeros(2, 2).to_sparse()}, "no plain tensor"),
        ):
            with pytest.raises(InputError, match=told):
                recognise(official.save(tmp_path / "a.pt", content))
        heads = {f"fc_{a}.weight": torch.zeros(67, 2048) for a in ("yaw", "pitch")}
        with pytest.raises(InputError, match=r"names of hopenet, but fc_yaw\.weight has shape \[67, 2048\]"):
            recognise(official.save(tmp_path / "a.pt", heads | {"conv1.weight": torch.zeros(64, 3, 7, 7)}))

    def files(self, tmp_path):
        """One small valid file of every container."""
        p = official.nvidia_generator(8, width=2, layers=1)
        content = {"g_ema": official.rosinality_state(p), "latent_avg": p["mapping.w_avg"]}
        return [
            official.save(tmp_path / "zip.pt", content),
            official.save(tmp_path / "legacy.pt", content, legacy=True),
            official.nvidia_pickle(tmp_path / "nvidia.pkl", p),
            official.tensorflow_pickle(tmp_path / "tensorflow.pkl", p),
            official.flame_pickle(tmp_path / "flame.pkl", official.flame()),
        ]

    def test_cut_off_at_any_length(self, tmp_path):
        for path in self.files(tmp_path):
            recognise(path)
            data = path.read_bytes()
            lengths = [1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000]
            lengths += [len(data) * i // 10 for i in range(1, 10)] + [len(data) - i for i in (1, 2, 5, 100)]
            for length in lengths:
                path.write_bytes(data[:length])
                with pytest.raises(InputError) as error:
                    recognise(path)
                assert path.name in str(error.value)

    def test_changed_bytes(self, tmp_path):
        source = random.Random(0)
        for path in self.files(tmp_path):
            data = path.read_bytes()
            # The structure lies in front or at the end, numbers in between.
            places = [*range(min(3000, len(data))), *range(max(len(data) - 1500, 0), len(data))]
            for _ in range(60):
                changed = bytearray(data)
                for place in source.sample(places, source.choice((1, 1, 2, 20))):
                    changed[place] = source.randrange(256)
                path.write_bytes(changed)
                # Changed numbers are still a checkpoint; anything else than this error fails the test.
                with suppress(InputError):
                    recognise(path)

    @settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        st.sampled_from(
            [
                b"",
                b"\x80\x02",
                b"\x80\x04",
                b"PK\x03\x04",
                unpickle.LEGACY,
                b"\x08\x07",
                b"\x01\x01\x82\x88",
                b"\x01\x08l",
            ]
        ),
        st.binary(max_size=300),
    )
    def test_random_bytes(self, tmp_path, start, data):
        path = tmp_path / "random.bin"
        path.write_bytes(start + data)
        with pytest.raises(InputError):
            recognise(path)


def test_hostile_files_are_refused_by_name(tmp_path, parameters):
    marker = tmp_path / "ran"

    class Trap:
        def __reduce__(self):
            return os.system, (f"touch {marker}",)

    class Eval:
        def __reduce__(self):
            return eval, (f"open({str(marker)!r}, 'w')",)

    for path, told in (
        (official.save(tmp_path / "a.pt", {"g_ema": {"a": Trap()}}), "system"),
        (official.save(tmp_path / "b.pt", {"state_dict": {}, "opts": Eval()}, legacy=True), "eval"),
        (official.nvidia_pickle(tmp_path / "c.pkl", parameters, trap=Trap()), "system"),
        (official.nvidia_pickle(tmp_path / "d.pkl", parameters, init_kwargs={"a": [Eval()]}), "eval"),
        (official.flame_pickle(tmp_path / "e.pkl", {**official.flame(), "J": Trap()}), "system"),
    ):
        with pytest.raises(InputError, match=rf"asks for [\w.]*\.{told}, which is not allowed"):
            recognise(path)
    assert not marker.exists()
