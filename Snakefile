"""Train, run and compare face reenactment: from video files to a report. `make run`, or `snakemake --cores`."""

from snakemake.utils import min_version

min_version("9.0")


configfile: "config.yaml"


# With --sdm apptainer; envs/apptainer.def makes it.
container: "resources/remime.sif"


include: "workflow/rules/common.smk"
include: "workflow/rules/weights.smk"
include: "workflow/rules/datasets.smk"
include: "workflow/rules/faces.smk"
include: "workflow/rules/latents.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/report.smk"


wildcard_constraints:
    network=r"[a-z0-9][a-z0-9-]*",
    # results/models is no dataset, whatever its models are called.
    dataset=flow.pattern("datasets"),
    inverter=r"[A-Za-z0-9][A-Za-z0-9_-]*",
    model=r"[A-Za-z0-9][A-Za-z0-9_-]*",
    protocol=r"[A-Za-z0-9][A-Za-z0-9_-]*",
    shard=r"\d+-of-\d+",
    batch=r"\d+-of-\d+",


localrules:
    all,
    shards,
    models,


rule all:
    """The whole benchmark, summed up on one page."""
    default_target: True
    input:
        page=rules.report.output.page,


rule shards:
    """The lists of clips; `snakemake shards && snakemake` recomputes only the shards that new clips fall into."""
    input:
        clips=[path for name in flow.datasets_used() for path in flow.files(name, "clips")],


rule models:
    """All inverters and models that are trained."""
    input:
        histories=flow.histories(),
