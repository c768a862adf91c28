"""Errors say what is wrong and what to do, and which exit code they mean."""

from __future__ import annotations

import pytest

from remime.errors import (
    ConfigError,
    InputError,
    RemimeError,
    VersionError,
    WeightsError,
    refuse_unknown,
    shape_error,
)


def test_an_input_error_names_the_thing_the_problem_and_the_fix() -> None:
    error = InputError("clip.mp4", "is empty (0 bytes)", "fetch it again")
    assert str(error) == "clip.mp4: is empty (0 bytes)\n  fetch it again"
    assert str(InputError("a", "b")) == "a: b"


def test_a_config_error_lists_every_problem() -> None:
    error = ConfigError("config.yaml", ["seed: bad", "align: worse"])
    assert str(error).splitlines()[0].startswith("config.yaml: 2 problem(s)")
    assert "  - seed: bad" in str(error)
    assert "  - align: worse" in str(error)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RemimeError("x"), 1),
        (WeightsError("x"), 1),
        (VersionError("x"), 1),
        (InputError("x", "y"), 2),
        (ConfigError("x", []), 2),
    ],
)
def test_exit_codes(error: RemimeError, code: int) -> None:
    assert error.exit_code == code


def test_a_shape_error_names_both_shapes() -> None:
    assert (
        str(shape_error("w", "[B, 16, 512]", (2, 18, 512)))
        == "w: expected shape [B, 16, 512], got (2, 18, 512)"
    )


def test_unknown_options_are_refused_by_name() -> None:
    refuse_unknown("align", ["size"], ("size", "policy"))
    with pytest.raises(InputError, match="align: sise: is not an option\n  known are size, policy"):
        refuse_unknown("align", {"size": 1, "sise": 2}, ("size", "policy"))
