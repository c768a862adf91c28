"""Whether a job runs with the libraries that its workflow was started with.

On a cluster a node may have another environment than the submit host. Its results would look like all others,
so that nobody could tell why they differ; such a job is refused instead. Standard library only.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from remime.errors import RemimeError
from remime.versions import __version__

FILE = Path("results/state/libraries.json")
ALLOWED = "REMIME_MIXED_LIBRARIES"


def libraries() -> dict[str, str]:
    """The versions of Python, of this package and of what it requires, without marks of builds (``+cpu``)."""
    found = {"python": "{}.{}".format(*sys.version_info), "remime": __version__}
    with suppress(PackageNotFoundError):
        for line in requires("remime") or []:
            name = re.split(r"[^\w.-]", line)[0]
            if "extra ==" not in line:
                # What is missing will be told by the import that needs it.
                with suppress(PackageNotFoundError):
                    found[name] = version(name).partition("+")[0]
    return found


def record(path: Path = FILE) -> None:
    """Note the libraries of the process that starts a workflow; its jobs compare theirs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps({"host": platform.node(), "libraries": libraries()}, indent=1))
    temporary.replace(path)


def forget(path: Path = FILE) -> None:
    """Compare nothing: jobs have environments of their own on purpose."""
    path.unlink(missing_ok=True)


def check(path: Path = FILE, environment: Mapping[str, str] = os.environ) -> None:
    """Refuse to work with other libraries than the workflow was started with.

    Raises:
        RemimeError: some differ; each is named with both versions.
    """
    if environment.get(ALLOWED) == "1" or not path.is_file():
        return
    noted = json.loads(path.read_text())
    mine = libraries()
    other = [
        f"{name} {mine[name]} instead of {wanted}"
        for name, wanted in noted["libraries"].items()
        if mine.get(name, wanted) != wanted
    ]
    if other:
        raise RemimeError(
            f"this machine ({platform.node()}) has {', '.join(other)}, the versions with which the workflow "
            f"was started on {noted['host']}\n  give all machines the same environment (constraints.txt), or "
            f"set {ALLOWED}=1 to accept that results may differ"
        )
