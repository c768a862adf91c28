"""Files, options, inputs and networks of jobs."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from remime.errors import ConfigError
from remime.faces.front import AlignOptions
from remime.layout import REFERENCES, Dataset, Layout, rendered, to_json, tree_digest, tree_files
from remime.options import layout as make_layout
from remime.options import validate
from remime.schema import merge
from remime.shards import batch_of
from remime.sources.heads import DEFAULTS

ROOT = Path(__file__).resolve().parents[2]
CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text())


def layout(**change: Any) -> Layout:
    """The default configuration without its rendered heads, after a change; init files come from nowhere."""
    without = {name: {"init": None} for name in ("psp", "e4e")}
    steps = {name: {"train": {"steps": 3, "datasets": ["puppets"]}} for name in ("psp", "e4e")}
    config = merge(CONFIG, {"inverters": merge(without, steps), "models": {"mapping": {"init": None}}})
    config = merge(config, {"datasets": {"heads": None}, "protocols": {"truth": None}})
    return Layout(validate(merge(config, change)), {"sface": "abc"})


def test_files_of_a_dataset() -> None:
    files = Dataset(Path("results/samples"), 2)
    assert files.name == "samples"
    assert str(files.latents("psp", files.shard_names[1])) == "results/samples/latents/psp/0001-of-0002.h5"
    assert files.argument() == "results/samples=2"


def test_overrides_reach_only_their_dataset() -> None:
    flow = layout(datasets={"puppets": {"align": {"max_gap": 1}}})
    assert flow.options("align", "puppets")["max_gap"] == 1
    assert flow.options("align", "samples")["max_gap"] == 5


def test_samples_of_another_table() -> None:
    flow = layout(datasets={"more": {"source": "samples", "table": "experiments/unseen.tsv"}})
    tables = [[*flow.source_tables(name)] for name in ("samples", "more", "puppets")]
    assert tables == [["workflow/samples.tsv"], ["experiments/unseen.tsv"], []]
    assert flow.manifest_arguments("more") == ["--table", "experiments/unseen.tsv"]
    # A dataset that was made before the table could be chosen is not stale.
    assert flow.source_options("more") == flow.source_options("samples")
    assert flow.sample_tables() == ["workflow/samples.tsv"]
    used = layout(
        datasets={"more": {"source": "samples", "table": "experiments/unseen.tsv"}},
        protocols={"self": {"datasets": ["more"]}},
    )
    assert used.sample_tables() == ["experiments/unseen.tsv", "workflow/samples.tsv"]


def test_a_source_is_told_its_own_keys_and_the_seed() -> None:
    flow = layout(seed=7)
    assert flow.source_options("samples") == {"kinds": ["video", "image"], "clips": []}
    told = flow.source_options("puppets")
    assert (told["generator"], told["frames"]) == ("mobile-ffhq", 48)
    assert not {"source", "shards", "align", "select"} & set(told)
    assert told["seed"] == flow.config["datasets"]["puppets"]["seed"]
    unsaid = layout(seed=7, datasets={"puppets": {"seed": None}})
    assert unsaid.source_options("puppets")["seed"] == 7


def test_a_published_dataset_on_this_disk_is_read_in_place(tmp_path: Path) -> None:
    clips, metadata = tmp_path / "clips", tmp_path / "info.json"
    clips.mkdir()
    metadata.touch()
    paths = {"path": str(clips), "metadata": str(metadata)}
    flow = layout(seed=7, datasets={"real": {"source": "celebv_hq", **paths}})
    assert flow.collected("real", "0000-of-0001") == {}
    assert (flow.source_tables("real"), flow.manifest_arguments("real")) == ([], [])
    told = flow.source_options("real")
    assert told | paths == told
    assert (told["seed"], told["mode"]) == (7, "local")
    assert "non-commercial" in told["terms"]
    assert set(told) == {"mode", "path", "metadata", "terms", "seed"}


def test_the_listing_of_a_published_dataset_has_files_and_metadata(tmp_path: Path) -> None:
    clips, metadata = tmp_path / "clips", tmp_path / "info.json"
    clips.mkdir()
    metadata.touch()
    entry = {"source": "celebv_hq", "path": str(clips), "metadata": str(metadata)}
    seen = [layout(datasets={"real": entry}).listing("real")]
    (clips / "a.mp4").write_bytes(b"a")
    seen.append(layout(datasets={"real": entry}).listing("real"))
    metadata.write_text("{}")
    seen.append(layout(datasets={"real": entry}).listing("real"))
    seen.append(layout(datasets={"real": entry | {"metadata": str(clips)}}).listing("real"))
    assert len(set(seen)) == 4
    assert layout(datasets={"real": entry | {"metadata": None}}).listing("real") == tree_digest(clips)


def downloaded(tmp_path: Path, **download: Any) -> Layout:
    """With a published dataset that is downloaded, on which the mapping is trained."""
    metadata = tmp_path / "info.json"
    metadata.touch()
    entry = {"source": "celebv_hq", "mode": "download", "metadata": str(metadata), "download": download}
    train = {"datasets": ["real", "puppets"], "latent_batch": 8}
    return layout(datasets={"real": entry}, models={"mapping": {"train": train}})


def test_a_downloaded_dataset_is_collected_without_networks_and_has_no_truth(tmp_path: Path) -> None:
    flow = downloaded(tmp_path, height=720)
    assert flow.collected("real", "0000-of-0001")["tar"] == "results/real/clips/0000-of-0001.tar"
    assert flow.weights("collect", "real") == []
    assert "resources/weights/mobile-ffhq.safetensors" in flow.weights("collect", "puppets")
    assert all("puppets" in path for path in flow.train_inputs("mapping")["truth"])
    told = flow.source_options("real")
    assert set(told) == {"mode", "metadata", "terms", "seed", "download"}
    assert told["download"] == {"height": 720, "min_height": 240, "max_seconds": 0}
    assert (flow.is_downloaded("puppets"), flow.is_downloaded("real")) == (False, True)


def test_heads_are_collected_from_their_kit_and_tell_how_lids_close() -> None:
    train = {"datasets": ["heads", "puppets"], "latent_batch": 8}
    flow = layout(datasets={"heads": {"source": "heads"}}, models={"mapping": {"train": train}})
    assert flow.collected("heads", "0000-of-0001")["tar"] == "results/heads/clips/0000-of-0001.tar"
    kit = [f"resources/weights/{name}.safetensors" for name in ("head-anatomy", "head-parts")]
    assert flow.weights("collect", "heads") == kit
    assert {"head-anatomy", "head-parts"} <= set(flow.networks_used())
    assert "head-parts" not in layout().networks_used()
    truth = flow.train_inputs("mapping")["truth"]
    assert {path.split("/")[1] for path in truth} == {"heads", "puppets"}
    told = flow.source_options("heads")
    assert set(told) == set(DEFAULTS)
    assert {**told, "seed": None} == {**DEFAULTS, "seed": None}


def test_how_downloads_are_done_is_no_option_of_the_source(tmp_path: Path) -> None:
    change = {"url": "http://a/{video}", "rate": 2, "retries": 9, "pause": 1, "timeout": 5, "at_once": 7}
    plain, changed = downloaded(tmp_path), downloaded(tmp_path, **change)
    assert plain.source_options("real") == changed.source_options("real")
    flag, text = changed.collect_arguments("real")
    assert (flag, json.loads(text)) == ("--transport", {**change, "cookies": None})
    assert changed.collect_arguments("puppets") == []
    # What is no transport is an option: together they are all keys.
    keys = set(changed.config["datasets"]["real"]["download"])
    assert keys == set(json.loads(text)) | set(plain.source_options("real")["download"])


def test_only_collected_sources_have_a_tar() -> None:
    flow = layout()
    assert flow.collected("samples", "0000-of-0001") == {}
    assert flow.collected_arguments("puppets", "0000-of-0002") == [
        "--tar",
        "results/puppets/clips/0000-of-0002.tar",
        "--collected",
        "results/puppets/clips/0000-of-0002.status.tsv",
    ]


def test_an_inverter_needs_frames_a_method_needs_latents() -> None:
    flow = layout()
    inverter, method = flow.train_inputs("psp"), flow.train_inputs("mapping")
    assert inverter["selected"] == [f"results/puppets/selected/000{i}-of-0002.parquet" for i in (0, 1)]
    assert "latents" not in inverter
    assert method["index"] == ["results/puppets/latents/psp.parquet", "results/samples/latents/psp.parquet"]
    assert "latents" not in method, "a thousand shards for each of many jobs make planning slow"
    assert method["inverter"] == "results/models/psp/model.safetensors"
    assert flow.train_arguments("mapping")[-2:] == ["results/puppets=2", "results/samples=1"]
    options = flow.train_options("mapping")
    assert (options["kind"], options["steps"], options["seed"]) == ("method", 60, 1)
    assert not {"init", "datasets", "train"} & set(options)


def test_patience_is_an_option_only_where_it_is_set() -> None:
    """Otherwise trainings from before the key existed would be repeated."""
    assert "patience" not in layout().train_options("mapping")
    assert layout(models={"mapping": {"train": {"patience": 3}}}).train_options("mapping")["patience"] == 3


@pytest.mark.parametrize(
    ("train", "truth"),
    [
        ({"latent_batch": 8}, [f"results/puppets/clips/000{i}-of-0002.tar" for i in (0, 1)]),
        ({}, None),
        ({"latent_batch": 8, "truth": []}, None),
        ({"latent_batch": 8, "datasets": ["samples"]}, None),
    ],
)
def test_true_latents_lie_beside_rendered_clips(train: dict[str, object], truth: object) -> None:
    """Only a training that learns from them needs them."""
    flow = layout(models={"mapping": {"train": train}})
    assert flow.train_inputs("mapping").get("truth") == truth


def test_a_mapping_learns_by_the_directions_of_its_generator() -> None:
    trained = {"init": "models/mapping-small.safetensors", "train": {"steps": 0}}
    learns, copied = layout(), layout(models={"mapping": trained})
    told = [
        "models/puppet-directions.safetensors" in flow.train_inputs("mapping")["weights"]
        for flow in (learns, copied)
    ]
    assert told == [True, False]
    assert "models/puppet-directions.safetensors" not in learns.train_inputs("psp")["weights"]


def test_weights_that_are_not_trained_further_need_no_data(tmp_path: Path) -> None:
    start = tmp_path / "start.safetensors"
    start.touch()
    flow = layout(inverters={"psp": {"init": str(start), "train": {"steps": 0, "datasets": ["puppets"]}}})
    assert set(flow.train_inputs("psp")) == {"init", "weights"}
    assert "aligned" in layout().train_inputs("psp")
    assert [model.learns("psp") for model in (flow, layout())] == [False, True]
    assert not layout().learns("linear-psp")
    assert flow.train_arguments("psp") == ["--init", str(start)]


def test_what_a_training_starts_from_is_trained_too() -> None:
    first = {"method": "restyle-psp", "init": None, "train": {"steps": 5, "datasets": ["extra"]}}
    flow = layout(
        datasets={"extra": {"source": "puppets"}},
        inverters={"first": first, "psp": {"init": "results/models/first/model.safetensors"}},
    )
    assert flow.trainings() == ["psp", "e4e", "first", "mapping"]
    assert "extra" in flow.datasets_used()
    assert flow.train_inputs("psp")["init"] == "results/models/first/model.safetensors"


def test_linear_methods_have_no_weights_of_their_own() -> None:
    flow = layout()
    assert "model" not in flow.reenact_inputs("cross", "linear-psp")
    assert flow.reenact_arguments("linear-psp") == []
    assert flow.reenact_inputs("cross", "mapping")["model"] == "results/models/mapping/model.safetensors"
    assert [Path(path).parent.name for path in flow.histories()] == ["psp", "e4e", "mapping"]


class TestExternal:
    """Other people's systems."""

    def test_they_take_part_beside_our_models(self, tmp_path: Path) -> None:
        flow = layout(external={"theirs": {"path": str(tmp_path), "title": "Theirs"}})
        ours = list(flow.config["models"])
        assert (flow.systems("cross"), flow.models("cross")) == ([*ours, "theirs"], ours)
        assert "results/benchmarks/cross/theirs/scores/0000-of-0001.parquet" in flow.scores()
        assert flow.models_used() == set(ours)
        told = flow.summary_options()
        assert told["models"]["theirs"] == {"external": "Theirs"}
        assert told["protocols"]["self"]["models"] == [*ours, "theirs"]
        assert flow.score_options("theirs") == {**flow.config["score"], "model": "theirs", "inverter": ""}

    def test_a_protocol_chooses_among_both(self, tmp_path: Path) -> None:
        both = {"cross": {"models": ["theirs"]}, "self": {"models": ["mapping"]}}
        flow = layout(external={"theirs": {"path": str(tmp_path)}}, protocols=both)
        assert (flow.systems("cross"), flow.models("cross")) == (["theirs"], [])
        assert flow.models_used() == {"mapping"}
        assert flow.sheet_options("cross")["models"] == {"theirs": {"external": "theirs"}}

    def test_nothing_changes_without_them(self) -> None:
        flow = layout()
        assert flow.systems("cross") == flow.models("cross") == list(flow.config["models"])
        assert not any("external" in entry for entry in flow.summary_options()["models"].values())
        assert not re.fullmatch(flow.pattern("external"), "mapping")
        assert re.fullmatch(flow.pattern("models"), "mapping")

    def test_only_invented_targets_need_the_generator(self) -> None:
        flow = layout(protocols={"cross": {"random_identities": 1}, "self": {"random_identities": 1}})
        assert flow.networks("external", "cross") == ["dlib-landmarks-68", "mobile-ffhq"]
        assert flow.networks("external", "self") == ["dlib-landmarks-68"]

    def test_its_options_follow_our_alignment_only_where_it_is_aligned(self, tmp_path: Path) -> None:
        entries = {"a": {"path": str(tmp_path)}, "b": {"path": str(tmp_path), "align": False}}
        flow = layout(
            external=entries, align={"smooth_axes": 5, "max_frames": 9}, reenact={"resolution": 512}
        )
        aligned, raw = flow.external_options("a"), flow.external_options("b")
        assert (aligned["resolution"], aligned["align"], raw["align"]) == (512, True, False)
        assert aligned["alignment"]["smooth_axes"] == 5
        assert "max_frames" not in aligned["alignment"]
        assert raw["alignment"] == {}
        AlignOptions(**aligned["alignment"])

    def test_the_listing_follows_the_videos_of_a_batch(self, tmp_path: Path) -> None:
        def listings() -> dict[str, str]:
            flow = layout(external={"a": {"path": str(tmp_path)}}, protocols={"cross": {"batches": 4}})
            return {batch: flow.external_listing("a", "cross", batch) for batch in flow.batches("cross")}

        before = listings()
        (tmp_path / "pair.mp4").write_bytes(b"1")
        after = listings()
        assert [batch for batch in before if before[batch] != after[batch]] == [batch_of("pair", 4)]
        (tmp_path / "cross").mkdir()
        (tmp_path / "cross" / "pair.mp4").write_bytes(b"1")
        assert listings() != after
        assert rendered(tmp_path, "cross") == {"pair": tmp_path / "cross" / "pair.mp4"}
        assert rendered(tmp_path, "self") == {"pair": tmp_path / "pair.mp4"}
        assert rendered(tmp_path / "none", "self") == {}


