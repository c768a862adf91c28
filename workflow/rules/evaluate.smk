localrules:
    plan,
    summarize,


rule plan:
    """Choose the pairs of a protocol: fixed, seeded, identity-disjoint."""
    input:
        index=lambda w: [
            str(flow.dataset(name).index(flow.protocol(w.protocol)["inverter"]))
            for name in flow.protocol(w.protocol)["datasets"]
        ],
        status=lambda w: [
            path for name in flow.protocol(w.protocol)["datasets"] for path in flow.files(name, "status")
        ],
    output:
        pairs="results/benchmarks/{protocol}/pairs.parquet",
    log:
        "results/logs/plan/{protocol}.log",
    conda:
        "../../envs/media.yaml"
    resources:
        mem_mb=1000,
        runtime=30,
    params:
        datasets=lambda w: flow.arguments(flow.protocol(w.protocol)["datasets"]),
        options=lambda w: to_json(flow.plan_options(w.protocol)),
        version=STAGES["plan"],
    shell:
        "python -m remime.stages.plan --datasets {params.datasets} --output {output.pairs}"
        " --options {params.options:q} 2>&1 | tee -i {log}"


rule reenact:
    """Make a model's videos of one batch of pairs."""
    input:
        unpack(lambda w: flow.reenact_inputs(w.protocol, w.model)),
        pairs="results/benchmarks/{protocol}/pairs.parquet",
    output:
        videos=directory("results/benchmarks/{protocol}/{model}/videos/{batch}"),
    log:
        "results/logs/reenact/{protocol}/{model}/{batch}.log",
    benchmark:
        "results/speed/reenact/{protocol}/{model}/{batch}.tsv"
    wildcard_constraints:
        model=flow.pattern("models"),
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: 4000 * attempt,
        runtime=480,
        gpu=1,
    params:
        datasets=lambda w: flow.arguments(flow.protocol(w.protocol)["datasets"]),
        arguments=lambda w: flow.reenact_arguments(w.model),
        state="results/state/reenact/{protocol}/{model}/{batch}",
        options=lambda w: to_json(flow.reenact_options(w.model)),
        version=STAGES["reenact"],
    shell:
        "python -m remime.stages.reenact --pairs {input.pairs} --batch {wildcards.batch}"
        " --datasets {params.datasets} {params.arguments:q} --inverter-model {input.inverter}"
        " --output {output.videos} --state {params.state} --options {params.options:q} 2>&1 | tee -i {log}"


rule external:
    """Fit the videos of another system to the driving frames of one batch."""
    input:
        pairs="results/benchmarks/{protocol}/pairs.parquet",
        # The aligned frames are read too; they are older than the pairs, so they need not be named.
        weights=lambda w: flow.weights("external", w.protocol),
    output:
        videos=directory("results/benchmarks/{protocol}/{model}/videos/{batch}"),
    log:
        "results/logs/external/{protocol}/{model}/{batch}.log",
    benchmark:
        "results/speed/external/{protocol}/{model}/{batch}.tsv"
    wildcard_constraints:
        model=flow.pattern("external"),
    conda:
        "../../envs/torch.yaml"
    resources:
        mem_mb=2000,
        runtime=480,
    params:
        datasets=lambda w: flow.arguments(flow.protocol(w.protocol)["datasets"]),
        folder=lambda w: flow.config["external"][w.model]["path"],
        # Files that others made are no inputs, because no rule makes them; the listing tells when they change.
        listing=lambda w: flow.external_listing(w.model, w.protocol, w.batch),
        state="results/state/external/{protocol}/{model}/{batch}",
        options=lambda w: to_json(flow.external_options(w.model)),
        version=STAGES["external"],
    shell:
        "python -m remime.stages.external --pairs {input.pairs} --batch {wildcards.batch}"
        " --datasets {params.datasets} --folder {params.folder:q} --output {output.videos}"
        " --state {params.state} --options {params.options:q} 2>&1 | tee -i {log}"


rule answer:
    """Render the true answers of one batch of pairs."""
    input:
        pairs="results/benchmarks/{protocol}/pairs.parquet",
        # The aligned frames are read too; they are older than the pairs, so they need not be named.
        weights=flow.weights("answer"),
    output:
        answers="results/benchmarks/{protocol}/answers/{batch}.h5",
    log:
        "results/logs/answer/{protocol}/{batch}.log",
    benchmark:
        "results/speed/answer/{protocol}/{batch}.tsv"
    conda:
        "../../envs/torch.yaml"
    resources:
        mem_mb=lambda w, attempt: 2500 * attempt,
        runtime=240,
    params:
        datasets=lambda w: flow.arguments(flow.protocol(w.protocol)["datasets"]),
        state="results/state/answer/{protocol}/{batch}",
        version=STAGES["answer"],
    shell:
        "python -m remime.stages.answer --pairs {input.pairs} --batch {wildcards.batch}"
        " --datasets {params.datasets} --output {output.answers} --state {params.state} 2>&1 | tee -i {log}"


rule score:
    """Score the videos of one batch."""
    input:
        # The aligned frames are read too; they are older than the videos, so they need not be named.
        unpack(lambda w: flow.score_inputs(w.protocol, w.model, w.batch)),
        pairs="results/benchmarks/{protocol}/pairs.parquet",
    output:
        scores="results/benchmarks/{protocol}/{model}/scores/{batch}.parquet",
        features="results/benchmarks/{protocol}/{model}/features/{batch}.npz",
    log:
        "results/logs/score/{protocol}/{model}/{batch}.log",
    benchmark:
        "results/speed/score/{protocol}/{model}/{batch}.tsv"
    conda:
        "../../envs/torch.yaml"
    resources:
        mem_mb=lambda w, attempt: 2500 * attempt,
        runtime=480,
        gpu=1,
    params:
        datasets=lambda w: flow.arguments(flow.protocol(w.protocol)["datasets"]),
        # A parameter that is derived from others is no reason to run again; these are inputs.
        arguments=lambda w, output: flow.score_arguments(w.protocol, w.model, w.batch),
        options=lambda w: to_json(flow.score_options(w.model)),
        version=STAGES["score"],
    shell:
        "python -m remime.stages.score --pairs {input.pairs} --batch {wildcards.batch}"
        " --datasets {params.datasets} {params.arguments:q} --output {output.scores}"
        " --features {output.features} --options {params.options:q} 2>&1 | tee -i {log}"


rule summarize:
    """Turn all scores into tables with intervals."""
    input:
        scores=flow.scores(),
    output:
        metrics="results/report/metrics.parquet",
        csv=report("results/report/metrics.csv", caption="../report/metrics.rst", category="Results"),
        tables="results/report/tables.md",
        agreement=flow.agreement(),
    log:
        "results/logs/summarize.log",
    conda:
        "../../envs/report.yaml"
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        benchmarks=[flow.benchmark(name) for name in flow.config["protocols"]],
        arguments=lambda w, output: [text for path in output.agreement for text in ("--agreement", path)],
        options=to_json({**flow.config["summarize"], **flow.summary_options(), "seed": flow.config["seed"]}),
        version=STAGES["summarize"],
    shell:
        "python -m remime.stages.summarize --benchmarks {params.benchmarks} --output {output.metrics}"
        " --csv {output.csv} --tables {output.tables} {params.arguments:q} --options {params.options:q} 2>&1 | tee -i {log}"
