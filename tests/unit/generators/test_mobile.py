"""The mobile generator with random weights: its parts against plain computations, its rows, its arguments."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.linalg import hadamard

from remime.errors import InputError
from remime.generators import load_generator
from remime.generators.mobile import CHANNELS, MobileGenerator, haar_up, mapping_network


def randomise(module, seed=0):
    """Weights of unit gain, biases and noise of a tenth."""
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in module.state_dict().items():
            fan_in = value[0].numel() if value.ndim > 1 and not name.endswith(("noise", "input")) else 100
            value.copy_(torch.randn(value.shape, generator=source) / fan_in**0.5)
            if name.endswith("affine.bias"):
                value.add_(1)
    return module.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def generator():
    return randomise(MobileGenerator([128]))


@pytest.fixture(scope="module")
def w_plus():
    return torch.randn(3, 16, 512, generator=torch.Generator().manual_seed(2))


def wavelets(image):
    """Orthonormal Haar coefficients [4C, H/2, W/2] of an image [C, H, W], block by block."""
    transform = np.kron(hadamard(2), hadamard(2)) / 2  # low, horizontal, vertical, diagonal
    channels, height, width = image.shape
    out = np.zeros((4 * channels, height // 2, width // 2))
    for c, i, j in np.ndindex(channels, height // 2, width // 2):
        low, horizontal, vertical, diagonal = (
            transform @ image[c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].flatten()
        )
        out[c, i, j] = low
        out[channels + 3 * c : channels + 3 * c + 3, i, j] = vertical, horizontal, diagonal
    return out


def test_haar_is_twice_the_inverse_wavelet():
    images = np.random.default_rng(0).normal(size=(2, 3, 6, 4))
    coefficients = torch.from_numpy(np.stack([wavelets(image) for image in images]))
    for layout in (torch.contiguous_format, torch.channels_last):
        up = haar_up(coefficients.contiguous(memory_format=layout))
        assert up.is_contiguous(memory_format=torch.channels_last)
        np.testing.assert_allclose(up.numpy(), 2 * images, atol=1e-12)


def test_haar_gradients():
    x = torch.randn(2, 8, 3, 2, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(haar_up, (x,))


def test_mapping_equals_numpy():
    rng = np.random.default_rng(0)
    layers = [(rng.normal(size=(512, 512)) / 20, rng.normal(size=512)) for _ in range(3)]
    z = rng.normal(size=(4, 512))
    x = z / np.sqrt((z**2).mean(1, keepdims=True) + 1e-8)
    for weight, bias in layers:
        x = x @ weight.T + bias
        x = np.where(x > 0, x, 0.2 * x) * np.sqrt(2)
    given = [(torch.from_numpy(weight), torch.from_numpy(bias)) for weight, bias in layers]
    np.testing.assert_allclose(mapping_network(torch.from_numpy(z), given).numpy(), x, rtol=1e-9)


def separable(tensors, prefix, x, w):
    """One image through a depthwise-separable styled convolution with modulated weights, in float64."""
    style = F.linear(w, tensors[f"{prefix}.affine.weight"], tensors[f"{prefix}.affine.bias"])
    depthwise = tensors[f"{prefix}.depthwise"] * style.view(-1, 1, 1, 1)
    x = F.conv2d(F.conv2d(x, depthwise, padding=1, groups=len(style)), tensors[f"{prefix}.pointwise"])
    x = x + tensors[f"{prefix}.bias"].view(1, -1, 1, 1) + tensors[f"{prefix}.noise"]
    return torch.where(x > 0, x, 0.2 * x)


def reference_features(generator, w_plus):
    """Features [512, 8, 8] of one W+ [16, 512], computed with modulated weights in float64."""
    t = {k: v.double() for k, v in generator.state_dict().items()}
    w = w_plus.double()
    style = F.linear(w[0], t["stem.affine.weight"], t["stem.affine.bias"])
    x = F.conv2d(t["input"], t["stem.weight"] * style.view(1, -1, 1, 1), padding=1)
    x = x + t["stem.bias"].view(1, -1, 1, 1) + t["stem.noise"]
    x = torch.where(x > 0, x, 0.2 * x)
    style = F.linear(w[1], t["blocks.0.up.affine.weight"], t["blocks.0.up.affine.bias"])
    low, detail = (x * style.view(1, -1, 1, 1)).split((128, 384), 1)
    coefficients = torch.stack(
        [low, *detail.unflatten(1, (128, 3)).unbind(2)], -1
    )  # low, vertical, horizontal
    signs = torch.tensor(hadamard(4), dtype=torch.double)[[0, 2, 1, 3]] / 2
    blocks = (coefficients @ signs).unflatten(-1, (2, 2))  # [1, 128, 4, 4, 2, 2]
    x = blocks.permute(0, 1, 2, 4, 3, 5).reshape(1, 128, 8, 8)
    x = separable(t, "blocks.0.conv1", x, w[1])
    return separable(t, "blocks.0.conv2", x, w[2])[0]


def test_features_equal_a_plain_computation(generator, w_plus):
    expected = torch.stack([reference_features(generator, w) for w in w_plus])
    features = generator.features(w_plus, 8)
    assert expected.std() > 0.1
    assert (features - expected).abs().max() < 1e-4
    alone = torch.cat([generator.features(w[None], 8) for w in w_plus])
    assert (alone - expected).abs().max() < 1e-4


def test_feature_sizes(generator, w_plus):
    for size, channels in zip((4, 8, 16, 32, 64, 128), CHANNELS, strict=False):
        assert generator.features(w_plus[:1], size).shape == (1, channels, size, size)
    for size in (2, 24, 1024):
        with pytest.raises(ValueError, match="feature size"):
            generator.features(w_plus, size)


@pytest.mark.parametrize("row", range(16))
def test_a_row_drives_its_own_layers_only(generator, w_plus, row):
    changed = w_plus[:1].clone()
    changed[:, row] += 1
    before, after = generator.styles(w_plus[:1]), generator.styles(changed)
    assert [len(s[0]) for s in before] == [layer.channels for layer in generator.style_layers]
    moved = [not torch.equal(a, b) for a, b in zip(before, after, strict=True)]
    assert moved == [layer.row == row for layer in generator.style_layers]


def test_rows_reach_the_image_where_they_should(generator, w_plus):
    """Outputs of every part, row by row: the first part that a row changes is the one that it drives."""
    parts = {layer.name: generator.get_submodule(layer.name) for layer in generator.style_layers}
    parts = {
        name: part
        for name, part in parts.items()
        if name == "stem" or name.startswith(("blocks.0", "blocks.1"))
    }
    seen = {}
    hooks = [
        part.register_forward_hook(lambda _m, _i, out, name=name: seen.__setitem__(name, out))
        for name, part in parts.items()
    ]
    generator.features(w_plus[:1], 16)
    before = dict(seen)
    first = {0: "stem", 1: "blocks.0.up", 2: "blocks.0.conv2", 3: "blocks.1.up", 4: "blocks.1.conv2", 5: None}
    for row, name in first.items():
        changed = w_plus[:1].clone()
        changed[:, row] += 1
        generator.features(changed, 16)
        different = [part for part in parts if not torch.equal(before[part], seen[part])]
        start = list(parts).index(name) if name else len(parts)
        assert different == list(parts)[start:]
    for hook in hooks:
        hook.remove()


def test_preview_decodes_the_features_of_half_its_size(generator, w_plus):
    image = generator.synthesize(w_plus, resolution=128)
    assert image.shape == (3, 3, 128, 128)
    head = generator.previews["128"]
    assert torch.equal(image, head(generator.features(w_plus, 64), w_plus[:, 8]))


def test_previews_can_be_left(generator):
    other = randomise(MobileGenerator([128]))
    assert other.decode_resolution(100) == 128
    other.drop_previews()
    assert other.resolutions == (1024,)
    assert other.decode_resolution(100) == 1024
    other.load_state_dict({k: v for k, v in generator.state_dict().items() if not k.startswith("previews.")})


def test_gradients_reach_exactly_the_rows_in_use(generator, w_plus):
    latents = w_plus[:2].clone().requires_grad_()
    generator.synthesize(latents, resolution=128).square().mean().backward()
    used = latents.grad.abs().sum((0, 2)) > 0
    assert used.tolist() == [row <= 8 for row in range(16)]


def test_gradient_of_the_full_image(generator, w_plus):
    """The change of the image's mean along a direction, from the gradient and from a difference."""
    direction = torch.randn(16, 512, generator=torch.Generator().manual_seed(3)) * 1e-2
    latents = w_plus[:1].clone().requires_grad_()
    generator.synthesize(latents).mean().backward()
    slope = float((latents.grad[0] * direction).sum())
    with torch.no_grad():
        difference = [generator.synthesize(w_plus[:1] + s * direction).double().mean() for s in (1, -1)]
    assert slope == pytest.approx(float(difference[0] - difference[1]) / 2, rel=0.02)


