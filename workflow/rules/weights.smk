localrules:
    weights,


rule weights:
    """Fetch a pretrained network, verify it, convert it to safetensors."""
    output:
        weights="resources/weights/{network}.safetensors",
        notes="resources/weights/{network}.json",
    log:
        "results/logs/weights/{network}.log",
    wildcard_constraints:
        # What the user imported is nobody's output: it could not be made again.
        network="|".join(flow.pins),
    conda:
        "../../envs/torch.yaml"
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        # The licence is judged with the configuration; as a parameter it would fetch everything anew.
        sha256=lambda w: flow.pins[w.network],
        folder=subpath(output.weights, parent=True),
        version=STAGES["weights"],
    shell:
        "python -m remime.stages.weights --name {wildcards.network} --table workflow/weights.tsv"
        " --output {params.folder} 2>&1 | tee -i {log}"
