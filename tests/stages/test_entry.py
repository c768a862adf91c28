"""Every way in which a stage can end: a message and an exit code, a traceback only for the unforeseen."""

from __future__ import annotations

import argparse
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from remime.errors import InputError, RemimeError, WeightsError
from remime.stages import Dataset, add_datasets, dataset_argument, json_object, stage_parser, status_of
from remime.versions import STAGES


def fail(error: BaseException) -> Callable[[], None]:
    def main() -> None:
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (InputError("clip.mp4", "is empty", "fetch it"), 2, "error: clip.mp4: is empty\n  fetch it"),
        (RemimeError("no"), 1, "error: no"),
        (WeightsError("gone"), 1, "error: gone"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (
            OSError(errno.ENOSPC, "No space left on device", "results/x"),
            1,
            "results/x: No space left on device\n  free",
        ),
        (OSError(errno.EROFS, "Read-only file system", "results"), 2, "can be written to"),
        (
            PermissionError(errno.EACCES, "Permission denied", "results"),
            2,
            "error: results: Permission denied",
        ),
        (SystemExit(2), 2, ""),
        (SystemExit(None), 0, ""),
        (SystemExit("text"), 1, ""),
    ],
)
def test_foreseen_ends_have_no_traceback(
    error: BaseException, code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status_of(fail(error)) == code
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said


@pytest.mark.parametrize("error", [ValueError("bug"), OSError(errno.EIO, "Input/output error")])
def test_unforeseen_ends_have_one(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    assert status_of(fail(error)) == 1
    assert caplog.records[0].exc_info is not None


def test_success_is_zero() -> None:
    assert status_of(lambda: 17) == 0


PROGRAM = """
import sys, time
from pathlib import Path
from remime.files import atomic
from remime.stages import entry

def main():
    with atomic(Path(sys.argv[1]) / "file") as temporary:
        temporary.write_text("half")
        print("ready", flush=True)
        time.sleep(60)

entry(main)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_leave_no_half_file(tmp_path: Path, number: signal.Signals, code: int) -> None:
    # SIGINT may be ignored in the shell that started the tests, and children inherit that.
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        stdout=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(number)
    assert process.wait(timeout=60) == code
    assert list(tmp_path.iterdir()) == []


def test_kill_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.kill()
    process.wait(timeout=60)
    assert (tmp_path / "file").read_text() == "old"


def test_a_full_disk_is_told_in_a_sentence() -> None:
    """/dev/full answers every write as a full disk does."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    program = (
        "from remime.stages import entry\n"
        "def main():\n"
        "    with open('/dev/full', 'wb', buffering=0) as handle:\n        handle.write(b'x')\n"
        "entry(main)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_told_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tmp_path.chmod(0o555)
    assert status_of(lambda: (tmp_path / "file").write_text("x")) == 2
    assert "Permission denied" in capsys.readouterr().err


def test_options_are_a_json_object() -> None:
    assert json_object('{"a": [1, null]}') == {"a": [1, None]}
    for text in ("[1]", "{a: 1}", ""):
        with pytest.raises(argparse.ArgumentTypeError, match="JSON"):
            json_object(text)


def test_datasets_are_parsed_and_written_alike() -> None:
    dataset = dataset_argument("results/a=b=12")
    assert dataset == Dataset(Path("results/a=b"), 12)
    assert dataset_argument(dataset.argument()) == dataset
    for text in ("results/a", "=2", "a=0", "a=x", "a=-1", "a="):
        with pytest.raises(argparse.ArgumentTypeError, match="is not FOLDER=SHARDS"):
            dataset_argument(text)


def test_a_parser_knows_its_stage(capsys: pytest.CaptureFixture[str]) -> None:
    parser = stage_parser("plan", "First line.\n\nSecond.")
    add_datasets(parser)
    args = parser.parse_args(["--datasets", "a=1", "b=2", "--options", "{}"])
    assert [d.name for d in args.datasets] == ["a", "b"]
    assert status_of(lambda: parser.parse_args(["--dataset", "a=1"])) == 2
    assert "python -m remime.stages.plan" in capsys.readouterr().err
    assert status_of(lambda: parser.parse_args(["--version"])) == 0
    assert capsys.readouterr().out == f"plan {STAGES['plan']}\n"


def test_importing_the_entry_is_quick() -> None:
    """Every job and every parse of the Snakefile pays for it: no heavy package may slip in."""
    program = (
        "import sys, remime.stages, remime.options; print(*sorted(m.split('.')[0] for m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    heavy = {"torch", "numpy", "pyarrow", "cv2", "h5py", "av", "yaml", "jsonschema"}
    assert not heavy & set(done.stdout.split())
