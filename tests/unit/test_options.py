"""The configuration: defaults are filled in; all problems come at once, with key, value, allowed and fix."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from remime.errors import ConfigError
from remime.options import LICENCES, main, validate
from remime.reference import documentation
from remime.schema import compose, find_problems, load_schema, merge
from remime.weights import registry

ROOT = Path(__file__).resolve().parents[2]
CONFIG: dict[str, Any] = yaml.safe_load((ROOT / "config.yaml").read_text())


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A folder with all files that the default configuration starts from."""
    for section in ("inverters", "models"):
        for entry in CONFIG[section].values():
            if "init" in entry:
                path = tmp_path / entry["init"]
                path.parent.mkdir(exist_ok=True)
                path.touch()
    return tmp_path


def problems(base: Path, change: dict[str, Any]) -> list[str]:
    """What is wrong with the default configuration after a change."""
    with pytest.raises(ConfigError) as caught:
        validate(merge(CONFIG, change), base=base)
    return caught.value.problems


def test_the_schema_is_a_schema() -> None:
    schema = load_schema()
    Draft202012Validator.check_schema(schema)
    Draft202012Validator.check_schema(compose(schema, CONFIG))


def test_every_key_has_type_description_and_default() -> None:
    """Names of entries and what an entry cannot do without have no default."""
    needed = {"source", "method", "path", "inverter", "kind", "datasets", "inverters", "models", "protocols"}
    bare: list[str] = []

    def visit(node: Any, where: str) -> None:
        for name, part in node.get("properties", {}).items():
            if part.get("type") is None or not part.get("description"):
                bare.append(f"{where}.{name}: type or description")
            if "default" not in part and name not in needed:
                bare.append(f"{where}.{name}: default")
            visit(part, f"{where}.{name}")

    composed = compose(load_schema(), {})
    visit(composed, "")
    visit(composed["properties"]["protocols"]["additionalProperties"], "protocols")
    for section in ("datasets", "inverters", "models"):
        from remime.schema import variants

        for name, variant in variants(load_schema(), section).items():
            own = {k: v for k, v in variant["properties"].items() if k not in composed["properties"]}
            visit({"properties": own}, f"{section}({name})")
    assert bare == []


def test_the_reference_is_current() -> None:
    """`python -m remime.options --docs > docs/configuration.md` makes it."""
    assert (ROOT / "docs/configuration.md").read_text() == documentation(load_schema())


def test_the_default_configuration_is_valid_and_complete(base: Path) -> None:
    config = validate(CONFIG, base=base)
    assert config["align"]["size"] == 256
    assert config["align"]["max_gap"] == 5
    assert config["datasets"]["puppets"]["fps"] == 25
    assert config["protocols"]["self"]["split"] == "test"
    assert config["models"]["mapping"]["train"]["losses"]["cos"] == 0
    assert config["inverters"]["psp"]["train"]["steps"] == 0
    assert "train" not in config["models"]["linear-psp"]
    assert validate(config, base=base) == config


def test_overrides_of_a_dataset_stay_as_they_are(base: Path) -> None:
    new = {"source": "samples", "align": {"max_gap": 2}}
    config = validate(merge(CONFIG, {"datasets": {"new": new}}), base=base)
    assert config["datasets"]["new"]["align"] == {"max_gap": 2}
    assert "measure" not in config["datasets"]["new"]


def test_a_training_may_start_from_another_one(base: Path) -> None:
    first = {"method": "restyle-psp", "train": {"steps": 5}}
    change = {"inverters": {"first": first, "psp": {"init": "results/models/first/model.safetensors"}}}
    config = validate(merge(CONFIG, change), base=base)
    assert config["inverters"]["first"]["init"] is None


def test_null_removes_an_entry(base: Path) -> None:
    config = validate(merge(CONFIG, {"protocols": {"self": None}, "models": {"linear-e4e": None}}), base=base)
    assert list(config["protocols"]) == ["cross", "truth"]
    assert "linear-e4e" not in config["models"]


