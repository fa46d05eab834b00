"""Counts of verdicts by paper and by task."""

from collections.abc import Mapping, Sequence

from replications.reporting.tables import Cell, Column, Table
from replications.reporting.verdicts import Verdict
from replications.spec import Paper
from replications.tasks.base import Task, find_task

SYMBOLS = {"reproduced": "✓", "contradicted": "✕", "inconclusive": "≈", "not tested": "○"}


def marked(word: str) -> str:
    """``✓ reproduced``: a verdict is never shown by colour alone."""
    return f"{SYMBOLS[word]} {word}"


def by_paper(verdicts: Sequence[Verdict]) -> dict[str, list[Verdict]]:
    """Group verdicts by paper, in order."""
    found: dict[str, list[Verdict]] = {}
    for v in verdicts:
        found.setdefault(v.paper, []).append(v)
    return found


def by_task(verdicts: Sequence[Verdict], papers: Mapping[str, Paper]) -> dict[str, dict[str, list[Verdict]]]:
    """Group verdicts by task, then by paper, in the order of `papers`."""
    of = by_paper(verdicts)
    found = {paper.task: {} for paper in papers.values()}
    for key, paper in papers.items():
        if key in of:
            found[paper.task][key] = of[key]
    return {task: own for task, own in found.items() if own}


def counts(verdicts: Sequence[Verdict]) -> dict[str, int]:
    """Count the verdicts of each kind, zeros included."""
    words = [v.adjusted for v in verdicts]
    return {word: words.count(word) for word in SYMBOLS}


def task_titles(papers: Mapping[str, Paper], tasks: Mapping[str, Task] | None = None) -> dict[str, str]:
    """Return the title of each task of `papers`, by name."""
    names = dict.fromkeys(paper.task for paper in papers.values())
    return {name: (find_task(name) if tasks is None else tasks[name]).title for name in names}


def summary_table(
    verdicts: Sequence[Verdict], papers: Mapping[str, Paper], tasks: Mapping[str, Task] | None = None
) -> Table:
    """Return a section per task, a row per paper with its counts of verdicts. `tasks`: by default the catalogue's."""
    columns = [Column("paper", "Paper", numeric=False, sortable=False)]
    columns += [Column(word, word.capitalize(), sortable=False) for word in SYMBOLS]
    titles = task_titles(papers, tasks)
    sections = [
        (titles[task], [(key, [Cell(key, hint=papers[key].title), *_numbers(own)]) for key, own in of.items()])
        for task, of in by_task(verdicts, papers).items()
    ]
    return Table("summary", "Verdicts by task and paper", columns, sections)


def _numbers(verdicts: Sequence[Verdict]) -> list[Cell]:
    return [Cell(str(number), number) for number in counts(verdicts).values()]
