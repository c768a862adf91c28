localrules:
    manifest,


rule manifest:
    """List all clips of a dataset."""
    input:
        tables=lambda w: flow.source_tables(w.dataset),
    output:
        manifest="results/{dataset}/manifest.parquet",
        problems="results/{dataset}/manifest.problems.tsv",
    log:
        "results/logs/manifest/{dataset}.log",
    conda:
        "../../envs/media.yaml"
    resources:
        mem_mb=2000,
        runtime=120,
    params:
        source=lambda w: flow.source(w.dataset),
        arguments=lambda w: flow.manifest_arguments(w.dataset),
        options=lambda w: to_json(flow.source_options(w.dataset)),
        # Files on a disk are no inputs, because nobody makes them; their listing tells when they change.
        listing=lambda w: flow.listing(w.dataset),
        version=STAGES["manifest"],
    shell:
        "python -m remime.stages.manifest --source {params.source} --dataset {wildcards.dataset}"
        " {params.arguments:q} --output {output.manifest} --problems {output.problems}"
        " --options {params.options:q} 2>&1 | tee -i {log}"


# One job writes the lists of all shards of a dataset, and how many there are differs between datasets.
for dataset in flow.config["datasets"]:

    rule:
        name:
            f"split_{dataset}"
        input:
            manifest=f"results/{dataset}/manifest.parquet",
        output:
            clips=flow.files(dataset, "clips"),
        log:
            f"results/logs/split/{dataset}.log",
        localrule: True
        conda:
            "../../envs/media.yaml"
        resources:
            mem_mb=2000,
            runtime=60,
        params:
            folder=lambda w, output: output.clips[0].rsplit("/", 2)[0],
            shards=flow.dataset(dataset).shards,
            version=STAGES["split"],
        shell:
            "python -m remime.stages.split --manifest {input.manifest} --shards {params.shards}"
            " --output {params.folder} 2>&1 | tee -i {log}"


rule collect:
    """Render or download the clips of a shard."""
    input:
        clips="results/{dataset}/shards/{shard}/clips.tsv",
        weights=lambda w: flow.weights("collect", w.dataset),
    output:
        tar="results/{dataset}/clips/{shard}.tar",
        status="results/{dataset}/clips/{shard}.status.tsv",
    log:
        "results/logs/collect/{dataset}/{shard}.log",
    benchmark:
        "results/speed/collect/{dataset}/{shard}.tsv"
    conda:
        "../../envs/torch.yaml"
    resources:
        mem_mb=lambda w, attempt: 2500 * attempt,
        runtime=240,
        # For `--resources download=N`, where several machines share a line.
        download=lambda w: int(flow.is_downloaded(w.dataset)),
    params:
        source=lambda w: flow.source(w.dataset),
        state="results/state/collect/{dataset}/{shard}",
        # A parameter that is derived from others is no reason to run again, and no byte depends on it.
        arguments=lambda w, output: flow.collect_arguments(w.dataset),
        options=lambda w: to_json(flow.source_options(w.dataset)),
        version=STAGES["collect"],
    shell:
        "python -m remime.stages.collect --source {params.source} --clips {input.clips} --output {output.tar}"
        " --status {output.status} --state {params.state} {params.arguments:q} --options {params.options:q}"
        " 2>&1 | tee -i {log}"