def test_whole_numbers_may_have_a_point(base: Path) -> None:
    size = validate(merge(CONFIG, {"align": {"size": 128.0}}), base=base)["align"]["size"]
    assert (size, type(size)) == (128, int)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"external": {"a": {}}}, "external.a.path: is missing"),
        ({"external": {"a": {"path": "nowhere"}}}, "external.a.path: 'nowhere' is not a folder"),
        ({"external": {"mapping": {"path": "models"}}}, "external.mapping: is also the name of a model"),
        ({"external": {"a": {"path": "models", "algin": True}}}, "did you mean 'align'?"),
        (
            {"external": {"lia": {"path": "models"}}, "protocols": {"cross": {"models": ["lai"]}}},
            "protocols.cross.models: 'lai' is not a model or an external system",
        ),
        ({"licence": "free"}, "licence: 'free' is not known; allowed: any, research, permissive"),
        ({"licence": "permisive"}, "did you mean 'permissive'?"),
        ({"seed": "1"}, "seed: '1' is text; allowed: a whole number; write it without quotes"),
        ({"seed": True}, "seed: True is true or false; allowed: a whole number"),
        ({"seed": -1}, "seed: -1 is out of range; allowed: at least 0"),
        ({"aling": {}}, "aling: unknown key; allowed: licence, seed"),
        ({"align": {"siez": 1}}, "align.siez: unknown key"),
        ({"align": {"siez": 1}}, "did you mean 'size'?"),
        ({"align": {"size": 8}}, "align.size: 8 is out of range; allowed: at least 16"),
        ({"align": [1]}, "align: [1] is a list; allowed: a mapping of keys"),
        ({"datasets": {"samples": {"shards": 0}}}, "datasets.samples.shards: 0 is out of range"),
        ({"datasets": {"samples": {"path": "x"}}}, "datasets.samples.path: unknown key"),
        ({"datasets": {"new": {"source": "foldre"}}}, "datasets.new.source: 'foldre' is not known"),
        ({"datasets": {"new": {}}}, "datasets.new.source: is missing; allowed: celebv_hq, folder, hdtf, hea"),
        (
            {"datasets": {"new": {"source": "folder"}}},
            "datasets.new.path: is missing; it is text: The folder.",
        ),
        ({"datasets": {"my clips": {"source": "samples"}}}, "datasets: 'my clips' is not allowed; Letters"),
        ({"datasets": {"samples": {"align": {"sise": 2}}}}, "datasets.samples.align.sise: unknown key"),
        ({"models": {"mapping": {"train": {"learning_rate": "1e-4"}}}}, "write 1.0e-04"),
        (
            {"models": {"mapping": {"train": {"losses": {"l3": 1}}}}},
            "models.mapping.train.losses.l3: unknown key",
        ),
        ({"models": {"mapping": {"variant": "best"}}}, "models.mapping.variant: 'best' is not known"),
        ({"models": {"linear-psp": {"train": {}}}}, "models.linear-psp.train: unknown key"),
        ({"models": {"mapping": {"inverter": "pps"}}}, "models.mapping.inverter: 'pps' is not an inverter"),
        ({"models": {"mapping": {"inverter": "pps"}}}, "known: psp, e4e; did you mean 'psp'?"),
        ({"protocols": {"cross": {"datasets": ["sample"]}}}, "'sample' is not a dataset"),
        ({"protocols": {"cross": {"datasets": []}}}, "protocols.cross.datasets: is empty"),
        ({"protocols": {"cross": {"models": ["maping"]}}}, "did you mean 'mapping'?"),
        ({"protocols": {"cross": {"models": ["a", "a"]}}}, "names something twice"),
        ({"models": {"mapping": {"train": {"datasets": []}}}}, "models.mapping.train.datasets: is empty"),
        ({"models": {"mapping": {"init": None, "train": {"steps": 0}}}}, "so there are no weights"),
        (
            {"models": {"mapping": {"init": "models/none"}}},
            "models.mapping.init: 'models/none' is not a file",
        ),
        ({"models": {"mapping": {"variant": "cos"}}}, "losses.cos: is 0"),
        ({"inverters": {"psp": {"init": "results/models/psp/model.safetensors"}}}, "from itself"),
        ({"models": {"psp": {"method": "linear", "inverter": "psp"}}}, "is also the name of an inverter"),
        ({"datasets": {"models": {"source": "samples"}}}, "the folder results/models is not a dataset's"),
        ({"score": {"identity": "dlib-resnet-id"}}, "is also score.identity"),
        (
            {"models": {"mapping": {"optimise": 5, "optimise_identity": "sface"}}},
            "models.mapping.optimise_identity: 'sface' is also score.identity",
        ),
        (
            {"models": {"mapping": {"optimise": 5, "optimise_identity": "hopenet-lite"}}},
            "models.mapping.optimise_identity: 'hopenet-lite' is not a network of the role identity",
        ),
        (
            {"models": {"mapping": {"preset": "paper", "strength": 0.9}}},
            "models.mapping.strength: 0.9 has no meaning for the preset paper",
        ),
        (
            {"models": {"mapping": {"relative_expression": 1.5}}},
            "models.mapping.relative_expression: 1.5 is out of range; allowed: at most 1",
        ),
        (
            {"models": {"mapping": {"preset": "paper", "relative_expression": 0.5}}},
            "models.mapping.relative_expression: 0.5 has no meaning for the preset paper",
        ),
        (
            {"models": {"mapping": {"preset": "paper", "expression_strength": 0.9}}},
            "models.mapping.expression_strength: 0.9 has no meaning for the preset paper",
        ),
        (
            {"inverters": {"psp": {"preset": "paper", "width": 128}}},
            "inverters.psp.width: 128 has no meaning for the preset paper",
        ),
        (
            {"models": {"mapping": {"preset": "paper", "components": 8}}},
            "models.mapping.components: 8 has no meaning for the preset paper",
        ),
        (
            {"models": {"mapping": {"preset": "paper", "correction": 8}}},
            "models.mapping.correction: 8 has no meaning for the preset paper",
        ),
        (
            {"models": {"mapping": {"preset": "paper", "train": {"cross_batch": 4}}}},
            "models.mapping.train.cross_batch: 4 has no meaning for the preset paper",
        ),
        (
            {"models": {"mapping": {"train": {"losses": {"same_motion": 1.0}}}}},
            "losses.same_motion is 1.0, but same_motion names no dataset",
        ),
        (
            {"models": {"mapping": {"train": {"same_motion": ["puppets"], "losses": {"same_motion": 1.0}}}}},
            "models.mapping.train.same_motion: 'puppets' has no shared motions",
        ),
        (
            {"models": {"mapping": {"train": {"same_motion": ["no"], "losses": {"same_motion": 1.0}}}}},
            "models.mapping.train.same_motion: 'no' is not",
        ),
        ({"generator": "stylegan"}, "generator: 'stylegan' is not a network of the role generator"),
        ({"measure": {"pose": "sface"}}, "measure.pose: 'sface' is not a network of the role pose"),
        ({"licence": "permissive"}, "does not accept the generator network 'mobile-ffhq'"),
        ({"licence": "research"}, "does not accept the pose network 'hopenet-lite'"),
        (
            {"datasets": {"new": {"source": "folder", "path": "no"}}},
            "datasets.new.path: 'no' is not a folder",
        ),
        ({"datasets": {"new": {"source": "voxceleb"}}}, "did you mean 'voxceleb"),
        (
            {"datasets": {"new": {"source": "hdtf"}}},
            "datasets.new.path: is missing; name the folder with the clips, or set mode: download",
        ),
        (
            {"datasets": {"new": {"source": "hdtf", "path": "models", "mode": "download"}}},
            "datasets.new.path: 'models' is not used with mode: download",
        ),
        (
            {"datasets": {"new": {"source": "hdtf", "mode": "download"}}},
            "datasets.new.metadata: is missing; it tells what to download",
        ),
        (
            {"datasets": {"new": {"source": "hdtf", "download": {"url": "https://example.org/"}}}},
            "datasets.new.download.url: 'https://example.org/' is not allowed; The address of a video",
        ),
        (
            {
                "datasets": {
                    "new": {"source": "hdtf", "mode": "download", "download": {"cookies": "none.txt"}}
                }
            },
            "datasets.new.download.cookies: 'none.txt' is not a file",
        ),
        (
            {"datasets": {"new": {"source": "voxceleb2", "path": "no"}}},
            "datasets.new.path: 'no' is not a folder",
        ),
        (
            {"datasets": {"new": {"source": "hdtf", "path": "models", "metadata": "no"}}},
            "datasets.new.metadata: 'no' is not there; name the metadata of hdtf",
        ),
        (
            {"datasets": {"new": {"source": "hdtf", "path": "models", "table": "x.csv"}}},
            "datasets.new.table: unknown key",
        ),
        (
            {"datasets": {"new": {"source": "samples", "table": "x.tsv"}}},
            "datasets.new.table: 'x.tsv' is not a file; name a TSV file",
        ),
        (
            {"protocols": {"self": {"kind": "truth"}}},
            "protocols.self.datasets: 'samples' is of the source 'samples'; the kind truth needs the source",
        ),
        (
            {
                "datasets": {"new": {"source": "heads"}},
                "protocols": {"cross": {"kind": "truth", "datasets": ["new"]}},
            },
            "protocols.cross.random_identities: is 1; invented identities cannot be rendered",
        ),
        (
            {
                "models": {"reference-answer": {"method": "linear", "inverter": "psp"}},
            },
            "models.reference-answer: is the name of a reference of the protocols of the kind truth",
        ),
        ({"datasets": None}, "datasets: None is null; allowed: a mapping of keys"),
        ({"datasets": {"samples": 3}}, "datasets.samples: 3 is a whole number; allowed: a mapping of keys"),
        ({"datasets": dict.fromkeys(CONFIG["datasets"])}, "datasets: is empty; name at least 1"),
    ],
)
def test_a_problem_is_named(base: Path, change: dict[str, Any], expected: str) -> None:
    assert expected in "\n".join(problems(base, change))


