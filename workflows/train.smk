# One rule for each group of seeds that share a process (seeds_per_process in config/<tier>.yaml).
for seeds in plan.seed_groups:

    rule:
        name:
            f"train_{seeds}".replace(",", "_")
        input:
            lambda wildcards: plan.sets([plan.address(wildcards)]),
        output:
            plan.records_of_group(seeds),
        log:
            f"{plan.outputs}/logs/{{paper}}-{{method}}-{seeds}.log",
        threads: plan.threads
        resources:
            gpu=plan.gpu,
            seconds=lambda wildcards, seeds=seeds: estimate.run_seconds(plan, plan.address(wildcards), seeds),
            store_mb=lambda wildcards, seeds=seeds: estimate.run_megabytes(plan, plan.address(wildcards), seeds),
        params:
            seeds=seeds,
            meaning=lambda wildcards, seeds=seeds: plan.run_meaning(plan.address(wildcards), seeds),
        message:
            f"{{wildcards.paper}}/{{wildcards.method}} (seeds {seeds})"
        shell:
            plan.shell(
                "run {wildcards.paper:q}/{wildcards.method:q} --seeds {params.seeds:q},",  # the comma: a list, also of one
                "tier",
                "set",
                "device",
                "portable",
                "runs_per_gpu",
                "data_root",
                "work",
                "results",
            )
