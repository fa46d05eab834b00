# All methods of a request in one job that takes all cores: a speed is measured alone on the device.
rule throughput:
    input:
        lambda wildcards: plan.sets(plan.methods_of(wildcards.selection)),
    output:
        f"{plan.outputs}/throughput/{{selection}}.json",
    log:
        f"{plan.outputs}/logs/throughput-{{selection}}.log",
    threads: workflow.cores
    resources:
        gpu=plan.whole_gpu,
        seconds=estimate.UNKNOWN,
    params:
        methods=lambda wildcards: ",".join(plan.methods_of(wildcards.selection)),
        meaning=lambda wildcards: plan.selection_meaning(wildcards.selection),
    message:
        "throughput"
    shell:
        plan.shell(
            "throughput {params.methods:q} --done={output:q}",
            "tier",
            "set",
            "device",
            "portable",
            "data_root",
            "work",
            "results",
        )