def test_all_problems_come_at_once(base: Path) -> None:
    found = problems(
        base,
        {
            "seed": "x",
            "aling": {},
            "protocols": {"cross": {"inverter": "none"}},
            "datasets": {"puppets": {"frames": 1, "size": 300}},
        },
    )
    keys = {problem.split(":")[0] for problem in found}
    assert keys == {
        "seed",
        "aling",
        "protocols.cross.inverter",
        "datasets.puppets.frames",
        "datasets.puppets.size",
    }


def test_each_problem_is_told_once(base: Path) -> None:
    config = copy.deepcopy(CONFIG)
    del config["inverters"], config["models"]
    with pytest.raises(ConfigError) as caught:
        validate(config, base=base)
    found = caught.value.problems
    assert len(found) == len(set(found)) == 2


def test_licences_agree_with_the_weights() -> None:
    assert dict(LICENCES) == dict(registry.LICENCES)


@pytest.mark.parametrize("value", [None, [], "text", 3, {"datasets": []}])
def test_no_configuration_at_all_is_a_clean_error(base: Path, value: Any) -> None:
    with pytest.raises(ConfigError):
        validate(value, base=base)


def test_the_command_line_prints_the_complete_configuration(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(base)
    own = tmp_path / "own.yaml"
    own.write_text("align: {size: 128}")
    assert main([str(ROOT / "config.yaml"), str(own)]) == 0
    assert json.loads(capsys.readouterr().out)["align"]["size"] == 128
    own.write_text("align: {size: big}")
    assert main([str(ROOT / "config.yaml"), str(own)]) == 2
    assert "align.size: 'big' is text" in capsys.readouterr().err


def test_exponents_without_a_point_are_explained() -> None:
    """YAML 1.1 reads 1e-4 as text; that is the commonest trap of all."""
    schema = {"type": "object", "properties": {"x": {"type": "number"}}}
    assert find_problems(schema, yaml.safe_load("x: 1e-4")) == [
        "x: '1e-4' is text; allowed: a number; write 1.0e-04"
    ]
    assert find_problems(schema, yaml.safe_load("x: 1.0e-04")) == []