def test_only_what_is_used_is_computed() -> None:
    flow = layout(
        datasets={"spare": {"source": "puppets"}},
        protocols={"cross": {"models": ["linear-psp"]}, "self": None},
    )
    assert flow.inverters_used() == {"psp"}
    assert flow.datasets_used() == ["samples", "puppets"]
    assert flow.scores() == ["results/benchmarks/cross/linear-psp/scores/0000-of-0001.parquet"]


def described(folder: Path, name: str, kind: str, role: str, **more: Any) -> None:
    """What ``remime weights import`` leaves of a file."""
    folder.mkdir(parents=True, exist_ok=True)
    terms = {"class": "unknown", "weights": "", "package": ""}
    meta = {
        "name": name,
        "kind": kind,
        "role": role,
        "terms": terms,
        "sha256": {"f": "0"},
        "converter": "import",
    }
    (folder / f"{name}.json").write_text(json.dumps({**meta, **more}))
    (folder / f"{name}.safetensors").touch()


def imported_config() -> dict[str, Any]:
    """A configuration of imported networks alone."""
    return {
        "generator": "stylegan2-mine",
        "datasets": {"samples": {"source": "samples"}},
        "measure": {"pose": "hopenet"},
        "inverters": {"psp": {"method": "restyle-psp", "init": "restyle-psp-ffhq"}},
        "models": {"linear": {"method": "linear", "inverter": "psp"}},
        "protocols": {"cross": {"kind": "cross", "datasets": ["samples"], "inverter": "psp"}},
    }


