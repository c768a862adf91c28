localrules:
    figures,
    sheet,
    report,


rule figures:
    """Plot metrics, training curves and speed."""
    input:
        metrics=rules.summarize.output.metrics,
        histories=flow.histories(),
    output:
        figures=report(
            directory("results/report/figures"),
            patterns=["{figure}.svg"],
            caption="../report/figures.rst",
            category="Figures",
        ),
    log:
        "results/logs/figures.log",
    conda:
        "../../envs/report.yaml"
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        benchmarks=[flow.benchmark(name) for name in flow.config["protocols"]],
        options=to_json({"confidence": flow.config["summarize"]["confidence"], **flow.summary_options()}),
        version=STAGES["figures"],
    shell:
        "python -m remime.stages.figures --metrics {input.metrics} --benchmarks {params.benchmarks}"
        " --histories {input.histories} --speeds results/speed --output {output.figures}"
        " --options {params.options:q} 2>&1 | tee -i {log}"


rule sheet:
    """Put driving, target and all models side by side; draw the grid of identities and motions."""
    input:
        pairs="results/benchmarks/{protocol}/pairs.parquet",
        videos=lambda w: flow.videos(w.protocol),
        answers=lambda w: flow.all_answers(w.protocol),
    output:
        sheet=report(
            directory("results/report/videos/{protocol}"),
            patterns=["{name}.mp4", "{name}.png"],
            caption="../report/sheet.rst",
            category="Videos",
            subcategory="{protocol}",
        ),
    log:
        "results/logs/sheet/{protocol}.log",
    conda:
        "../../envs/report.yaml"
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        benchmark=lambda w: flow.benchmark(w.protocol),
        datasets=lambda w: flow.arguments(flow.protocol(w.protocol)["datasets"]),
        options=lambda w: to_json(flow.sheet_options(w.protocol)),
        version=STAGES["sheet"],
    shell:
        "python -m remime.stages.sheet --pairs {input.pairs} --benchmark {params.benchmark}"
        " --datasets {params.datasets} --output {output.sheet} --options {params.options:q} 2>&1 | tee -i {log}"


rule report:
    """The page that sums up a run; it works when opened from disk."""
    input:
        metrics=rules.summarize.output.metrics,
        csv=rules.summarize.output.csv,
        tables=rules.summarize.output.tables,
        figures=rules.figures.output.figures,
        sheets=expand(rules.sheet.output.sheet, protocol=flow.config["protocols"]),
        cards=flow.cards(),
        status=[path for name in flow.datasets_used() for path in flow.files(name, "status")],
        weights_table="workflow/weights.tsv",
        samples_tables=flow.sample_tables(),
    output:
        page=report("results/report/index.html", caption="../report/report.rst", category="Report"),
        counts="results/report/datasets.csv",
    log:
        "results/logs/report.log",
    conda:
        "../../envs/report.yaml"
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        datasets=flow.arguments(flow.datasets_used()),
        benchmarks=[flow.benchmark(name) for name in flow.config["protocols"]],
        options=to_json({**flow.config["report"], "weights": flow.networks_used()}),
        version=STAGES["report"],
    shell:
        "python -m remime.stages.report --metrics {input.metrics} --csv {input.csv} --tables {input.tables}"
        " --figures {input.figures} --sheets {input.sheets} --datasets {params.datasets}"
        " --benchmarks {params.benchmarks} --cards {input.cards} --weights {input.weights_table}"
        " --samples {input.samples_tables} --output {output.page} --counts {output.counts}"
        " --options {params.options:q}"
        " 2>&1 | tee -i {log}"
