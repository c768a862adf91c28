"""Head pose: signs, expectation over bins, and Hopenet from a user's file."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from remime.errors import InputError, WeightsError
from remime.faces.mesh import load_mesh
from remime.faces.pose import Hopenet, PoseNetwork, load_pose
from remime.faces.template import HOPENET

from ...stills import aligned


@pytest.fixture(scope="module")
def pose(weights):
    weights("hopenet-lite")
    return load_pose("hopenet-lite")


def turned(images, degrees):
    """The frames with their content turned clockwise on the screen about the middle of the face."""
    angle = math.radians(degrees)
    cosine, sine, middle = math.cos(angle), math.sin(angle), torch.tensor([0.0, 0.12])
    # affine_grid asks where an output pixel comes from: the inverse turn, with y down.
    matrix = torch.tensor([[cosine, sine], [-sine, cosine]])
    transform = torch.cat([matrix, (middle - matrix @ middle)[:, None]], 1).expand(len(images), 2, 3)
    grid = F.affine_grid(transform, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


@pytest.mark.weights
def test_a_mirror_negates_yaw_and_roll_and_keeps_pitch(pose):
    images, _ = aligned()
    plain, mirrored = pose(images), pose(images.flip(-1))
    # The network itself leans by about -1.7° of yaw and of roll, so a pair may miss by twice that.
    assert (plain[:, 0] + mirrored[:, 0]).abs().max() < 6
    assert (plain[:, 2] + mirrored[:, 2]).abs().max() < 6
    assert (plain[:, 1] - mirrored[:, 1]).abs().max() < 3
    assert plain[:, 0].abs().max() > 10  # there is something to negate


@pytest.mark.weights
@pytest.mark.parametrize("degrees", [-20, 20])
def test_a_turn_in_the_plane_is_roll(pose, degrees):
    images, _ = aligned()
    change = (pose(turned(images, degrees)) - pose(images)).mean(0)
    assert abs(change[2] - degrees) < 4
    assert change[:2].abs().max() < 6


@pytest.mark.weights
def test_yaw_is_positive_where_the_nose_points_left(pose, weights):
    for name in ("face-mesh", "blendshapes"):
        weights(name)
    images, _ = aligned()
    points = load_mesh()(images).points
    nose_from_eyes = points[:, 1, 0] - (points[:, 33, 0] + points[:, 263, 0]) / 2
    yaw = pose(images)[:, 0]
    sure = yaw.abs() > 5
    assert sure.sum() >= 2
    assert (yaw.sign() == -nose_from_eyes.sign())[sure].all()


@pytest.mark.weights
@pytest.mark.parametrize("size", [128, 512])
def test_the_size_of_the_frame_hardly_matters(pose, size):
    assert (pose(aligned(size=size)[0]) - pose(aligned(size=256)[0])).abs().max() < 3


@pytest.mark.weights
def test_gradients_turn_the_head(pose):
    images, _ = aligned("obama", size=128)
    image = images.clone().requires_grad_()
    before = pose(image)[0, 0]
    before.backward()
    with torch.no_grad():
        after = pose(images + image.grad / image.grad.norm())[0, 0]
    assert after > before + 0.5


class _Bins(nn.Module):
    """Logits that put all weight on one bin for each angle."""

    def forward(self, crops):
        assert crops.shape[1:] == (3, 224, 224)
        self.mean = crops.mean((0, 2, 3))
        return [F.one_hot(torch.full((len(crops),), k), 66) * 1000.0 for k in (0, 33, 65)]


def test_an_angle_is_the_expectation_over_bins_of_three_degrees():
    network = _Bins()
    pose = PoseNetwork("test", network, HOPENET)
    torch.testing.assert_close(pose(torch.zeros(2, 3, 64, 64)), torch.tensor([[-99.0, 0.0, 96.0]] * 2))
    # Mid grey, by ImageNet's mean and standard deviation.
    expected = (0.5 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(network.mean, expected, atol=1e-4, rtol=0)


@pytest.fixture(scope="module")
def published():
    """Random weights with the names of the published files."""
    torch.manual_seed(0)
    state = {n: t for n, t in Hopenet().state_dict().items() if not n.endswith("num_batches_tracked")}
    return state | {"fc_finetune.weight": torch.zeros(3, 2051), "fc_finetune.bias": torch.zeros(3)}


@pytest.mark.parametrize("prefix", ["", "module."])
def test_hopenet_is_read_from_the_published_format(tmp_path, published, prefix):
    path = tmp_path / "hopenet_robust_alpha1.pkl"
    state = {f"{prefix}{n}": t for n, t in published.items()}
    torch.save(state, path, _use_new_zipfile_serialization=False)
    pose = load_pose("hopenet", path)
    torch.testing.assert_close(pose.network.fc_pitch.weight.data, published["fc_pitch.weight"])
    images = torch.rand(1, 3, 64, 64) * 2 - 1
    crops = (F.interpolate(images, size=224, mode="bilinear", antialias=True) + 1) / 2
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    crops = (crops - mean[:, None, None]) / std[:, None, None]
    pooled = pose.network.avgpool(_trunk(pose.network, crops)).flatten(1)
    for index, head in enumerate(("fc_yaw", "fc_pitch", "fc_roll")):
        logits = F.linear(pooled, published[f"{head}.weight"], published[f"{head}.bias"])
        expected = (logits.softmax(1) * torch.arange(66)).sum(1) * 3 - 99
        torch.testing.assert_close(pose(images)[:, index], expected, atol=1e-2, rtol=0)


def _trunk(network, x):
    x = network.maxpool(network.relu(network.bn1(network.conv1(x))))
    return network.layer4(network.layer3(network.layer2(network.layer1(x))))


def test_a_file_of_another_network_is_refused_with_what_differs(tmp_path, published):
    path = tmp_path / "other.pkl"
    state = {n: t for n, t in published.items() if n != "fc_roll.bias"}
    state["fc_yaw.weight"] = torch.zeros(10, 2048)
    torch.save(state, path)
    with pytest.raises(
        WeightsError, match=r"other\.pkl.*fc_roll\.bias is missing.*fc_yaw\.weight.*\[10, 2048\]"
    ):
        load_pose("hopenet", path)


def test_a_pickle_with_code_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("run").touch, ())

    path = tmp_path / "trap.pkl"
    torch.save({"conv1.weight": Trap()}, path)
    with pytest.raises(WeightsError, match=r"trap\.pkl"):
        load_pose("hopenet", path)
    assert not tmp_path.joinpath("run").exists()


def test_what_hopenet_needs_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("REMIME_WEIGHTS", str(tmp_path))
    with pytest.raises(
        WeightsError, match=r"hopenet_robust_alpha1\.pkl(.|\n)*remime weights import FILE --name hopenet"
    ):
        load_pose("hopenet")
    with pytest.raises(InputError, match=r"nowhere\.pkl"):
        load_pose("hopenet", tmp_path / "nowhere.pkl")
    with pytest.raises(WeightsError, match=r"'fsanet'(.|\n)*hopenet-lite"):
        load_pose("fsanet")


@pytest.mark.weights
def test_a_network_of_another_role_is_refused(weights):
    weights("sface")
    with pytest.raises(InputError, match="'sface' is no pose network"):
        load_pose("sface")