@pytest.fixture
def imported(tmp_path: Path) -> Path:
    """A folder in which the networks of :func:`imported_config` were imported."""
    folder = tmp_path / "resources" / "weights"
    described(folder, "stylegan2-mine", "stylegan2", "generator", fingerprint=[1024.0, 0.5])
    described(folder, "restyle-psp-ffhq", "restyle-psp", "inverter", fingerprint=[1024.0, 0.5000001])
    described(folder, "hopenet", "hopenet", "pose")
    return tmp_path


def test_fitting_targets_needs_the_network_of_the_loss() -> None:
    fitted = layout(models={"mapping": {"optimise": 5}})
    plain = layout(models={"mapping": {"optimise": 0, "optimise_identity": "dlib-resnet-id"}})
    path = "resources/weights/edgeface-s.safetensors"
    assert path in fitted.reenact_inputs("cross", "mapping")["weights"]
    assert path not in plain.reenact_inputs("cross", "mapping")["weights"]
    assert path not in fitted.reenact_inputs("cross", "linear-psp")["weights"]
    told = fitted.reenact_options("mapping")
    assert (told["optimise"], told["optimise_identity"]) == (5, "edgeface-s")
    assert told["optimise_truncation"] > 0
    assert not {"optimise_identity", "optimise_truncation"} & set(plain.reenact_options("mapping"))
    # A training does not depend on how its model is used.
    assert fitted.train_options("mapping") == plain.train_options("mapping")


