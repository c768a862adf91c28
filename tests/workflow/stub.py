"""Stands in for ``python -m remime.stages.NAME``: writes every output at once, with a digest of what went in.

A changed option or a changed input file changes all outputs, like the real stages; nothing is computed. The
stage that $FAILING_STAGE names fails at its end.
"""

import hashlib
import itertools
import os
import sys
from pathlib import Path

REAL = ("manifest", "split")
OUTPUTS = (
    "--output",
    "--status",
    "--history",
    "--card",
    "--features",
    "--csv",
    "--tables",
    "--counts",
    "--agreement",
)
FOLDERS = ("reenact", "external", "figures", "sheet")


def main() -> None:
    """Behave like the interpreter that the workflow calls."""
    stage, arguments = sys.argv[2].removeprefix("remime.stages."), sys.argv[3:]
    if stage in REAL:
        os.execv(os.environ["REAL_PYTHON"], [os.environ["REAL_PYTHON"], *sys.argv[1:]])
    outputs = {f: Path(v) for f, v in itertools.pairwise(arguments) if f in OUTPUTS}
    digest = hashlib.sha256(repr((stage, arguments)).encode())
    for path in (Path(value) for value in arguments if not value.startswith("{")):
        if path.is_file() and path not in outputs.values():
            digest.update(path.read_bytes())
    if stage == "weights":
        name = arguments[arguments.index("--name") + 1]
        outputs = {suffix: outputs["--output"] / f"{name}{suffix}" for suffix in (".safetensors", ".json")}
    failing = stage == os.environ.get("FAILING_STAGE")
    for flag, path in outputs.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if flag == "--output" and stage in FOLDERS:
            path.mkdir(exist_ok=True)
            path = path / "file.svg"
        path.write_text(digest.hexdigest())
    if failing:
        sys.exit(2)


main()
