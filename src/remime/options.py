"""The configuration: checked against its schema and against itself, with every problem reported at once.

``python -m remime.options`` prints the configuration with all defaults, ``--docs`` the reference of all keys.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from remime.catalogue import EMBEDDED, Network, is_name, model_meta, networks, read_rows, same_generator
from remime.errors import ConfigError, InputError, RemimeError
from remime.layout import ANSWERED, APART, OWN_FOLDERS, REFERENCES, RESULTS, WEIGHTS, Layout, taken_apart
from remime.schema import VARIANTS, compose, fill, find_problems, listed, load_schema, merge, suggest

# Which classes of terms (column ``terms`` of weights.tsv) each value of ``licence`` accepts.
LICENCES: Mapping[str, tuple[str, ...]] = {
    "any": ("permissive", "research", "noncommercial", "unknown"),
    "research": ("permissive", "research", "noncommercial"),
    "permissive": ("permissive",),
}
_REMOVABLE = (*VARIANTS, "protocols", "external")


def default_weights_table() -> Path:
    """``workflow/weights.tsv`` of this checkout, else of the working directory."""
    relative = Path("workflow/weights.tsv")
    own = Path(__file__).resolve().parents[2] / relative
    return own if own.is_file() else relative


def without_removed(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without the entries that were set to null; that is how an own file takes them out."""
    result = dict(config)
    for section in _REMOVABLE:
        if isinstance(result.get(section), Mapping):
            result[section] = {k: v for k, v in result[section].items() if v is not None}
    return result


def validate(
    config: Mapping[str, Any],
    *,
    name: str = "config.yaml",
    base: str | Path = ".",
    schema: Mapping[str, Any] | None = None,
    table: str | Path | None = None,
) -> dict[str, Any]:
    """Check a configuration and return it with all defaults filled in.

    Args:
        config: as it was read from YAML.
        name: what messages call it.
        base: the folder that its relative paths start from.
        schema: the loaded schema; the project's by default.
        table: ``weights.tsv``; the project's by default.

    Raises:
        ConfigError: with every problem at once: key, value, what is allowed, the fix.
    """
    if not isinstance(config, Mapping):
        raise ConfigError(name, find_problems({"type": "object"}, config))
    schema = schema or load_schema()
    config = without_removed(config)
    composed = compose(schema, config)
    problems = find_problems(composed, config)
    if problems:
        # Names that refer to each other can only be followed where the structure is right.
        problems += _safe_references(config)
        raise ConfigError(name, problems)
    filled = fill(composed, config)
    known = networks(table or default_weights_table(), Path(base) / WEIGHTS)
    problems = [
        *_references(filled),
        *_modes(filled),
        *_models(filled),
        *_answers(filled),
        *_networks(filled, known),
        *_paths(filled, Path(base)),
    ]
    if not problems:
        problems += [*_licence(filled, known), *_generator(filled, known, Path(base))]
    if problems:
        raise ConfigError(name, problems)
    return filled


def layout(config: Mapping[str, Any], **options: Any) -> Layout:
    """Validate a configuration and make the view of it that the rules use."""
    checked = validate(config, **options)
    rows = read_rows(options.get("table") or default_weights_table())
    return Layout(checked, {name: row["sha256"] for name, row in rows.items() if not row["kind"]})


def _unknown(where: str, value: object, known: Sequence[str], what: str) -> list[str]:
    if value in known:
        return []
    return [f"{where}: {value!r} is not {what}; known: {listed(known)}{suggest(value, known)}"]


def _safe_references(config: Mapping[str, Any]) -> list[str]:
    """References of a configuration whose structure is wrong, as far as they can be followed."""
    try:
        return list(_references(config))
    except (AttributeError, KeyError, TypeError):
        return []


