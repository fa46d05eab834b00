# Between two looks: a paper's claims are judged. A checkpoint, since only then is known which rows the next look needs.
checkpoint judge:
    input:
        lambda wildcards: plan.records_after(wildcards.paper, int(wildcards.look), judged),
    output:
        plan.any_judging,
    log:
        f"{plan.outputs}/logs/judge-{{paper}}-{{look}}.log",
    localrule: True
    params:
        meaning=lambda wildcards: plan.judging_meaning(wildcards.paper),
    message:
        "verdicts of {wildcards.paper} (look {wildcards.look})"
    shell:
        plan.shell(
            "judge {wildcards.paper:q} --look {wildcards.look:q}",
            "looks",
            "tier",
            "tried",
            "portable",
            "ablations",
            "results",
        )
