# Tables, plots, verdicts and the page, from the records of what this call asks for.
rule report:
    input:
        [records_if_selected(paper) for paper in plan.papers],
        lambda wildcards: plan.speeds(selection()),
    output:
        plan.page,
    log:
        f"{plan.outputs}/logs/report.log",
    localrule: True
    params:
        papers=lambda wildcards: ",".join(plan.papers_of(selection())),
        meaning=lambda wildcards: plan.report_meaning(selection()),
    message:
        "report"
    shell:
        plan.shell(
            "report --papers {params.papers:q}", "tier", "tried", "portable", "ablations", "data_root", "results"
        )
