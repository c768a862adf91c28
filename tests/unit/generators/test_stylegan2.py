"""StyleGAN2 against step-by-step numpy computations, published sizes and its own invariants."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.signal import convolve2d, correlate2d

from remime.errors import WeightsError
from remime.generators.base import estimate_mean_latent
from remime.generators.stylegan2 import ModulatedConv2d, StyleGAN2, channel_widths

TAPS = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64.0


def tiny(resolution=32, cap=6, seed=0):
    torch.manual_seed(seed)
    generator = StyleGAN2(resolution, channel_widths(resolution, cap=cap), mapping_layers=2).eval()
    with torch.no_grad():
        for name, parameter in generator.named_parameters():
            if name.endswith(("bias", "noise.weight")):
                parameter.add_(0.1 * torch.randn_like(parameter))
    return generator


def latents(generator, batch=2, seed=1):
    torch.manual_seed(seed)
    return torch.randn(batch, generator.rows, 512)


def upfirdn(x, up, pad, gain):
    """Zero insertion, padding (front, back) and true convolution of one channel, in numpy."""
    wide = np.zeros((x.shape[0] * up, x.shape[1] * up))
    wide[::up, ::up] = x
    return convolve2d(np.pad(wide, pad), TAPS * gain, mode="valid")


def modulated(weight, style, demodulate):
    """Karras et al. 2020, Eq. 1-3, for one sample: weight [out, in, k, k] with the run-time scale."""
    weight = weight / math.sqrt(weight[0].size) * style[None, :, None, None]
    if demodulate:
        weight = weight / np.sqrt((weight**2).sum((1, 2, 3), keepdims=True) + 1e-8)
    return weight


def reference_image(generator, w_plus):
    """The image of one W+ [rows, 512], computed convolution by convolution in float64."""
    p = {k: v.double().numpy() for k, v in generator.state_dict().items()}

    def style(name, row):
        a = p[f"{name}.conv.modulation.weight"] / math.sqrt(512)
        return a @ w_plus[row] + p[f"{name}.conv.modulation.bias"]

    def styled(name, x, row, noise, up):
        weight = modulated(p[f"{name}.conv.weight"][0], style(name, row), True)
        planes = []
        for kernels in weight:
            if up:
                wide = np.zeros((len(x), 2 * x.shape[1] - 1, 2 * x.shape[2] - 1))
                wide[:, ::2, ::2] = x
                full = sum(convolve2d(plane, k) for plane, k in zip(wide, kernels, strict=True))
                planes.append(upfirdn(full, 1, 1, 4))
            else:
                planes.append(sum(correlate2d(plane, k, "same") for plane, k in zip(x, kernels, strict=True)))
        y = np.stack(planes) + p[f"{name}.noise.weight"] * p[f"noises.noise_{noise}"][0]
        y = y + p[f"{name}.activate.bias"][:, None, None]
        return np.where(y > 0, y, 0.2 * y) * math.sqrt(2)

    def rgb(name, x, row, skip):
        weight = modulated(p[f"{name}.conv.weight"][0], style(name, row), False)[:, :, 0, 0]
        y = np.einsum("oi,ihw->ohw", weight, x) + p[f"{name}.bias"][0]
        return y if skip is None else y + np.stack([upfirdn(plane, 2, (2, 1), 4) for plane in skip])

    x = styled("conv1", p["input.input"][0], 0, 0, False)
    image = rgb("to_rgb1", x, 1, None)
    for i in range(len(generator.to_rgbs)):
        x = styled(f"convs.{2 * i}", x, 2 * i + 1, 2 * i + 1, True)
        x = styled(f"convs.{2 * i + 1}", x, 2 * i + 2, 2 * i + 2, False)
        image = rgb(f"to_rgbs.{i}", x, 2 * i + 3, image)
    return image


def test_image_equals_step_by_step_computation():
    generator = tiny(32, cap=5)
    w_plus = latents(generator).double()
    expected = np.stack([reference_image(generator, w.numpy()) for w in w_plus])
    with torch.no_grad():
        actual = generator.double().synthesize(w_plus).numpy()
    np.testing.assert_allclose(actual, expected, atol=1e-10)


@pytest.mark.parametrize("upsample", [False, True])
def test_modulation_equals_grouped_convolution(upsample):
    torch.manual_seed(0)
    conv = ModulatedConv2d(4, 3, 3, upsample=upsample).double()
    x, style = torch.randn(2, 4, 5, 5).double(), torch.randn(2, 4).double()
    weight = np.stack([modulated(conv.weight[0].detach().numpy(), s, True) for s in style.numpy()])
    weight = torch.from_numpy(weight)  # [B, out, in, 3, 3]
    grouped = x.reshape(1, 8, 5, 5)
    if upsample:
        kernels = weight.transpose(1, 2).reshape(8, 3, 3, 3)
        expected = F.conv_transpose2d(grouped, kernels, stride=2, groups=2).view(2, 3, 11, 11)
        expected = conv.blur(expected)
    else:
        expected = F.conv2d(grouped, weight.view(6, 4, 3, 3), padding=1, groups=2).view(2, 3, 5, 5)
    actual = conv(x, style) * conv.demodulation(style)[:, :, None, None]
    torch.testing.assert_close(actual, expected, atol=1e-12, rtol=0)


def test_mapping_equals_step_by_step_computation():
    generator = tiny(8)
    z = torch.randn(3, 512)
    x = z.double().numpy()
    x = x / np.sqrt((x**2).mean(1, keepdims=True) + 1e-8)
    for layer in (1, 2):
        weight = generator.style[layer].weight.detach().double().numpy()
        bias = generator.style[layer].bias.detach().double().numpy()
        y = x @ weight.T * (0.01 / math.sqrt(512)) + 0.01 * bias
        x = np.where(y > 0, y, 0.2 * y) * math.sqrt(2)
    np.testing.assert_allclose(generator.mapping(z).detach().numpy(), x, atol=1e-5)


def test_published_sizes_at_1024():
    with torch.device("meta"):
        generator = StyleGAN2(1024)
    widths = {"conv": [], "rgb": []}
    for layer in generator.style_layers:
        widths[layer.kind].append(layer.channels)
    assert widths["conv"] == [512] * 10 + [256, 256, 128, 128, 64, 64, 32]
    assert widths["rgb"] == [512] * 5 + [256, 128, 64, 32]
    assert sum(widths["conv"]) == 6048
    assert sum(widths["rgb"]) == 3040
    assert generator.rows == 18
    assert [n.shape[-1] for n in generator.noises.buffers()] == [4] + [
        2**k for k in range(3, 11) for _ in "ab"
    ]
    assert {layer.row for layer in generator.style_layers} == set(range(18))


def test_parameter_counts_of_stylegan2_ada_logs():
    with torch.device("meta"):
        count = {
            (size, m): sum(p.numel() for p in StyleGAN2(size, channel_widths(size, m)).parameters())
            for size, m in ((1024, 2), (256, 1))
        }
    assert count == {(1024, 2): 30_370_060, (256, 1): 24_767_458}


def test_state_dict_has_rosinalitys_layout():
    with torch.device("meta"):
        state = {k: tuple(v.shape) for k, v in StyleGAN2(256, channel_widths(256, 1)).state_dict().items()}
    expected = {
        "style.8.weight": (512, 512),
        "style.8.bias": (512,),
        "input.input": (1, 512, 4, 4),
        "conv1.conv.weight": (1, 512, 512, 3, 3),
        "conv1.conv.modulation.weight": (512, 512),
        "conv1.conv.modulation.bias": (512,),
        "conv1.noise.weight": (1,),
        "conv1.activate.bias": (512,),
        "to_rgb1.bias": (1, 3, 1, 1),
        "to_rgb1.conv.weight": (1, 3, 512, 1, 1),
        "convs.6.conv.weight": (1, 256, 512, 3, 3),
        "convs.6.conv.blur.kernel": (4, 4),
        "convs.11.conv.weight": (1, 64, 64, 3, 3),
        "to_rgbs.5.upsample.kernel": (4, 4),
        "to_rgbs.5.conv.modulation.weight": (64, 512),
        "noises.noise_12": (1, 1, 256, 256),
    }
    assert {key: state.get(key) for key in expected} == expected
    assert "convs.7.conv.blur.kernel" not in state
    assert "style.0.weight" not in state
    assert "to_rgb1.upsample.kernel" not in state


def test_styles_reproduce_the_image_and_are_ordered_by_execution():
    generator = tiny()
    w_plus = latents(generator)
    styles = generator.styles(w_plus)
    kinds = [layer.kind for layer in generator.style_layers]
    assert kinds == ["conv", "rgb"] + ["conv", "conv", "rgb"] * 3
    assert generator.conv_layers() == [0, 2, 3, 5, 6, 8, 9]
    torch.testing.assert_close(
        generator.synthesize(styles=styles), generator.synthesize(w_plus), rtol=0, atol=0
    )
    moved = list(styles)
    moved[4] = moved[4] + 1  # toRGB at 8²: shifts the image but no feature
    assert not torch.allclose(generator.synthesize(styles=moved), generator.synthesize(w_plus))


def test_rows_drive_the_layers_that_the_convention_names():
    generator = tiny()
    w_plus = latents(generator, batch=1)
    before = generator.styles(w_plus)
    for row, names in {
        1: ["to_rgb1.conv", "convs.0.conv"],
        4: ["convs.3.conv"],
        5: ["to_rgbs.1.conv", "convs.4.conv"],
    }.items():
        changed = w_plus.clone()
        changed[:, row] += 1
        after = generator.styles(changed)
        moved = [
            layer.name
            for layer, a, b in zip(generator.style_layers, before, after, strict=True)
            if not torch.equal(a, b)
        ]
        assert moved == names


def test_early_stop_is_the_skip_image_and_ignores_later_rows():
    generator = tiny()
    w_plus = latents(generator)
    small = generator.synthesize(w_plus, resolution=16)
    changed = w_plus.clone()
    changed[:, 6:] = 0
    assert small.shape == (2, 3, 16, 16)
    torch.testing.assert_close(generator.synthesize(changed, resolution=16), small, rtol=0, atol=0)
    lower = StyleGAN2(16, {4: 6, 8: 6, 16: 6}, mapping_layers=2)
    state = {k: v for k, v in generator.state_dict().items() if k in lower.state_dict()}
    lower.load_state_dict(state)
    torch.testing.assert_close(lower.synthesize(w_plus[:, :6]), small)


def test_features_are_those_the_image_is_made_of():
    generator = tiny()
    w_plus = latents(generator)
    features = generator.features(w_plus, 32)
    assert features.shape == (2, 6, 32, 32)
    head = generator.to_rgbs[-1]
    rebuilt = head(features, generator.styles(w_plus)[-1], generator.synthesize(w_plus, resolution=16))
    torch.testing.assert_close(rebuilt, generator.synthesize(w_plus))


def test_noise_is_explicit():
    generator = tiny()
    w_plus = latents(generator)
    fixed = generator.synthesize(w_plus)
    buffers = list(generator.noises.buffers())
    torch.testing.assert_close(generator.synthesize(w_plus, noise="const"), fixed, rtol=0, atol=0)
    torch.testing.assert_close(generator.synthesize(w_plus, noise=buffers), fixed, rtol=0, atol=0)
    torch.manual_seed(0)
    assert not torch.allclose(generator.synthesize(w_plus, noise="random"), fixed)
    with pytest.raises(ValueError, match="7 noise inputs"):
        generator.synthesize(w_plus, noise=buffers[:3])
    with pytest.raises(ValueError, match="expected shape"):
        generator.synthesize(w_plus, noise=[torch.zeros(1, 1, 4, 4)] * 7)


def test_gradients_reach_latents_and_every_used_parameter():
    generator = tiny(16)
    w_plus = latents(generator).requires_grad_()
    generator.synthesize(w_plus).square().mean().backward()
    assert (w_plus.grad.abs().sum((0, 2)) > 0).all()
    for name, parameter in generator.named_parameters():
        if not name.startswith("style."):
            assert parameter.grad.abs().sum() > 0, name


def test_gradient_equals_finite_difference():
    generator = tiny(8, cap=3).double().requires_grad_(False)
    w_plus = latents(generator, batch=1).double().requires_grad_()
    probe = torch.randn(1, 3, 8, 8).double()
    (gradient,) = torch.autograd.grad((generator.synthesize(w_plus) * probe).sum(), w_plus)
    direction = torch.randn_like(w_plus)
    step = 1e-6
    with torch.no_grad():
        ends = [(generator.synthesize(w_plus + s * direction) * probe).sum() for s in (step, -step)]
    torch.testing.assert_close(
        (gradient * direction).sum(), (ends[0] - ends[1]) / (2 * step), rtol=1e-5, atol=0
    )


def test_autocast_keeps_the_image_in_full_precision():
    generator = tiny(16)
    w_plus = latents(generator)
    with torch.no_grad():
        expected = generator.synthesize(w_plus)
        with torch.autocast("cpu", torch.bfloat16):
            actual = generator.synthesize(w_plus)
    assert actual.dtype == torch.float32
    assert (actual != actual.bfloat16().float()).any()
    assert (actual - expected).abs().mean() < 0.02 * expected.std()


def test_channels_last_changes_nothing():
    generator = tiny(16)
    w_plus = latents(generator)
    expected = generator.synthesize(w_plus)
    generator.input.to(memory_format=torch.channels_last)
    assert generator.features(w_plus, 16).is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(generator.synthesize(w_plus), expected)


def test_truncation_pulls_towards_the_mean():
    generator = tiny(8)
    generator.mean_latent.copy_(torch.arange(512.0))
    w_plus = latents(generator)
    expected = generator.mean_latent + 0.7 * (w_plus - generator.mean_latent)
    torch.testing.assert_close(generator.truncate(w_plus, 0.7), expected)
    assert generator.truncate(w_plus, 1) is w_plus
    assert torch.equal(generator.broadcast(w_plus[:, 0])[:, -1], w_plus[:, 0])


def test_from_tensors_finds_sizes_and_mean_and_freezes():
    original = tiny(16)
    tensors = {k: v for k, v in original.state_dict().items() if k != "mean_latent"}
    loaded = StyleGAN2.from_tensors(tensors)
    w_plus = latents(original)
    torch.testing.assert_close(loaded.synthesize(w_plus), original.synthesize(w_plus), rtol=0, atol=0)
    torch.testing.assert_close(loaded.mean_latent, estimate_mean_latent(original))
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    rows = torch.full((512,), 3.0).expand(6, 512)
    assert (StyleGAN2.from_tensors({**tensors, "latent_avg": rows}).mean_latent == 3).all()


def test_from_tensors_names_what_is_wrong():
    tensors = tiny(16).state_dict()
    with pytest.raises(WeightsError, match=r"noises\.noise_2"):
        StyleGAN2.from_tensors({k: v for k, v in tensors.items() if k != "noises.noise_2"})
    with pytest.raises(WeightsError, match="surprise"):
        StyleGAN2.from_tensors({**tensors, "surprise": torch.zeros(1)})
    with pytest.raises(WeightsError, match="rosinality"):
        StyleGAN2.from_tensors({"a": torch.zeros(1)})


def test_wrong_arguments_are_named():
    generator = tiny(16)
    with pytest.raises(ValueError, match="powers of two"):
        StyleGAN2(100)
    with pytest.raises(ValueError, match=r"\(4, 8, 16\)"):
        generator.synthesize(latents(generator), resolution=32)
    with pytest.raises(ValueError, match=r"\[B, 6, 512\]"):
        generator.synthesize(torch.zeros(1, 18, 512))
    with pytest.raises(ValueError, match="either"):
        generator.synthesize()


def test_smaller_images_come_from_the_full_one():
    """Stopping early leaves out what larger sizes add; published encoders were trained on full images."""
    generator = StyleGAN2(32, channel_widths(32, cap=4), mapping_layers=1)
    assert generator.resolutions == (4, 8, 16, 32)
    assert [generator.decode_resolution(size) for size in (4, 16, 17, 32, 256)] == [32] * 5