@pytest.mark.parametrize(
    ("key", "usual"), [("strength", 1), ("expression_strength", 1), ("relative_expression", 0)]
)
def test_strength_is_for_those_who_drive(key, usual) -> None:
    own = {"strength": 1, "expression_strength": 1, "relative_expression": 0}
    weak, plain = (layout(models={"mapping": {**own, key: x}}) for x in (0.8, usual))
    assert weak.reenact_options("mapping")[key] == 0.8
    assert key not in plain.reenact_options("mapping")
    assert weak.train_options("mapping") == plain.train_options("mapping")
    told = [
        any("puppet-directions" in path for path in x.reenact_inputs("cross", "mapping")["weights"])
        for x in (weak, plain)
    ]
    assert told == [key != "strength", False]
    summaries = [where.summary_options()["models"]["mapping"] for where in (weak, plain)]
    assert [summary.get(key) for summary in summaries] == [0.8, None]


def test_defaults_of_later_versions_are_not_told() -> None:
    """So that what was trained before a key existed is not trained again."""
    plain = layout()
    assert not {"width", "decode_resolution", "keep"} & set(plain.train_options("psp"))
    assert not {"components", "correction", "varied"} & set(plain.train_options("mapping"))
    assert plain.train_options("psp")["varied"] == 0
    other = layout(inverters={"psp": {"width": 128, "train": {"decode_resolution": 1024}}})
    assert (other.train_options("psp")["width"], other.train_options("psp")["decode_resolution"]) == (
        128,
        1024,
    )


