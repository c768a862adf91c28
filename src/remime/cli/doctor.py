"""``remime doctor``: whether a default run can work here, and what to do if not."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer

from remime.cli import networks
from remime.errors import RemimeError

PACKAGES = (
    "torch", "torchvision", "numpy", "scipy", "h5py", "pyarrow", "av", "imageio-ffmpeg", "dlib-bin",
    "opencv-python-headless", "safetensors", "lightning-fabric", "snakemake",
)  # fmt: skip
MODELS = (networks.PREVIEW, networks.INVERTER, "restyle-e4e-small", "mapping-small")
NEEDED_MODELS = (networks.PREVIEW, networks.INVERTER, "mapping-small")
LEAST_FREE = 2 * 1024**3
"""Bytes; what a default run writes, with some room."""

_GIB = 1024**3


@dataclass
class Report:
    """What was found.

    Attributes:
        facts: group → name → value.
        problems: what keeps a default run from working, each with what to do.
    """

    facts: dict[str, Any] = field(default_factory=dict)
    problems: list[dict[str, str]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether a default run can work."""
        return not self.problems

    def problem(self, what: str, fix: str) -> None:
        """Note what is wrong, and what to do."""
        self.problems.append({"problem": what, "fix": fix})


def command(
    as_json: Annotated[bool, typer.Option("--json", help="Everything as JSON on stdout.")] = False,
) -> None:
    """Look at this machine: versions, devices, ffmpeg, weights, models, disk.

    Exit code 0 when a default run can work, else 1, with what to do.
    """
    report = examine()
    if as_json:
        typer.echo(json.dumps({"ok": report.ok, **report.facts, "problems": report.problems}, indent=1))
    else:
        _show(report)
    if not report.ok:
        raise typer.Exit(1)


def examine() -> Report:
    """All checks; none of them raises or uses the network."""
    report = Report()
    checks: tuple[Callable[[Report], None], ...] = (_versions, _devices, _ffmpeg, _weights, _models, _disk)
    for check in checks:
        try:
            check(report)
        except (RemimeError, OSError, ImportError) as error:
            report.problem(f"{check.__name__.strip('_')}: {error}", "see the message")
    return report


def _versions(report: Report) -> None:
    from remime.versions import __version__

    found = {"remime": __version__, "python": platform.python_version(), "system": platform.platform()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
            report.problem(
                f"the package {name} is not installed", "run `make environment`, or pip install remime"
            )
    report.facts["versions"] = found


def _devices(report: Report) -> None:
    import torch

    from remime.runtime import threads

    gpus = []
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            known = torch.cuda.get_device_properties(i)
            gpus.append(f"cuda:{i} {known.name}, {known.total_memory / _GIB:.0f} GiB")
    report.facts["devices"] = {
        "cpu": platform.processor() or platform.machine(),
        "threads": threads(),
        "torch_threads": torch.get_num_threads(),
        "gpus": gpus,
        "cuda": torch.version.cuda or "none in this PyTorch",
        "default": "cuda" if gpus else "cpu",
    }


def _ffmpeg(report: Report) -> None:
    import imageio_ffmpeg

    fix = "install the package imageio-ffmpeg again, or set IMAGEIO_FFMPEG_EXE to an ffmpeg with libx264"
    try:
        path = imageio_ffmpeg.get_ffmpeg_exe()
        said = _said(path, "-version").splitlines()[0]
        encoder = "libx264" in _said(path, "-hide_banner", "-encoders")
    except (RuntimeError, OSError, subprocess.SubprocessError, IndexError) as error:
        report.facts["ffmpeg"] = {"path": "", "version": "", "libx264": False}
        report.problem(f"ffmpeg cannot be run ({error})", fix)
        return
    report.facts["ffmpeg"] = {"path": path, "version": said, "libx264": encoder}
    if not encoder:
        report.problem(f"{path} cannot write H.264 (it has no libx264)", fix)


def _said(*arguments: str) -> str:
    return subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=30).stdout


def _weights(report: Report) -> None:
    from remime import weights as store
    from remime.cli.weights import inspect_all, mend

    found = inspect_all(None, deep=True)
    report.facts["weights"] = {
        "folder": str(store.weights_dir()),
        "networks": [asdict(each) for each in found],
    }
    bad = [each for each in found if each.state == "damaged" or (each.state == "missing" and each.used_by)]
    for each in bad:
        report.problem(f"weights {each.name}: {each.state} ({each.detail})", *mend([each.name]))


def _models(report: Report) -> None:
    from remime.models import read_meta, shipped

    rows = []
    for name in MODELS:
        try:
            path = shipped(name)
            meta = read_meta(path)
            rows.append(
                {
                    "name": name,
                    "state": "present",
                    "path": str(path),
                    "kind": meta["kind"],
                    "preset": meta["preset"],
                }
            )
        except RemimeError as error:
            rows.append({"name": name, "state": "unusable", "path": "", "kind": "", "preset": ""})
            if name in NEEDED_MODELS:
                first, _, fix = str(error).partition("\n")
                report.problem(f"shipped model {first}", fix.strip())
    report.facts["models"] = rows


def _disk(report: Report) -> None:
    from remime.weights import weights_dir

    free = {}
    for name, folder in (
        ("weights", weights_dir()),
        ("here", Path.cwd()),
        ("temporary", Path(tempfile.gettempdir())),
    ):
        existing = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
        free[name] = {"path": str(existing), "free_gib": round(shutil.disk_usage(existing).free / _GIB, 1)}
    report.facts["disk"] = free
    if shutil.disk_usage(Path.cwd()).free < LEAST_FREE:
        report.problem(
            f"{free['here']['path']} has {free['here']['free_gib']} GiB free",
            f"{LEAST_FREE / _GIB:.0f} GiB are needed",
        )


def _show(report: Report) -> None:
    facts = report.facts
    for name, value in facts.get("versions", {}).items():
        typer.echo(f"{name:<24}{value}")
    devices = facts.get("devices", {})
    typer.echo(
        f"{'device':<24}{', '.join(devices.get('gpus', [])) or 'cpu'} ({devices.get('threads')} threads)"
    )
    typer.echo(f"{'cuda':<24}{devices.get('cuda')}")
    typer.echo(f"{'ffmpeg':<24}{facts.get('ffmpeg', {}).get('version', 'none')}")
    typer.echo(f"\nweights in {facts.get('weights', {}).get('folder', '?')}")
    for each in facts.get("weights", {}).get("networks", []):
        use = ", ".join(each["used_by"]) or "optional"
        typer.echo(
            f"  {each['name']:<22}{each['state']:<10}{use:<22}{each['terms']}: {each['weights_terms']}"
        )
    typer.echo("\nmodels")
    for each in facts.get("models", []):
        typer.echo(f"  {each['name']:<22}{each['state']:<10}{each['kind']} {each['preset']}")
    typer.echo("\nfree disk")
    for name, each in facts.get("disk", {}).items():
        typer.echo(f"  {name:<22}{each['free_gib']:>7} GiB  {each['path']}")
    for each in report.problems:
        print(f"problem: {each['problem']}\n  {each['fix']}", file=sys.stderr)
    typer.echo("\na default run can work" if report.ok else "\na default run cannot work yet")
