"""Preview heads are trained as they are used, against the full image."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from remime.errors import InputError
from remime.generators.mobile import MobileGenerator
from remime.training.loop import LoopOptions, train
from remime.training.preview import PreviewTask
from remime.training.processes import Processes
from tests.unit.generators.test_mobile import randomise


@pytest.fixture(scope="module")
def generator():
    return randomise(MobileGenerator())


def test_training_and_decoding_agree(generator):
    task = PreviewTask(generator, [128], batch=1, lr=1e-3, seed=0)
    w_plus = torch.randn(1, 16, 512, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        out, target = task._errors(w_plus)[128]
    user = MobileGenerator([128])
    heads = {f"previews.{k}": v for k, v in task.module.state_dict().items()}
    user.load_state_dict({**generator.state_dict(), **heads})
    with torch.no_grad():
        assert torch.allclose(user.synthesize(w_plus, resolution=128), out, atol=1e-5)
        full = user.synthesize(w_plus).clamp(-1, 1)
    assert torch.allclose(target, F.interpolate(full, size=128, mode="area"), atol=1e-5)


def test_head_learns_an_image(generator, tmp_path, monkeypatch):
    task = PreviewTask(generator, [128], batch=1, lr=5e-3, seed=0)
    image = task._targets(task.batch(0))
    monkeypatch.setattr(task, "_targets", lambda w_plus: image)
    result = train(task, LoopOptions(25, clip=0.0, validate_every=25), tmp_path, "preview")
    first, last = (r["value"] for r in result.history if r["name"] == "psnr_128")
    assert last > first + 2
    assert result.step == 25


def test_samples_follow_from_the_step(generator):
    task = PreviewTask(generator, [128], batch=2, lr=1e-3, seed=5)
    assert torch.equal(task.batch(3), task.batch(3))
    assert not torch.equal(task.batch(3), task.batch(4))


def test_processes_share_the_samples(generator):
    whole = PreviewTask(generator, [128], batch=4, lr=1e-3, seed=5).batch(3)
    shares = [PreviewTask(generator, [128], 4, 1e-3, 5, Processes(rank, 2)).batch(3) for rank in (0, 1)]
    assert torch.equal(torch.stack(shares, 1).flatten(0, 1), whole)
    with pytest.raises(InputError, match="batch: 5 rows"):
        PreviewTask(generator, [128], 5, 1e-3, 5, Processes(0, 2))