@pytest.mark.parametrize("key", ["components", "correction"])
def test_structure_is_for_the_training(key) -> None:
    changed, plain = layout(models={"mapping": {key: 8}}), layout()
    assert changed.train_options("mapping")[key] == 8
    assert key not in plain.train_options("mapping")
    assert changed.reenact_options("mapping") == plain.reenact_options("mapping")


def test_people_who_share_motions_are_inputs_without_latents() -> None:
    heads = {"source": "heads", "shared_motions": True, "shards": 2}
    train = {"same_motion": ["heads"], "losses": {"same_motion": 1.0}}
    shared = layout(datasets={"heads": heads}, models={"mapping": {"train": train}})
    assert "heads" in shared.datasets_used()
    inputs = shared.train_inputs("mapping")
    assert inputs["same_motion"] == [
        f"results/heads/{kind}/000{i}-of-0002.{ending}"
        for kind, ending in (("aligned", "h5"), ("selected", "parquet"))
        for i in range(2)
    ]
    assert not any("heads" in path for path in inputs["index"])
    arguments = shared.train_arguments("mapping")
    assert arguments[arguments.index("--same-motion") + 1 :] == ["results/heads=2"]
    assert "same_motion" not in shared.train_options("mapping")
    plain = layout(datasets={"heads": heads})
    assert "heads" not in plain.datasets_used()
    assert "same_motion" not in plain.train_inputs("mapping")
    assert "--same-motion" not in plain.train_arguments("mapping")


