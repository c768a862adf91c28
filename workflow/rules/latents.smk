localrules:
    index,


rule invert:
    """Find the latents of a shard's frames."""
    input:
        aligned="results/{dataset}/aligned/{shard}.h5",
        selected="results/{dataset}/selected/{shard}.parquet",
        inverter="results/models/{inverter}/model.safetensors",
        weights=flow.weights("invert"),
    output:
        latents="results/{dataset}/latents/{inverter}/{shard}.h5",
    log:
        "results/logs/invert/{dataset}/{inverter}/{shard}.log",
    benchmark:
        "results/speed/invert/{dataset}/{inverter}/{shard}.tsv"
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: 3000 * attempt,
        runtime=240,
        gpu=1,
    params:
        state="results/state/invert/{dataset}/{inverter}/{shard}",
        options=lambda w: to_json(flow.options("invert", w.dataset)),
        version=STAGES["invert"],
    shell:
        "python -m remime.stages.invert --aligned {input.aligned} --selected {input.selected}"
        " --inverter {input.inverter} --output {output.latents} --state {params.state}"
        " --options {params.options:q} 2>&1 | tee -i {log}"


rule index:
    """Gather where every latent of a dataset lies; stop when too few of its clips could be used."""
    input:
        manifest="results/{dataset}/manifest.parquet",
        status=lambda w: flow.files(w.dataset, "status"),
        measured=lambda w: flow.files(w.dataset, "measured"),
        selected=lambda w: flow.files(w.dataset, "selected"),
        latents=lambda w: flow.files(w.dataset, "latents", w.inverter),
    output:
        index="results/{dataset}/latents/{inverter}.parquet",
    log:
        "results/logs/index/{dataset}/{inverter}.log",
    conda:
        "../../envs/media.yaml"
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        dataset=lambda w: flow.dataset(w.dataset).argument(),
        options=lambda w: to_json(flow.options("index", w.dataset)),
        version=STAGES["index"],
    shell:
        "python -m remime.stages.index --dataset {params.dataset} --inverter {wildcards.inverter}"
        " --output {output.index} --options {params.options:q} 2>&1 | tee -i {log}"