def test_styles_are_as_good_as_latents(generator, w_plus):
    image = generator.synthesize(w_plus[:1])
    assert image.shape == (1, 3, 1024, 1024)
    assert torch.equal(image, generator.synthesize(styles=generator.styles(w_plus[:1])))


def test_noise(generator, w_plus):
    stored = [generator.stem.noise] + [c.noise for b in generator.blocks for c in (b.conv1, b.conv2)]
    default = generator.synthesize(w_plus, resolution=128)
    assert torch.equal(default, generator.synthesize(w_plus, resolution=128, noise="const"))
    assert torch.equal(default, generator.synthesize(w_plus, resolution=128, noise=stored))
    torch.manual_seed(0)
    random = generator.synthesize(w_plus, resolution=128, noise="random")
    torch.manual_seed(0)
    assert torch.equal(random, generator.synthesize(w_plus, resolution=128, noise="random"))
    assert not torch.equal(random, default)
    with pytest.raises(ValueError, match="15 noise inputs"):
        generator.synthesize(w_plus, noise=stored[:3])


def test_random_noise_is_as_strong_as_the_stored_one(generator):
    torch.manual_seed(0)
    for stored, random in zip(generator._noise(None, 1), generator._noise("random", 64), strict=True):
        assert random.shape == (64, *stored.shape[1:])
        assert float(random.std()) == pytest.approx(float(stored.std()), rel=0.15)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "either"),
        ({"w_plus": torch.zeros(1, 16, 512), "styles": []}, "either"),
        ({"w_plus": torch.zeros(1, 18, 512)}, r"\[B, 16, 512\].*\(1, 18, 512\)"),
        ({"w_plus": torch.zeros(16, 512)}, r"\[B, 16, 512\]"),
        ({"w_plus": torch.zeros(1, 16, 512), "resolution": 256}, r"\(128, 1024\)"),
        ({"styles": [torch.ones(1, 512)] * 23, "resolution": 128}, "give w_plus"),
    ],
)
def test_wrong_arguments_are_refused(generator, arguments, message):
    with pytest.raises(ValueError, match=message):
        generator.synthesize(**arguments)