def _references(config: Mapping[str, Any]) -> Iterator[str]:
    """Names that refer to entries which are not there, and names that are taken twice."""
    datasets, inverters, models = (list(config[section]) for section in VARIANTS)
    for name in set(datasets) & set(OWN_FOLDERS):
        yield f"datasets.{name}: the folder results/{name} is not a dataset's; choose another name"
    for name in set(inverters) & set(models):
        yield f"models.{name}: is also the name of an inverter; both share results/models, so rename one"
    for section in ("inverters", "models"):
        for name, entry in config[section].items():
            for key in ("datasets", "same_motion"):
                for dataset in entry.get("train", {}).get(key, []):
                    yield from _unknown(f"{section}.{name}.train.{key}", dataset, datasets, "a dataset")
    external = list(config.get("external", {}))
    for name in set(external) & set(models):
        yield f"external.{name}: is also the name of a model; both share results/benchmarks, so rename one"
    for name, entry in config["models"].items():
        yield from _unknown(f"models.{name}.inverter", entry["inverter"], inverters, "an inverter")
    for name, entry in config["protocols"].items():
        where = f"protocols.{name}"
        yield from _unknown(f"{where}.inverter", entry["inverter"], inverters, "an inverter")
        for dataset in entry["datasets"]:
            yield from _unknown(f"{where}.datasets", dataset, datasets, "a dataset")
        for model in entry.get("models", []):
            yield from _unknown(
                f"{where}.models", model, [*models, *external], "a model or an external system"
            )


def _answers(config: Mapping[str, Any]) -> Iterator[str]:
    """Protocols of the kind ``truth`` whose pairs have no true answer."""
    for name, entry in config["protocols"].items():
        if entry["kind"] != "truth":
            continue
        where = f"protocols.{name}"
        for dataset in entry["datasets"]:
            source = config["datasets"].get(dataset, {}).get("source", ANSWERED)
            if source != ANSWERED:
                yield (
                    f"{where}.datasets: {dataset!r} is of the source {source!r}; the kind truth needs the "
                    f"source {ANSWERED}, because only its clips have true answers"
                )
        if entry["random_identities"]:
            yield (
                f"{where}.random_identities: is {entry['random_identities']}; invented identities cannot be "
                "rendered in a clip's motion, so set 0 in a protocol of the kind truth"
            )
    for name in set(REFERENCES) & {*config["models"], *config["external"]}:
        yield f"models.{name}: is the name of a reference of the protocols of the kind truth; choose another"