def test_an_imported_checkpoint_is_a_start(imported: Path) -> None:
    flow = Layout(validate(imported_config(), base=imported))
    path = "resources/weights/restyle-psp-ffhq.safetensors"
    assert flow.train_arguments("psp") == ["--init", path]
    assert flow.train_inputs("psp")["init"] == path
    assert {"stylegan2-mine", "restyle-psp-ffhq", "hopenet"} <= set(flow.networks_used())
    assert flow.weights("invert") == [
        "resources/weights/stylegan2-mine.safetensors",
        "resources/weights/lpips-alex.safetensors",
    ]


def test_only_what_is_fetched_is_a_job_of_the_workflow(imported: Path) -> None:
    pins = make_layout(imported_config(), base=imported).pins
    assert "lpips-alex" in pins
    assert not {"hopenet", "stylegan2-mine", "stylegan2-ffhq-1024", "restyle-psp-ffhq"} & set(pins)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"generator": "stylegan2-ffhq-1024"}, "generator: 'stylegan2-ffhq-1024' has to be brought by hand"),
        ({"generator": "hopenet"}, "generator: 'hopenet' is not a network of the role generator"),
        ({"measure": {"identity": "ir-se50"}}, "measure.identity: 'ir-se50' has to be brought by hand"),
        ({"inverters": {"psp": {"preset": "small"}}}, "inverters.psp.preset: 'small' does not fit"),
        (
            {
                "models": {
                    "m": {
                        "method": "mapping",
                        "preset": "small",
                        "inverter": "psp",
                        "expression_strength": 0.7,
                        "train": {"steps": 1, "datasets": ["samples"]},
                    }
                }
            },
            "models.m.expression_strength: is 0.7, but what turns a head is known of mobile-ffhq alone",
        ),
        (
            {"inverters": {"psp": {"method": "restyle-e4e"}}},
            "is of the kind restyle-psp, the method is restyle-e4e",
        ),
        (
            {"inverters": {"psp": {"init": "none"}}},
            "inverters.psp.init: 'none' is not a network of the role inverter",
        ),
        (
            {"licence": "research"},
            "licence: 'research' does not accept the generator network 'stylegan2-mine'",
        ),
        ({"generator": "mobile-ffhq"}, "trained for another generator than 'mobile-ffhq'"),
        (
            {"datasets": {"dolls": {"source": "puppets"}}, "protocols": {"cross": {"datasets": ["dolls"]}}},
            "datasets.dolls: puppets need motion directions of their own generator",
        ),
        (
            {"inverters": {"psp": {"init": "models/restyle-psp-small.safetensors"}}},
            "was trained for the generator 'mobile-ffhq', not 'stylegan2-mine'",
        ),
    ],
)
def test_imported_networks_that_do_not_fit(imported: Path, change: dict[str, Any], told: str) -> None:
    (imported / "models").symlink_to(ROOT / "models")
    with pytest.raises(ConfigError) as error:
        validate(merge(imported_config(), change), base=imported)
    assert told in str(error.value)


def test_another_kind_under_the_name_of_a_row_is_none(imported: Path) -> None:
    described(imported / "resources/weights", "hopenet", "bisenet", "parsing")
    with pytest.raises(ConfigError, match="'hopenet' has to be brought by hand"):
        validate(imported_config(), base=imported)


def test_an_inverter_of_another_generator_is_refused(imported: Path) -> None:
    other = [1024.0, 0.6]
    described(
        imported / "resources/weights", "restyle-psp-ffhq", "restyle-psp", "inverter", fingerprint=other
    )
    with pytest.raises(ConfigError, match="trained for another generator than 'stylegan2-mine'"):
        validate(imported_config(), base=imported)


