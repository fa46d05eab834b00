# The front door. `snakemake --cores all` makes everything that config/config.yaml asks for; the name of a paper or of a
# task makes that and what its claims compare with; `-n` says what would run and what it would cost.
from replications.planning import front

front.check_file(f"{workflow.basedir}/config/config.yaml")


configfile: f"{workflow.basedir}/config/config.yaml"


include: "workflows/common.smk"
include: "workflows/data.smk"
include: "workflows/train.smk"
include: "workflows/judge.smk"
include: "workflows/throughput.smk"
include: "workflows/report.smk"


rule all:
    default_target: True
    input:
        [records_of(paper) for paper in plan.knobs.papers],
        plan.page,
    localrule: True


# One target a paper and one a task.
for target, papers in plan.targets.items():

    rule:
        name:
            target
        input:
            [records_of(paper) for paper in papers],
            plan.page,
        localrule: True
