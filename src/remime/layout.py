"""Which file lies where, and what each job of the workflow needs: its options, its inputs, its networks.

The Snakefile asks this module instead of computing anything itself. Standard library only, because it is
imported whenever a Snakefile is parsed, that is also once for every job on a cluster.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remime.catalogue import EMBEDDED, is_name
from remime.shards import batch_of, shard_names

RESULTS = Path("results")
OWN_FOLDERS = ("benchmarks", "logs", "models", "report", "speed", "state")
"""Folders of the results beside those of the datasets."""
WEIGHTS = Path("resources/weights")

ANSWERED = "heads"
"""The source whose clips have true answers."""
REFERENCES = ("reference-answer", "reference-crop", "reference-driving", "reference-target")
"""Scored beside the models of a protocol ``truth``: the answer, the same cropped as its own face would be,
the driving frames, the target's frame."""

# Sources whose clips are rendered; those that a generator renders have their true latents beside them.
_GENERATED = frozenset({"puppets"})
_RENDERED = _GENERATED | {ANSWERED}
# Keys of a dataset's branch `download` on which no byte depends: changing them recomputes nothing.
_TRANSPORT = ("url", "cookies", "rate", "retries", "pause", "timeout", "at_once")
# Keys of a dataset that belong to its stages or to the workflow, not to its source.
STAGE_KEYS = ("align", "measure", "select", "invert", "index")
_SAMPLES = "workflow/samples.tsv"
_LANDMARKS = "dlib-landmarks-68"
# The embedded generator decodes faster with its heads; puppets move along the directions of its latent space.
_PREVIEW = "models/mobile-preview.safetensors"
_DIRECTIONS = "models/puppet-directions.safetensors"
# Keys of a training that are arguments of their own.
_DATA = ("init", "datasets", "same_motion")
# Keys of a model that tell how it is used; its training does not depend on them.
_USE = (
    "optimise",
    "optimise_identity",
    "optimise_truncation",
    "strength",
    "expression_strength",
    "relative_expression",
)
APART = {"expression_strength": 1, "relative_expression": 0}
"""Keys that tell turns of the head from expressions, and the values at which nothing is told."""


