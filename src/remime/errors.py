"""Errors that a user can act on, and the exit code that each one means."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class RemimeError(Exception):
    """A failure that is reported without a traceback. Exit code 1."""

    exit_code = 1


class InputError(RemimeError):
    """The user's input cannot be used as it is. Exit code 2.

    Args:
        what: the file, option or key at fault.
        problem: what is wrong with it, with the value that was found.
        fix: what is allowed, or what to do.
    """

    exit_code = 2

    def __init__(self, what: object, problem: str, fix: str = "") -> None:
        self.what, self.problem, self.fix = str(what), problem, fix
        super().__init__(f"{what}: {problem}" + (f"\n  {fix}" if fix else ""))


class UnfinishedError(RemimeError):
    """Work ended because its time was over; what is done is kept, and the same call goes on. Exit code 75."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h: try again


class ConfigError(InputError):
    """Every problem of a configuration at once."""

    def __init__(self, source: object, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        listed = "".join(f"\n  - {p}" for p in self.problems)
        super().__init__(source, f"{len(self.problems)} problem(s) in the configuration:{listed}")


class WeightsError(RemimeError):
    """A pretrained file is missing, cannot be fetched, or is not the pinned one."""


class VersionError(RemimeError):
    """A file was written by another version of its stage; it is never misread."""


def refuse_unknown(branch: str, keys: Iterable[str], known: Iterable[str]) -> None:
    """Refuse options that do not exist.

    Args:
        branch: of the configuration, for the message.
        keys: those that are given.
        known: those that exist.

    Raises:
        InputError: there is an unknown one; it names the first.
    """
    known = list(known)
    if unknown := next((key for key in keys if key not in known), None):
        raise InputError(f"{branch}: {unknown}", "is not an option", f"known are {', '.join(known)}")


def shape_error(name: str, expected: str, actual: Sequence[int]) -> ValueError:
    """The error for a tensor of the wrong shape, with both shapes in its text."""
    return ValueError(f"{name}: expected shape {expected}, got {tuple(actual)}")
