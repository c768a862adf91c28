"""At what a face rests, by hand."""

import pytest
import torch

from remime.faces.mesh import BLENDSHAPES
from remime.methods.resting import RESTS, Rest, Resting

# Three numbers of a code tell two parameters, each of which moves one number of W+.
READINGS = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
SHIFTS = torch.zeros(2, 4, 512)
SHIFTS[0, 0, 0], SHIFTS[1, 3, 5] = 1.0, -10.0


def resting(spread=1e3):
    made = Resting(READINGS, SHIFTS, [Rest(0.5, own=0.5, spread=spread), Rest(0.0, own=0.25, spread=spread)])
    made.usual = torch.tensor([1.0, -2.0])
    return made


def test_a_clip_rests_at_a_quantile_of_each_parameter():
    read = resting().read(torch.tensor([[3.0, 1.0, 9.0], [0.0, 4.0, 9.0], [2.0, 3.0, 9.0]]))
    assert torch.equal(read, torch.tensor([[3.0, 2.0], [0.0, 8.0], [2.0, 6.0]]))
    assert resting().rest(read).tolist() == [2.0, 2.0]  # the median, the lowest


def test_a_target_moves_from_its_own_rest():
    """Of what one image shows beyond the usual, a share is its own."""
    own = torch.tensor([[3.0, 3.0, 9.0]])  # 2 beyond the usual 1, and 8 beyond -2
    away = resting().away(torch.tensor([4.0, 1.0]), own)
    assert away.shape == (1, 4, 512)
    assert away[0, 0, 0] == pytest.approx(4 - (1 + 0.5 * 2))
    assert away[0, 3, 5] == pytest.approx(-10 * (1 - (-2 + 0.25 * 8)))
    assert away.count_nonzero() == 2


def test_at_its_own_rest_a_target_stays():
    away = resting().away(torch.tensor([2.0, 0.0]), torch.tensor([[3.0, 3.0, 9.0]]))
    assert not away.any()


@pytest.mark.parametrize("sign", [1, -1])
def test_a_rest_that_nobody_has_is_an_expression(sign):
    """What lies further from the usual than two standard deviations is cut, in clips and in targets."""
    narrow, far = resting(spread=0.05), sign * torch.tensor([[9.0, 9.0]])
    edge = [1 + sign * 0.1, -2 + sign * 0.1]
    assert narrow.rest(far).tolist() == pytest.approx(edge)
    away = narrow.away(torch.tensor([1.0, -2.0]), sign * torch.tensor([[9.0, 9.0, 9.0]]))
    assert (away[0, 0, 0], away[0, 3, 5]) == (pytest.approx(-sign * 0.1), pytest.approx(10 * sign * 0.1))
    near = torch.tensor([[1.05, -2.05]])
    assert narrow.rest(near).tolist() == pytest.approx(near[0].tolist())


def test_nothing_of_it_is_saved():
    assert not resting().state_dict()


def test_rests_are_of_blendshapes():
    assert RESTS.keys() <= set(BLENDSHAPES)
    assert all(0 <= rest.quantile <= 1 and 0 <= rest.own <= 1 and rest.spread > 0 for rest in RESTS.values())