def test_networks_of_a_run() -> None:
    used = layout().networks_used()
    assert len(used) == len(set(used))
    assert {
        "mobile-ffhq",
        "dlib-landmarks-68",
        "sface",
        "hopenet-lite",
        "lpips-alex",
        "dlib-resnet-id",
        "edgeface-s",
    } <= set(used)
    with pytest.raises(ValueError, match="uses no networks"):
        layout().networks("split")


def test_equal_options_give_equal_text() -> None:
    assert (
        to_json({"b": 1, "a": [1.5, None]})
        == to_json({"a": [1.5, None], "b": 1})
        == '{"a": [1.5, null], "b": 1}'
    )
    assert json.loads(to_json({"path": "ä'\"$(rm)"})) == {"path": "ä'\"$(rm)"}


def test_the_digest_of_a_tree_follows_its_files(tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    clip = tmp_path / "a b" / "ü.mp4"
    clip.write_bytes(b"1")
    before = tree_digest(tmp_path)
    assert tree_digest(tmp_path) == before
    clip.write_bytes(b"22")
    changed = tree_digest(tmp_path)
    clip.rename(clip.with_name("v.mp4"))
    assert len({before, changed, tree_digest(tmp_path), tree_digest(tmp_path / "none")}) == 4


def test_links_that_lead_back_end(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "clip.mp4").touch()
    (tmp_path / "a" / "back").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "linked").symlink_to(tmp_path / "a", target_is_directory=True)
    (tmp_path / "dangling.mp4").symlink_to(tmp_path / "nowhere")
    assert sorted(os.path.relpath(path, tmp_path) for path in tree_files(tmp_path)) == [
        "a/clip.mp4",
        "linked/clip.mp4",
    ]


class TestTruth:
    """Protocols whose pairs have true answers."""

    change: ClassVar[dict[str, Any]] = {
        "datasets": {"people": {"source": "heads"}},
        "protocols": {
            "truth": {
                "kind": "truth",
                "datasets": ["people"],
                "inverter": "psp",
                "batches": 2,
                "models": ["mapping"],
            }
        },
    }

    def test_references_are_scored_beside_the_models(self) -> None:
        flow, plain = layout(**self.change), layout().summary_options()
        scored = [path for path in flow.scores() if "/truth/" in path]
        assert {path.split("/")[3] for path in scored} == {"mapping", *REFERENCES}
        assert len(scored) == 10
        told = flow.summary_options()
        assert told["protocols"]["truth"]["models"] == ["mapping", *REFERENCES]
        assert told["models"]["reference-target"] == {"reference": True}
        # They have no videos, and other protocols do not know them.
        assert len(flow.videos("truth")) == 2
        assert flow.references("cross") == []
        assert told["protocols"]["cross"]["models"] == plain["protocols"]["cross"]["models"]

    def test_inputs_of_score(self) -> None:
        flow, folder = layout(**self.change), "results/benchmarks/truth"
        inputs = flow.score_inputs("truth", "mapping", "0001-of-0002")
        assert inputs["answers"] == f"{folder}/answers/0001-of-0002.h5"
        assert inputs["videos"] == f"{folder}/mapping/videos/0001-of-0002"
        assert "resources/weights/face-mesh.safetensors" in inputs["weights"]
        arguments = flow.score_arguments("truth", "mapping", "0001-of-0002")
        assert arguments == ["--videos", inputs["videos"], "--answers", inputs["answers"]]
        assert "videos" not in flow.score_inputs("truth", "reference-driving", "0001-of-0002")
        assert flow.score_options("reference-driving")["inverter"] == ""
        assert flow.all_answers("truth")[1] == inputs["answers"]
        assert {"face-mesh", "head-parts"} <= set(flow.networks_used())

    def test_nothing_changes_without_them(self) -> None:
        flow = layout()
        assert flow.agreement() == flow.all_answers("cross") == []
        assert set(flow.score_inputs("cross", "mapping", "0000-of-0001")) == {"weights", "videos"}
        assert "resources/weights/face-mesh.safetensors" not in flow.weights("score", "cross")
        assert not set(REFERENCES) & set(flow.summary_options()["models"])