def taken_apart(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Of :data:`APART` what a model's entry asks for."""
    return {key: entry[key] for key, usual in APART.items() if entry.get(key, usual) != usual}


def follows_directions(options: Mapping[str, Any], starts: bool) -> bool:
    """Whether a training reads the directions of the embedded generator.

    Args:
        options: flat, of stage ``train``.
        starts: whether it has a model to start from.
    """
    if options.get("method") != "mapping" or options.get("generator", EMBEDDED) != EMBEDDED:
        return False
    begins = options.get("preset", "small") == "small" and not starts
    return begins or bool(options.get("latent_batch") and options.get("truth", True))


# Defaults of keys that earlier versions had not.
_LATER: dict[str, dict[str, Any]] = {
    "inverter": {"width": 0, "decode_resolution": 0, "pool_mixing": 0.3},
    "method": {"components": 0, "correction": 0, "correction_batch": 0, "cross_batch": 0, "varied": 0},
}
# What heads are built of.
_KIT = ("head-anatomy", "head-parts")
# Trunks of the `small` presets: AlexNet (with LPIPS) for inverters, the mesh for P1's motion encoder.
_MESH = ("face-mesh", "blendshapes")
# Keys of ``align`` that say how a face is followed and cropped; the others say which clips are usable.
_ALIGNMENT = (
    "detect_size",
    "detect_every",
    "max_gap",
    "min_face",
    "smooth_centre",
    "smooth_axes",
    "scene_threshold",
)


@dataclass(frozen=True)
class Dataset:
    """Where a dataset's files lie.

    Args:
        folder: ``results/{dataset}``.
        shards: how many shards it has.
    """

    folder: Path
    shards: int

    @property
    def name(self) -> str:
        """The dataset's name in the configuration."""
        return self.folder.name

    @property
    def shard_names(self) -> list[str]:
        """The names of all of its shards, in order."""
        return shard_names(self.shards)

    @property
    def manifest(self) -> Path:
        """The table of all clips."""
        return self.folder / "manifest.parquet"

    def clips(self, shard: str) -> Path:
        """The list of a shard's clips."""
        return self.folder / "shards" / shard / "clips.tsv"

    def tar(self, shard: str) -> Path:
        """What ``collect`` rendered or downloaded."""
        return self.folder / "clips" / f"{shard}.tar"

    def aligned(self, shard: str) -> Path:
        """A shard's aligned frames."""
        return self.folder / "aligned" / f"{shard}.h5"

    def status(self, shard: str) -> Path:
        """What became of each of a shard's clips in ``align``."""
        return self.folder / "aligned" / f"{shard}.status.parquet"

    def measured(self, shard: str) -> Path:
        """The measurements of a shard's frames."""
        return self.folder / "measured" / f"{shard}.parquet"

    def selected(self, shard: str) -> Path:
        """Which of a shard's frames are used, and why the others are not."""
        return self.folder / "selected" / f"{shard}.parquet"

    def latents(self, inverter: str, shard: str) -> Path:
        """A shard's latents by an inverter."""
        return self.folder / "latents" / inverter / f"{shard}.h5"

    def index(self, inverter: str) -> Path:
        """The table of all latents of an inverter."""
        return self.folder / "latents" / f"{inverter}.parquet"

    def argument(self) -> str:
        """How a command line names it; stages parse it back."""
        return f"{self.folder}={self.shards}"


def to_json(options: Mapping[str, Any]) -> str:
    """Options as one argument of a command line; equal options give equal text."""
    return json.dumps(options, sort_keys=True, separators=(", ", ": "))


def tree_files(folder: str | Path) -> Iterator[str]:
    """The paths of all files below a folder, links followed, unreadable sub-folders left out; in no order."""
    for path, _ in _walk(os.fspath(folder), os.path.realpath(folder), ()):
        yield path


def tree_digest(folder: str | Path) -> str:
    """A digest of the names, sizes and modification times of all files of a tree, or of one file.

    It is how the workflow notices that somebody added, changed or removed a clip. A missing folder has the
    digest of an empty one; saying what is wrong with it is the source's business.
    """
    digest = hashlib.blake2b(digest_size=16)
    # One string a file: a million pairs would keep the garbage collector busy, and take more memory.
    for line in sorted(f"{path}\0{file_stamp(stat)}\0" for path, stat in _files(os.fspath(folder))):
        digest.update(os.fsencode(line))
    return digest.hexdigest()


def file_stamp(stat: os.stat_result) -> str:
    """Changes when a file is replaced or written to: its size and modification time."""
    return f"{stat.st_size}-{stat.st_mtime_ns}"


def rendered(folder: str | Path, protocol: str) -> dict[str, Path]:
    """The videos of another system by pair: ``{folder}/{protocol}/{pair}.mp4``, else ``{folder}/{pair}.mp4``.

    A pair of two protocols can have a name in common, for which the protocol's own folder is there.
    """
    found: dict[str, Path] = {}
    for place in (Path(folder), Path(folder) / protocol):
        with suppress(OSError):
            found |= {
                entry.name.removesuffix(".mp4"): Path(entry) for entry in os.scandir(place) if _is_mp4(entry)
            }
    return found


def _is_mp4(entry: os.DirEntry[str]) -> bool:
    return entry.name.endswith(".mp4") and not entry.name.startswith(".") and entry.is_file()


def _files(path: str) -> Iterator[tuple[str, os.stat_result]]:
    if Path(path).is_file():
        yield path, Path(path).stat()
    else:
        yield from _walk(path, os.path.realpath(path), ())


def _walk(folder: str, real: str, above: tuple[str, ...]) -> Iterator[tuple[str, os.stat_result]]:
    """The files below a folder whose path without links is ``real``, as are those of the folders above it."""
    # A link to a folder above would never end.
    if real in above:
        return
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        try:
            if entry.is_dir():
                # Asking the system for every folder's real path would take longer than all else.
                own = os.path.realpath(entry.path) if entry.is_symlink() else f"{real}/{entry.name}"
                yield from _walk(entry.path, own, (*above, real))
            elif entry.is_file():
                yield entry.path, entry.stat()
        except OSError:
            continue


def _paths(paths: Iterable[Path]) -> list[str]:
    return [str(path) for path in paths]


class Layout:
    """A validated configuration, seen from the rules.

    Args:
        config: what ``remime.options.validate`` returned.
        pins: the sha256 of each pretrained file that the workflow fetches, by the name of its network.
    """

    def __init__(self, config: Mapping[str, Any], pins: Mapping[str, str] | None = None) -> None:
        self.config = config
        self.pins = dict(pins or {})
        self._listings: dict[tuple[str, str], dict[str, str]] = {}

    # Datasets

    def dataset(self, name: str) -> Dataset:
        """The files of a dataset."""
        return Dataset(RESULTS / name, self.config["datasets"][name]["shards"])

    def source(self, dataset: str) -> str:
        """The name of a dataset's source."""
        return self.config["datasets"][dataset]["source"]

    def source_options(self, dataset: str) -> dict[str, Any]:
        """What a dataset's source is told."""
        entry = self.config["datasets"][dataset]
        own = {k: v for k, v in entry.items() if k not in ("source", "shards", "download", *STAGE_KEYS)}
        if self.source(dataset) == "samples":
            own.pop("table", None)  # it is an argument
        if self.is_generated(dataset):
            own["generator"] = self.config["generator"]
        if self.is_downloaded(dataset):
            del own["path"]
            own["download"] = {k: v for k, v in entry["download"].items() if k not in _TRANSPORT}
        return self._seeded(own)

    def is_rendered(self, dataset: str) -> bool:
        """Whether a dataset's clips are rendered."""
        return self.source(dataset) in _RENDERED

    def is_generated(self, dataset: str) -> bool:
        """Whether a dataset's clips are rendered by the generator, from latents that are stored with them."""
        return self.source(dataset) in _GENERATED

    def is_downloaded(self, dataset: str) -> bool:
        """Whether a dataset's clips are downloaded."""
        return self.config["datasets"][dataset].get("mode") == "download"

    def collect_arguments(self, dataset: str) -> list[str]:
        """The arguments of ``collect`` on which its outputs do not depend: how downloads are done."""
        if not self.is_downloaded(dataset):
            return []
        entry = self.config["datasets"][dataset]["download"]
        return ["--transport", to_json({key: entry[key] for key in _TRANSPORT})]

    def listing(self, dataset: str) -> str:
        """Changes when the files that a dataset is read from do; empty for sources of fixed content."""
        entry = self.config["datasets"][dataset]
        return " ".join(tree_digest(entry[key]) for key in ("path", "metadata") if entry.get(key))

    def source_tables(self, dataset: str) -> list[str]:
        """The tables that a dataset's source reads."""
        entry = self.config["datasets"][dataset]
        table = entry.get("table") or (_SAMPLES if entry["source"] == "samples" else None)
        return [table] if table else []

    def sample_tables(self) -> list[str]:
        """The tables of packages' files that some dataset is of."""
        samples = [name for name in self.datasets_used() if self.source(name) == "samples"]
        return sorted({table for name in samples for table in self.source_tables(name)})

    def manifest_arguments(self, dataset: str) -> list[str]:
        """The arguments of ``manifest`` that only some sources have."""
        return ["--table", *self.source_tables(dataset)] if self.source(dataset) == "samples" else []

    def collected(self, dataset: str, shard: str) -> dict[str, str]:
        """The inputs of ``align`` that ``collect`` makes; none for files that are read in place."""
        if not (self.is_rendered(dataset) or self.is_downloaded(dataset)):
            return {}
        tar = self.dataset(dataset).tar(shard)
        return {"tar": str(tar), "collected": str(tar.with_suffix(".status.tsv"))}

    def collected_arguments(self, dataset: str, shard: str) -> list[str]:
        """The arguments of ``align`` for :meth:`collected`."""
        return [text for name, path in self.collected(dataset, shard).items() for text in (f"--{name}", path)]

    def options(self, stage: str, dataset: str) -> dict[str, Any]:
        """The branch of a stage with the dataset's overrides."""
        options = {**self.config[stage], **self.config["datasets"][dataset].get(stage, {})}
        if stage == "invert":
            options["generator"] = self.config["generator"]
        return options

    def files(self, dataset: str, kind: str, *arguments: str) -> list[str]:
        """The files of one kind, of all shards of a dataset: ``aligned``, ``selected``, ``latents`` …"""
        files = self.dataset(dataset)
        return _paths(getattr(files, kind)(*arguments, shard) for shard in files.shard_names)

    def datasets_used(self) -> list[str]:
        """The datasets that some protocol or some training needs, in the order of the configuration."""
        used = {d for p in self.config["protocols"].values() for d in p["datasets"]}
        for name in self.trainings():
            used |= {*self._training_datasets(name), *self._same_motion(name)}
        return [name for name in self.config["datasets"] if name in used]

    # Inverters and models

    def trained(self, name: str) -> dict[str, Any]:
        """The entry of an inverter or of a model; they share one name space."""
        return self.config["inverters"].get(name) or self.config["models"][name]

    def models_used(self) -> set[str]:
        """Our models that take part in some protocol."""
        return {model for protocol in self.config["protocols"] for model in self.models(protocol)}

    def inverters_used(self) -> set[str]:
        """The inverters that some protocol or some model needs."""
        own = {p["inverter"] for p in self.config["protocols"].values()}
        return own | {self.config["models"][model]["inverter"] for model in self.models_used()}

    def model_file(self, name: str) -> str:
        """The weights of an inverter or of a model."""
        return str(RESULTS / "models" / name / "model.safetensors")

    def start_file(self, name: str) -> str | None:
        """The weights that an inverter or a model starts from: a file, or an imported checkpoint's."""
        init = self.trained(name).get("init")
        return str(WEIGHTS / f"{init}.safetensors") if is_name(init) else init

    def trainings(self) -> list[str]:
        """All inverters and models with weights that a run needs, also those that others start from."""
        entries = {**self.config["inverters"], **self.config["models"]}
        made = {self.model_file(name): name for name in entries}
        todo, used = [*self.inverters_used(), *self.models_used()], set[str]()
        while todo:
            name = todo.pop()
            if name not in used and self.has_weights(name):
                used.add(name)
                todo += [made[init] for init in (entries[name]["init"],) if init in made]
                todo += [entries[name]["inverter"]] if "inverter" in entries[name] else []
        return [name for name in entries if name in used]

    def has_weights(self, model: str) -> bool:
        """Whether there is anything to train or load; linear methods have nothing."""
        return "train" in self.trained(model)

    def learns(self, name: str) -> bool:
        """Whether an inverter or a model is trained here; otherwise its weights are only copied."""
        return bool(self.trained(name).get("train", {"steps": 0})["steps"])

    def _training_datasets(self, name: str) -> list[str]:
        return self.trained(name)["train"]["datasets"] if self.learns(name) else []

    def train_options(self, name: str) -> dict[str, Any]:
        """What the stage ``train`` is told: the entry and its branch ``train`` in one, without paths."""
        entry = dict(self.trained(name))
        train = entry.pop("train")
        kind = "inverter" if name in self.config["inverters"] else "method"
        merged = {**entry, **train, "kind": kind, "generator": self.config["generator"]}
        # Keys of later versions are told only where they matter, so that older trainings are not repeated.
        usual = {"patience": 0, "keep": "best", **_LATER[kind]}
        told = {k: v for k, v in merged.items() if k not in usual or v != usual[k]}
        return self._seeded({k: v for k, v in told.items() if k not in (*_DATA, *_USE)})

    def train_inputs(self, name: str) -> dict[str, Any]:
        """The named inputs of a training: start weights, inverter, frames, latents, networks."""
        entry = self.trained(name)
        inputs: dict[str, Any] = {"weights": self.weights("train", name)}
        if start := self.start_file(name):
            inputs["init"] = start
        if "inverter" in entry:
            inputs["inverter"] = self.model_file(entry["inverter"])
        datasets = self._training_datasets(name)
        if "inverter" in entry:
            if truth := self._truth(name):
                inputs["truth"] = truth
            if same := self._same_motion(name):
                inputs["same_motion"] = [
                    path for kind in ("aligned", "selected") for d in same for path in self.files(d, kind)
                ]
            return inputs | {"index": self._indexes(datasets, entry["inverter"])}
        for kind in ("aligned", "selected") if datasets else ():
            inputs[kind] = [path for dataset in datasets for path in self.files(dataset, kind)]
        return inputs

    def _truth(self, name: str) -> list[str]:
        """Rendered clips with what is known of them, where a training learns from that."""
        train = self.trained(name)["train"]
        if not (train["latent_batch"] and train["truth"]):
            return []
        datasets = [d for d in self._training_datasets(name) if self.is_rendered(d)]
        return [str(self.dataset(d).tar(shard)) for d in datasets for shard in self.dataset(d).shard_names]

    def _same_motion(self, name: str) -> list[str]:
        """The datasets of the loss of that name."""
        return self.trained(name)["train"].get("same_motion", []) if self.learns(name) else []

    def train_arguments(self, name: str) -> list[str]:
        """The arguments of a training that depend on what it has: start weights, inverter, datasets."""
        entry, arguments = self.trained(name), []
        if start := self.start_file(name):
            arguments += ["--init", start]
        if "inverter" in entry:
            arguments += ["--inverter", self.model_file(entry["inverter"])]
        if datasets := self._training_datasets(name):
            arguments += ["--datasets", *self.arguments(datasets)]
        if same := self._same_motion(name):
            arguments += ["--same-motion", *self.arguments(same)]
        return arguments

    def _indexes(self, datasets: Iterable[str], inverter: str) -> list[str]:
        """The tables of latents, which are newer than all latents and frames.

        These need not be named as well: each of many jobs with a thousand shards makes planning slow.
        """
        return _paths(self.dataset(name).index(inverter) for name in datasets)

    # Protocols

    def protocol(self, name: str) -> dict[str, Any]:
        """The entry of a protocol."""
        return self.config["protocols"][name]

    def systems(self, protocol: str) -> list[str]:
        """All that take part in a protocol: our models and other people's systems."""
        return self.protocol(protocol)["models"] or [*self.config["models"], *self.config["external"]]

    def models(self, protocol: str) -> list[str]:
        """Our models that take part in a protocol."""
        return [name for name in self.systems(protocol) if name in self.config["models"]]

    def batches(self, protocol: str) -> list[str]:
        """The names of a protocol's batches."""
        return shard_names(self.protocol(protocol)["batches"])

    def plan_options(self, protocol: str) -> dict[str, Any]:
        """What the stage ``plan`` is told."""
        entry = self._seeded(self.protocol(protocol))
        kind = entry.pop("kind")
        return {k: v for k, v in entry.items() if k not in ("datasets", "models")} | {"protocol": kind}

    def reenact_inputs(self, protocol: str, model: str) -> dict[str, Any]:
        """The named inputs of ``reenact``."""
        inverter = self.trained(model)["inverter"]
        inputs: dict[str, Any] = {"index": self._indexes(self.protocol(protocol)["datasets"], inverter)}
        inputs["inverter"] = self.model_file(inverter)
        inputs["weights"] = self.weights("reenact", model)
        if self.has_weights(model):
            inputs["model"] = self.model_file(model)
        return inputs

    def reenact_arguments(self, model: str) -> list[str]:
        """The arguments that name a model's weights; none when the method has none."""
        return ["--model", self.model_file(model)] if self.has_weights(model) else []

    def reenact_options(self, model: str) -> dict[str, Any]:
        """What the stage ``reenact`` is told."""
        # Of its structure the model's file tells.
        left = ("train", "init", "components", "correction")
        entry = {k: v for k, v in self.trained(model).items() if k not in left}
        if not entry.get("optimise"):
            for key in ("optimise_identity", "optimise_truncation"):
                entry.pop(key, None)
        for key, usual in {"strength": 1, **APART}.items():
            if entry["method"] == "mapping" and entry[key] == usual:
                del entry[key]  # so that videos from before mappings had this key are not made again
        return {**self.config["reenact"], **entry, "model": model, "generator": self.config["generator"]}

    def has_answers(self, protocol: str) -> bool:
        """Whether the pairs of a protocol have true answers."""
        return self.protocol(protocol)["kind"] == "truth"

    def references(self, protocol: str) -> list[str]:
        """What is scored beside the models of a protocol."""
        return list(REFERENCES) if self.has_answers(protocol) else []

    def answers(self, protocol: str, batch: str) -> str:
        """The true answers of a batch."""
        return f"{self.benchmark(protocol)}/answers/{batch}.h5"

    def all_answers(self, protocol: str) -> list[str]:
        """The true answers of all batches of a protocol; none where there are none."""
        return [self.answers(protocol, b) for b in self.batches(protocol) if self.has_answers(protocol)]

    def score_inputs(self, protocol: str, system: str, batch: str) -> dict[str, Any]:
        """The named inputs of ``score``."""
        inputs: dict[str, Any] = {"weights": self.weights("score", protocol)}
        if system not in REFERENCES:
            inputs["videos"] = f"{self.benchmark(protocol)}/{system}/videos/{batch}"
        if self.has_answers(protocol):
            inputs["answers"] = self.answers(protocol, batch)
        return inputs

    def score_arguments(self, protocol: str, system: str, batch: str) -> list[str]:
        """The arguments of ``score`` for :meth:`score_inputs`."""
        inputs = self.score_inputs(protocol, system, batch)
        return [t for name in ("videos", "answers") if name in inputs for t in (f"--{name}", inputs[name])]

    def score_options(self, system: str) -> dict[str, Any]:
        """What the stage ``score`` is told."""
        inverter = self.trained(system)["inverter"] if system in self.config["models"] else ""
        return {**self.config["score"], "model": system, "inverter": inverter}

    def arguments(self, datasets: Iterable[str]) -> list[str]:
        """Datasets as a command line names them."""
        return [self.dataset(name).argument() for name in datasets]

    def benchmark(self, protocol: str) -> str:
        """The folder of a protocol's results."""
        return str(RESULTS / "benchmarks" / protocol)

    # Other people's systems

    def pattern(self, section: str) -> str:
        """A regular expression for the names of a section's entries."""
        return "|".join(map(re.escape, self.config[section])) or "(?!)"

    def external_options(self, system: str) -> dict[str, Any]:
        """What the stage ``external`` is told."""
        entry = self.config["external"][system]
        own = {"title": entry["title"], "align": entry["align"], "generator": self.config["generator"]}
        alignment = {key: self.config["align"][key] for key in _ALIGNMENT} if entry["align"] else {}
        size = self.config["reenact"]["resolution"]
        return {**own, "external": system, "resolution": size, "alignment": alignment}

    def external_listing(self, system: str, protocol: str, batch: str) -> str:
        """Changes when a video of a batch does, also when it comes or goes."""
        known = (system, protocol)
        if known not in self._listings:
            self._listings[known] = self._listing_of(system, protocol)
        return self._listings[known].get(batch, "")

    def _listing_of(self, system: str, protocol: str) -> dict[str, str]:
        """The digests of all batches of which there are videos; the folder is read once for all of them."""
        total = self.protocol(protocol)["batches"]
        videos = rendered(self.config["external"][system]["path"], protocol)
        digests: dict[str, Any] = {}
        for pair, path in sorted(videos.items()):
            with suppress(OSError):
                stamp = f"{path}\0{file_stamp(path.stat())}\0"
                digest = digests.setdefault(batch_of(pair, total), hashlib.blake2b(digest_size=16))
                digest.update(os.fsencode(stamp))
        return {batch: digest.hexdigest() for batch, digest in digests.items()}

    # Summary

    def videos(self, protocol: str) -> list[str]:
        """The folders of all videos of a protocol."""
        return self._of_batches(protocol, "videos", "")

    def scores(self) -> list[str]:
        """All tables of scores."""
        return [
            path
            for name in self.config["protocols"]
            for path in self._of_batches(name, "scores", ".parquet", self.references(name))
        ]

    def _of_batches(self, protocol: str, folder: str, suffix: str, others: Iterable[str] = ()) -> list[str]:
        root = Path(self.benchmark(protocol))
        return [
            str(root / model / folder / f"{batch}{suffix}")
            for model in (*self.systems(protocol), *others)
            for batch in self.batches(protocol)
        ]

    def histories(self) -> list[str]:
        """The training curves of :meth:`trainings`."""
        return [str(RESULTS / "models" / name / "history.parquet") for name in self.trainings()]

    def cards(self) -> list[str]:
        """The model cards that belong to :meth:`histories`."""
        return [str(Path(path).with_name("card.md")) for path in self.histories()]

    def summary_options(self) -> dict[str, Any]:
        """Models and protocols, as the stages that sum up are told."""
        usual = {"optimise": 0, "strength": 1, **APART}
        keys = ("method", "variant", "preset", "inverter", *usual)
        models = {
            name: {k: entry[k] for k in keys if entry.get(k) not in (None, usual.get(k))}
            for name, entry in self.config["models"].items()
        }
        models |= {
            name: {"external": entry["title"] or name} for name, entry in self.config["external"].items()
        }
        models |= {name: {"reference": True} for name in REFERENCES if self.answered()}
        protocols = {
            name: {
                "protocol": entry["kind"],
                "batches": entry["batches"],
                "models": [*self.systems(name), *self.references(name)],
            }
            for name, entry in self.config["protocols"].items()
        }
        return {"models": models, "protocols": protocols}

    def answered(self) -> list[str]:
        """The protocols whose pairs have true answers."""
        return [name for name in self.config["protocols"] if self.has_answers(name)]

    def agreement(self) -> list[str]:
        """The table of how well other metrics agree with true answers; none where there are none."""
        return [str(RESULTS / "report" / "agreement.parquet")] if self.answered() else []

    def sheet_options(self, protocol: str) -> dict[str, Any]:
        """What the stage ``sheet`` is told."""
        known = self.summary_options()
        models = {name: known["models"][name] for name in self.systems(protocol)}
        return {**self.config["sheet"], "models": models}

    # Networks

    def networks(self, stage: str, name: str = "") -> list[str]:
        """The names of the pretrained networks that a stage needs.

        Args:
            stage: a stage's name.
            name: the dataset (``collect``, ``measure``), the model (``train``, ``reenact``) or the protocol
                (``external``, ``score``).
        """
        generator, score = self.config["generator"], self.config["score"]
        match stage:
            case "collect" if self.is_generated(name):
                return [generator]
            case "collect":
                return list(_KIT) if self.is_rendered(name) else []
            case "align":
                return [_LANDMARKS]
            case "measure":
                measure = self.options("measure", name)
                return [measure["pose"], measure["identity"], measure["mesh"], "blendshapes"]
            case "invert":
                return [generator, "lpips-alex"]
            case "train" if self.learns(name):
                loss = self.trained(name)["train"]["identity"]
                return [generator, "lpips-alex", loss, *_MESH]
            case "train":
                return [generator, "lpips-alex"]
            case "reenact":
                entry = self.trained(name)
                loss = [entry["optimise_identity"]] if entry.get("optimise") else []
                return [generator, "lpips-alex", *_MESH, *loss]
            case "answer":
                return list(_KIT)
            case "external":
                # Without invented targets there is nothing to generate.
                invents = self.protocol(name)["kind"] == "cross" and self.protocol(name)["random_identities"]
                return [_LANDMARKS, *([generator] if invents else [])]
            case "score":
                mesh = list(_MESH) if name and self.has_answers(name) else []
                return [_LANDMARKS, score["pose"], score["identity"], f"lpips-{score['lpips']}", *mesh]
        raise ValueError(f"stage {stage!r} uses no networks")

    def weights(self, stage: str, name: str = "") -> list[str]:
        """The converted files of :meth:`networks`, and what this project ships beside them."""
        networks = list(dict.fromkeys(self.networks(stage, name)))
        shipped = [_PREVIEW] if EMBEDDED in networks else []
        moves = stage == "collect" and self.is_generated(name)
        apart = stage == "reenact" and bool(taken_apart(self.trained(name)))
        learns = (
            stage == "train"
            and self.learns(name)
            and follows_directions(self.train_options(name), bool(self.start_file(name)))
        )
        shipped += [_DIRECTIONS] if moves or apart or learns else []
        return _paths(WEIGHTS / f"{network}.safetensors" for network in networks) + shipped

    def networks_used(self) -> list[str]:
        """All pretrained networks of a run, each once."""
        found = [
            *self.networks("align"),
            *self.networks("invert"),
        ]
        for protocol in self.config["protocols"]:
            found += self.networks("score", protocol)
        for model in self.models_used():
            found += self.networks("reenact", model)
        for dataset in self.datasets_used():
            found += self.networks("measure", dataset)
            if self.is_rendered(dataset):
                found += self.networks("collect", dataset)
        for name in self.trainings():
            found += self.networks("train", name)
            found += [init for init in (self.trained(name)["init"],) if is_name(init)]
        return list(dict.fromkeys(found))

    def _seeded(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Options with the configuration's seed where they have none of their own."""
        own = dict(options)
        if own.get("seed", 0) is None:
            own["seed"] = self.config["seed"]
        return own
