rule train:
    """Train an inverter or a method; its state, from which a killed training resumes, is no declared output."""
    input:
        unpack(lambda w: flow.train_inputs(w.model)),
    output:
        model="results/models/{model}/model.safetensors",
        history="results/models/{model}/history.parquet",
        card="results/models/{model}/card.md",
    log:
        "results/logs/train/{model}.log",
    benchmark:
        "results/speed/train/{model}.tsv"
    conda:
        "../../envs/torch.yaml"
    # Weights that are only copied wait neither until all cores are free nor for a GPU.
    threads: lambda w: 8 if flow.learns(w.model) else 1
    resources:
        mem_mb=lambda w, attempt: 5000 * attempt,
        runtime=2880,
        gpu=lambda w: 1 if flow.learns(w.model) else 0,
    params:
        arguments=lambda w: flow.train_arguments(w.model),
        state="results/state/train/{model}",
        options=lambda w: to_json(flow.train_options(w.model)),
        version=STAGES["train"],
    shell:
        "python -m remime.stages.train --name {wildcards.model} --output {output.model}"
        " --history {output.history} --card {output.card} --state {params.state} --processes {resources.gpu}"
        " {params.arguments:q} --options {params.options:q} 2>&1 | tee -i {log}"
