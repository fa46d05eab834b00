"""The one-line message for an unknown target, with the closest match."""

from replications import catalogue
from replications.errors import nearest
from replications.planning.plan import Plan

KINDS = "targets are 'all', papers and tasks"


def unknown_target(plan: Plan, word: str) -> str:
    """Return the message for a wrong target, with the remedy."""
    tier = plan.knobs.tier
    papers = catalogue.papers()
    methods = [f"{key}/{name}" for key, paper in papers.items() for name in paper.methods]
    if word in methods:
        paper = word.partition("/")[0]
        alone = f"'python -m replications run {word} --tier {tier}' runs it alone"
        if paper not in plan.targets:
            return f"'{word}' is a method of a paper that has none in tier '{tier}'"
        return f"'{word}' is a method, and {KINDS}: ask for '{paper}', or {alone}"
    if word in papers:
        return f"paper '{word}' has no method in tier '{tier}'"
    if word.partition("=")[0] in vars(plan.knobs):
        return f"unknown target '{word}': knobs go after --config, as in --config {word}"
    if word.startswith(f"{plan.outputs}/"):
        return f"no rule makes '{word}'{nearest(word, [plan.page, *plan.records('all')])}"
    if "/" in word:
        near = nearest(word, methods)
        near = near if "did you mean" in near else nearest(word.partition("/")[0], plan.targets)
        return f"unknown target '{word}'{near}; {KINDS}"
    return f"unknown target '{word}'{nearest(word, ['all', *plan.targets])}"
