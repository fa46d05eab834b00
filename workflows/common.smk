# Reads the knobs and makes the plan: what there is to do, and what would make it be done again. The rules only ask it.
from replications.planning import estimate, front

plan = front.make_plan(config, workflow)
terminal = front.attach_terminal(plan, logger, workflow)


def selection():
    """What this call asks for. Known once the targets are: in functions of input and params."""
    return plan.selection(workflow.dag_settings.targets)


wildcard_constraints:
    paper=r"[a-z0-9_]+",
    method=r"[a-z0-9_]+",
    dataset=r"[a-z0-9_]+",
    fingerprint=r"[0-9a-f]+",
    selection=r"[a-z0-9_+]+",


onstart:
    front.begin(plan)


onsuccess:
    terminal.finish()
