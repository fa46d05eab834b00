# Reads the knobs and makes the plan: what there is to do, and what would make it be done again. The rules only ask it.
from replications.planning import estimate, front

plan = front.make_plan(config, workflow)
terminal = front.attach_terminal(plan, logger, workflow)


def selection():
    """What this call asks for. Known once the targets are: in functions of input and params."""
    return plan.selection(workflow.dag_settings.targets)


def judged(paper, look):
    """Path of the judging of a paper after a look; Snakemake comes back here once it is made."""
    return checkpoints.judge.get(paper=paper, look=look).output[0]


def records_of(paper, wanted=lambda: True):
    """What a paper needs in all looks, as a function of input; one a paper, so that none waits for another's verdicts."""
    passes = len(plan.knobs.passes)
    return lambda wildcards: plan.records_after(paper, passes, judged) if wanted() else []


def records_if_selected(paper):
    return records_of(paper, lambda: paper in plan.papers_of(selection()))


wildcard_constraints:
    paper=r"[a-z0-9_]+",
    method=r"[a-z0-9_]+",
    dataset=r"[a-z0-9_]+",
    fingerprint=r"[0-9a-f]+",
    selection=r"[a-z0-9_+]+",
    look=r"[0-9]",


onstart:
    front.begin(plan, workflow)


onsuccess:
    terminal.finish()
