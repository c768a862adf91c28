"""``remime bench`` on a reenactment whose time is known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from remime import reenactment
from remime.cli import bench
from remime.cli.reenact import Made
from tests import tiny


@pytest.fixture
def asked(monkeypatch):
    """The requests that were made; each takes twice the time that the generator alone is told to take."""
    seen = []

    def run(request):
        seen.append(request)
        return Made(frames=10, faceless=0, seconds=4.0, resting=1.0)

    monkeypatch.setattr(bench, "run", run)
    monkeypatch.setattr("remime.generators.load_generator", lambda *_: tiny.generator())

    def timed(work):
        """Five images take one second; a reenactment three, and then its stream of frames."""
        made = work()
        return made, 1.0 if made is None else 7.0

    monkeypatch.setattr(bench, "_timed", timed)
    return seen


def test_overhead_is_over_the_generators_time(asked, remime):
    ended = remime("bench", "--driving", "talk.mp4", "--images", 5, "--device", "cpu", "--json")
    assert ended.code == 0
    (row,) = json.loads(ended.out)["rows"]
    # 0.4 s for a frame against 0.2 s.
    speeds = {"resolution": 256, "generator": 5.0, "reenact": 2.5, "overhead": 1.0, "with_rest": 2.0}
    assert row == pytest.approx({**speeds, "before": 3.0, "error_mean": 0.0, "error_max": 0.0})
    assert len(asked) == bench.ROUNDS
    assert asked[0].driving == Path("talk.mp4")
    assert not asked[0].output.parent.exists()


@pytest.mark.parametrize("batch", [1, 4])
def test_the_generator_alone_decodes_in_batches_as_the_whole_does(asked, remime, monkeypatch, batch):
    shapes, generator = [], tiny.generator()
    synthesize = type(generator).synthesize
    monkeypatch.setattr("remime.generators.load_generator", lambda *_: generator)
    monkeypatch.setattr(reenactment.Decoder, "decode_batch", batch)
    monkeypatch.setattr(
        generator,
        "synthesize",
        lambda w_plus, **options: (shapes.append(len(w_plus)), synthesize(generator, w_plus, **options))[1],
    )
    assert remime("bench", "--driving", "talk.mp4", "--images", 10, "--device", "cpu").code == 0
    assert shapes == {1: [1] * 10, 4: [4, 4, 2]}[batch] * (bench.ROUNDS + 2)


def test_the_generator_alone_has_batches_that_fit(asked, remime, monkeypatch):
    shapes, generator = [], tiny.generator()

    def small(w_plus, **_):
        shapes.append(len(w_plus))
        if len(w_plus) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr("remime.generators.load_generator", lambda *_: generator)
    monkeypatch.setattr(reenactment.Decoder, "decode_batch", 4)
    monkeypatch.setattr(generator, "synthesize", small)
    assert remime("bench", "--driving", "talk.mp4", "--images", 4, "--device", "cpu").code == 0
    assert shapes == [4, 2, 2] + [2, 2] * (bench.ROUNDS + 1)


def test_table(asked, remime):
    options = ["--resolution", 256, "--resolution", 1024]
    ended = remime("bench", "--driving", "talk.mp4", "--images", 5, "--device", "cpu", *options)
    rows = [line for line in ended.out.splitlines() if line.startswith("|")]
    assert rows[2:] == [
        "| 256² | 5.00 | 2.50 | +100% | 2.00 | 3.0 |",
        "| 1024² | 5.00 | 2.50 | +100% | 2.00 | 3.0 |",
    ]
    assert "cpu" in ended.out.splitlines()[0]


def test_another_precision_tells_its_error(asked, remime):
    given = ["bench", "--driving", "talk.mp4", "--images", 5, "--device", "cpu", "--precision", "bfloat16"]
    ended = remime(*given)
    _, rule, line = [line for line in ended.out.splitlines() if line.startswith("|")]
    mean, largest = (float(cell) for cell in line.strip("| ").split("|")[-2:])
    assert rule.count("---") == 8
    assert 0 < mean < 2 < 255 > largest > mean
    assert {request.precision for request in asked} == {"bfloat16"}
    (row,) = json.loads(remime(*given, "--json").out)["rows"]
    assert row["error_mean"] == pytest.approx(mean, abs=0.005)
    assert remime("bench", "--driving", "talk.mp4", "--precision", "half").code == 2


def test_resolution_is_checked_first(asked, remime):
    assert remime("bench", "--driving", "talk.mp4", "--resolution", 300).code == 2
    assert not asked


def test_one_of_two_things_is_asked_for(asked, remime, tmp_path):
    for given in ([], ["--driving", "talk.mp4", "--stages", tmp_path]):
        ended = remime("bench", *given)
        assert ended.code == 2
        assert "one of them" in ended.err


def test_stages_of_a_finished_run(remime, tmp_path):
    log = tmp_path / "logs/score/cross/mapping/0000-of-0001.log"
    log.parent.mkdir(parents=True)
    log.write_text("score mapping 0000-of-0001: 20/20 pairs, 0.2/s, took 02:05\n")
    ended = remime("bench", "--stages", tmp_path)
    assert ended.out.splitlines()[2:] == ["| score | cross/mapping | 1 | 20 pairs | 0.2 |  |"]
    ended = remime("bench", "--stages", tmp_path, "--json")
    (row,) = json.loads(ended.out)["stages"]
    assert (row["count"], row["seconds"], row["memory"]) == (20, 125, None)
    assert remime("bench", "--stages", tmp_path / "logs").code == 2
