rule align:
    """Find, follow and crop the face in the clips of a shard."""
    input:
        unpack(lambda w: flow.collected(w.dataset, w.shard)),
        clips="results/{dataset}/shards/{shard}/clips.tsv",
        weights=flow.weights("align"),
    output:
        aligned="results/{dataset}/aligned/{shard}.h5",
        status="results/{dataset}/aligned/{shard}.status.parquet",
    log:
        "results/logs/align/{dataset}/{shard}.log",
    benchmark:
        "results/speed/align/{dataset}/{shard}.tsv"
    conda:
        "../../envs/media.yaml"
    resources:
        mem_mb=lambda w, attempt: 2000 * attempt,
        runtime=240,
    params:
        collected=lambda w: flow.collected_arguments(w.dataset, w.shard),
        state="results/state/align/{dataset}/{shard}",
        options=lambda w: to_json(flow.options("align", w.dataset)),
        version=STAGES["align"],
    shell:
        "python -m remime.stages.align --clips {input.clips} {params.collected} --output {output.aligned}"
        " --status {output.status} --state {params.state} --options {params.options:q} 2>&1 | tee -i {log}"


rule measure:
    """Measure pose, expression, identity and sharpness of every aligned frame."""
    input:
        aligned="results/{dataset}/aligned/{shard}.h5",
        weights=lambda w: flow.weights("measure", w.dataset),
    output:
        measured="results/{dataset}/measured/{shard}.parquet",
    log:
        "results/logs/measure/{dataset}/{shard}.log",
    benchmark:
        "results/speed/measure/{dataset}/{shard}.tsv"
    conda:
        "../../envs/torch.yaml"
    resources:
        mem_mb=lambda w, attempt: 2500 * attempt,
        runtime=240,
    params:
        state="results/state/measure/{dataset}/{shard}",
        options=lambda w: to_json(flow.options("measure", w.dataset)),
        version=STAGES["measure"],
    shell:
        "python -m remime.stages.measure --aligned {input.aligned} --output {output.measured}"
        " --state {params.state} --options {params.options:q} 2>&1 | tee -i {log}"


rule select:
    """Leave out extreme poses, blur and bad frames, with a reason each; sample frames for training."""
    input:
        measured="results/{dataset}/measured/{shard}.parquet",
    output:
        selected="results/{dataset}/selected/{shard}.parquet",
    log:
        "results/logs/select/{dataset}/{shard}.log",
    conda:
        "../../envs/media.yaml"
    resources:
        mem_mb=lambda w, attempt: 1000 * attempt,
        runtime=30,
    params:
        options=lambda w: to_json(flow.options("select", w.dataset)),
        version=STAGES["select"],
    shell:
        "python -m remime.stages.select --measured {input.measured} --output {output.selected}"
        " --options {params.options:q} 2>&1 | tee -i {log}"
