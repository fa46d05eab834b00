rule prepare:
    output:
        plan.any_set,
    log:
        f"{plan.outputs}/logs/prepare-{{dataset}}-{{fingerprint}}.log",
    priority: 1  # all data first: a job that wants every core leaves some idle while it waits for them
    threads: workflow.cores
    resources:
        seconds=estimate.UNKNOWN,
        store_mb=lambda wildcards: estimate.set_megabytes(wildcards.dataset),
    message:
        "data {wildcards.dataset}"
    shell:
        plan.shell("fetch {wildcards.dataset:q} --workers {threads}", "data_root", "data_mirror")