def test_interface(generator):
    assert (generator.rows, generator.resolution, generator.resolutions) == (16, 1024, (128, 1024))
    assert [generator.decode_resolution(size) for size in (64, 128, 129, 2048)] == [128, 128, 1024, 1024]
    assert {layer.row for layer in generator.style_layers} == set(range(16))
    assert len(generator.conv_layers()) == len(generator.style_layers) - 1
    with pytest.raises(ValueError, match="preview resolution 64"):
        MobileGenerator([64])


def test_unknown_generator():
    with pytest.raises(InputError, match="mobile-ffhq"):
        load_generator("biggan")


@pytest.mark.weights
def test_shipped_previews_look_like_the_full_image(weights):
    """The 256² decode against the downsampled full output, on faces that training never saw.

    Measured 27.5 dB; a head on the wrong features or row of W+ is far below the bound.
    """
    weights("mobile-ffhq")
    generator = load_generator()
    w = generator.mapping(torch.randn(2, 512, generator=torch.Generator().manual_seed(99)))
    w_plus = generator.broadcast(generator.truncate(w, 0.7))
    full = F.adaptive_avg_pool2d(generator.synthesize(w_plus).clamp(-1, 1), 256)
    error = (generator.synthesize(w_plus, resolution=256).clamp(-1, 1) - full).square().mean((1, 2, 3))
    assert (10 * torch.log10(4 / error)).min() > 25