def _made(config: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The entries whose weights a run makes, by the file that it makes."""
    entries = {**config["inverters"], **config["models"]}
    return {str(RESULTS / "models" / name / "model.safetensors"): entry for name, entry in entries.items()}


def _starts(config: Mapping[str, Any], path: str | None) -> list[str]:
    """The files that the training which makes ``path`` starts from, directly or not."""
    made, found = _made(config), list[str]()
    while path in made and (path := made[path].get("init")) and path not in found:
        found.append(path)
    return found


def _models(config: Mapping[str, Any]) -> Iterator[str]:
    """Trainings that cannot be meant."""
    for section in ("inverters", "models"):
        for name, entry in config[section].items():
            where, train = f"{section}.{name}", entry.get("train")
            if train is None:
                continue
            # An inverter can learn from the generator's samples alone.
            if train["steps"] and not train["datasets"] and section == "models":
                yield f"{where}.train.datasets: is empty, but train.steps is {train['steps']}; name a dataset"
            if entry["init"] in _starts(config, entry["init"]):
                yield f"{where}.init: {entry['init']!r} starts from itself; name another file, or null"
            if not train["steps"] and not entry["init"]:
                yield f"{where}.init: is null and train.steps is 0, so there are no weights; set one of them"
            if train["steps"] and train["identity"] == config["score"]["identity"]:
                yield (
                    f"{where}.train.identity: {train['identity']!r} is also score.identity; a model is never "
                    "scored by the network that it was trained against, so change one of them"
                )
            yield from _same_motion(f"{where}.train", train, config["datasets"])
            if entry.get("optimise") and entry["optimise_identity"] == config["score"]["identity"]:
                yield (
                    f"{where}.optimise_identity: {entry['optimise_identity']!r} is also score.identity; a "
                    "target is never scored by the network that it was fitted with, so change one of them"
                )
            for key, usual in {"strength": 1, **APART, "correction": 0}.items():
                if entry.get("preset") == "paper" and entry.get(key, usual) != usual:
                    yield (
                        f"{where}.{key}: {entry[key]:g} has no meaning for the preset paper, whose M does "
                        f"not tell motion from rest; leave it at {usual}, or set `preset: small`"
                    )
            for key in ("width", "components"):
                if entry.get("preset") != "paper" or not entry.get(key):
                    continue
                yield (
                    f"{where}.{key}: {entry[key]} has no meaning for the preset paper, whose network is "
                    "the published one; leave it at 0, or set `preset: small`"
                )
            if entry.get("preset") == "paper" and train.get("cross_batch"):
                yield (
                    f"{where}.train.cross_batch: {train['cross_batch']} has no meaning for the preset paper, "
                    "whose E_m measures no expressions; leave it at 0, or set `preset: small`"
                )
            if entry.get("variant") == "cos" and not train["losses"]["cos"]:
                yield f"{where}.train.losses.cos: is 0; the variant cos needs a weight above 0"


def _same_motion(where: str, train: Mapping[str, Any], datasets: Mapping[str, Any]) -> Iterator[str]:
    """A loss of the same motion without data for it, or with unfit data."""
    wanted, given = train["losses"].get("same_motion", 0), train.get("same_motion", [])
    if train["steps"] and wanted and not given:
        yield (
            f"{where}: losses.same_motion is {wanted}, but same_motion names no dataset; name one, or leave "
            "the loss at 0"
        )
    for dataset in given:
        if dataset in datasets and not datasets[dataset].get("shared_motions"):
            yield (
                f"{where}.same_motion: {dataset!r} has no shared motions; name one with `source: heads` and "
                "`shared_motions: true`"
            )


def _networks(config: Mapping[str, Any], known: Mapping[str, Network]) -> Iterator[str]:
    """Networks that are neither in the table of weights nor imported, or that have another role."""

    def check(where: str, name: str, role: str) -> Iterator[str]:
        fitting = [key for key, network in known.items() if network.role == role]
        what = f"a network of the role {role}, of workflow/weights.tsv or imported"
        yield from _unknown(where, name, fitting, what)
        if name in fitting and not known[name].present:
            yield f"{where}: {name!r} has to be brought by hand: {known[name].how()}"

    yield from check("generator", config["generator"], "generator")
    branches = {"measure": config["measure"]}
    for dataset, entry in config["datasets"].items():
        branches[f"datasets.{dataset}.measure"] = entry.get("measure", {})
    for where, branch in branches.items():
        for role in {"pose", "identity", "mesh"} & set(branch):
            yield from check(f"{where}.{role}", branch[role], role)
    for role in ("pose", "identity"):
        yield from check(f"score.{role}", config["score"][role], role)
    for section, role in (("inverters", "inverter"), ("models", "method")):
        for name, entry in config[section].items():
            if "train" in entry:
                yield from check(f"{section}.{name}.train.identity", entry["train"]["identity"], "identity")
            if entry.get("optimise"):
                yield from check(
                    f"{section}.{name}.optimise_identity", entry["optimise_identity"], "identity"
                )
            if is_name(entry.get("init")):
                yield from check(f"{section}.{name}.init", entry["init"], role)
                yield from _imported(f"{section}.{name}", entry, known.get(entry["init"]))


def _imported(where: str, entry: Mapping[str, Any], network: Network | None) -> Iterator[str]:
    """An imported checkpoint that is not one of the entry's method, or of its size."""
    if network is None:
        return
    if network.kind != entry["method"]:
        yield f"{where}.init: {network.name!r} is of the kind {network.kind}, the method is {entry['method']}"
    elif entry["preset"] != "paper":
        yield f"{where}.preset: {entry['preset']!r} does not fit the imported {network.name!r}; set paper"


def _generator(config: Mapping[str, Any], known: Mapping[str, Network], base: Path) -> Iterator[str]:
    """Datasets and start weights in use that belong to another generator."""
    flow, generator = Layout(config), config["generator"]
    for dataset in flow.datasets_used():
        if flow.source(dataset) == "puppets" and generator != EMBEDDED:
            yield (
                f"datasets.{dataset}: puppets need motion directions of their own generator, and there are "
                f"none for {generator!r}; take {dataset} out of train.datasets and of the protocols, or set "
                f"generator: {EMBEDDED}"
            )
    for name, entry in config["models"].items():
        for key, value in taken_apart(entry).items():
            if generator != EMBEDDED:
                yield (
                    f"models.{name}.{key}: is {value:g}, but what turns a head is known of {EMBEDDED} "
                    f"alone, not of {generator!r}; set {APART[key]}, or generator: {EMBEDDED}"
                )
    for name in flow.trainings():
        init = flow.trained(name)["init"]
        where = f"{'inverters' if name in config['inverters'] else 'models'}.{name}.init"
        if is_name(init):
            fits = not known[generator].fetched and same_generator(known[generator].meta, known[init].meta)
            # A mapping may bring a generator that was trained along.
            if not fits and name in config["inverters"]:
                yield f"{where}: {init!r} was trained for another generator than {generator!r}"
        elif init and init not in _made(config):
            own = model_meta(base / init).get("generator", generator)
            if own != generator:
                yield (
                    f"{where}: {init!r} was trained for the generator {own!r}, not {generator!r}; name other "
                    "weights or null, or remove what uses it (null in place of the entry)"
                )


def _modes(config: Mapping[str, Any]) -> Iterator[str]:
    """What a published dataset needs in its mode, and what has no meaning there."""
    for name, entry in config["datasets"].items():
        where, mode = f"datasets.{name}", entry.get("mode")
        if mode == "local" and entry["path"] is None:
            yield f"{where}.path: is missing; name the folder with the clips, or set mode: download"
        if mode == "download" and entry["path"] is not None:
            yield f"{where}.path: {entry['path']!r} is not used with mode: download; remove it, or mode"
        if mode == "download" and entry["metadata"] is None:
            yield f"{where}.metadata: is missing; it tells what to download (docs/datasets.md)"


def _paths(config: Mapping[str, Any], base: Path) -> Iterator[str]:
    """Files and folders that are named but not there."""
    # Another training of the same configuration may be the start of one.
    made = _made(config)
    for section in ("inverters", "models"):
        for name, entry in config[section].items():
            init = entry.get("init")
            if init and init not in made and not is_name(init) and not (base / init).is_file():
                yield (
                    f"{section}.{name}.init: {init!r} is not a file; make it with "
                    "`make train-models`, or set null and train.steps"
                )
    for name, entry in config["external"].items():
        if not (base / entry["path"]).is_dir():
            yield (
                f"external.{name}.path: {entry['path']!r} is not a folder; name the one with a video "
                "{pair}.mp4 for each pair, which `remime plan` lists"
            )
    for name, entry in config["datasets"].items():
        if entry.get("path") and not (base / entry["path"]).is_dir():
            yield f"datasets.{name}.path: {entry['path']!r} is not a folder; name one with videos or images"
        if entry.get("table") and not (base / entry["table"]).is_file():
            kind = "TSV" if entry["source"] == "samples" else "CSV"
            yield f"datasets.{name}.table: {entry['table']!r} is not a file; name a {kind} file, or set null"
        if entry.get("metadata") and not (base / entry["metadata"]).exists():
            yield (
                f"datasets.{name}.metadata: {entry['metadata']!r} is not there; name the metadata of "
                f"{entry['source']} (docs/datasets.md), or set null to take every file"
            )
        cookies = entry.get("download", {}).get("cookies")
        if cookies and not (base / cookies).is_file():
            yield f"datasets.{name}.download.cookies: {cookies!r} is not a file; name one, or set null"


def _licence(config: Mapping[str, Any], known: Mapping[str, Network]) -> Iterator[str]:
    """Networks in use whose terms do not fit ``licence``."""
    accepted = LICENCES[config["licence"]]
    for name in Layout(config).networks_used():
        network = known.get(name)
        if network is not None and network.terms not in accepted:
            yield (
                f"licence: {config['licence']!r} does not accept the {network.role} network {name!r}, whose "
                f"terms are {network.terms} ({network.weights_terms}); choose another, or licence: any"
            )


def main(argv: Sequence[str] | None = None) -> int:
    """Command line: print the complete configuration, or the reference of all keys."""
    parser = argparse.ArgumentParser(prog="python -m remime.options", description="Check a configuration.")
    parser.add_argument("config", nargs="*", type=Path, help="files, each laid over those before it")
    parser.add_argument("--docs", action="store_true", help="print docs/configuration.md")
    args = parser.parse_args(argv)
    if args.docs:
        from remime.reference import documentation

        print(documentation(load_schema()), end="")
        return 0
    files = args.config or [Path("config.yaml")]
    try:
        print(json.dumps(validate(read_files(files), name=listed(files)), indent=2))
    except RemimeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def read_files(files: Sequence[Path]) -> Any:
    """A configuration from YAML files, each laid over those before it; not checked.

    Raises:
        InputError: one cannot be read.
    """
    config: Any = {}
    for path in files:
        config = merge(config, _read_yaml(path))
    return config


def _read_yaml(path: Path) -> Any:
    # Not at the top: only this command needs it, and it comes with Snakemake.
    import yaml

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(path, f"cannot be read ({error})", "a YAML file is needed") from None


if __name__ == "__main__":
    sys.exit(main())
