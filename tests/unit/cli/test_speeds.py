"""Speeds of stages, by hand."""

import pytest

from remime.cli.speeds import Speed, speeds_of
from remime.errors import InputError
from remime.progress import Progress


@pytest.fixture
def results(tmp_path):
    """``results(log, text, memory)``: writes a job's log and its benchmark file, and gives the folder."""

    def write(log, text, memory=None):
        path = tmp_path / "logs" / f"{log}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        if memory is not None:
            path = tmp_path / "speed" / f"{log}.tsv"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"s\tmax_rss\n1.5\t{memory}\n")
        return tmp_path

    return write


def test_jobs_of_one_kind_are_one_row(results):
    results("invert/faces/psp/0000-of-0002", "invert 0000-of-0002: 80/80 frames, 2.0/s, took 00:40\n", 1500)
    folder = results(
        "invert/faces/psp/0001-of-0002",
        "invert 0001-of-0002: 60/80 frames, 1.0/s, ETA 00:20\n"
        "invert 0001-of-0002: 80/80 frames, 1.0/s, took 1:00:20 for 70 of them\n",
        "-",
    )
    expected = Speed("invert", "faces/psp", 2, "frames", 150, 3660, 1500.0)
    assert speeds_of(folder) == [expected]
    assert expected.rate == pytest.approx(150 / 3660)


def test_models_are_rows_of_their_own_and_other_loops_do_not_count(results):
    text = "mesh of the training frames: 64/64 batches, 2.5/s, took 00:25\n"
    results("train/a", text + "train a: 60/60 steps, 0.5/s, loss 0.1, took 02:00\nanything else\n", 3000)
    folder = results("train/b", "train b: 60/60 steps, 600.0/s, took 00:00\n")
    assert speeds_of(folder) == [
        Speed("train", "a", 1, "steps", 60, 120, 3000.0),
        Speed("train", "b", 1, "steps", 60, 0, None),
    ]
    assert speeds_of(folder)[1].rate == 60  # logs have whole seconds


def test_clips_that_tell_their_frames_count_as_frames(results):
    folder = results("align/faces/0000-of-0001", "align 0: 8/8 clips, 0.9/s, 384 frames, took 00:09\n")
    assert speeds_of(folder) == [Speed("align", "faces", 1, "frames", 384, 9, None)]


def test_all_loops_of_a_job_count(results):
    folder = results("sheet/cross", "".join(f"sheet {n}: 7/7 frames, 7.0/s, took 00:01\n" for n in "ab"))
    assert speeds_of(folder) == [Speed("sheet", "cross", 1, "frames", 14, 2, None)]


def test_real_progress_is_understood(results, capsys):
    with Progress(5, "score model 0000-of-0001", "pairs", done=2) as progress:
        progress.update(3, note="a note")
    folder = results("score/cross/model/0000-of-0001", capsys.readouterr().err)
    assert speeds_of(folder) == [Speed("score", "cross/model", 1, "pairs", 3, 0, None)]


def test_no_logs_are_named(tmp_path):
    with pytest.raises(InputError, match="holds no log"):
        speeds_of(tmp_path)
