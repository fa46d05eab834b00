"""The leaderboard and the verdicts in the terminal: colours and lines on a terminal, plain text elsewhere."""

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TextIO

from replications.reporting import labels, tables
from replications.reporting.leaderboard import Leaderboard
from replications.reporting.summary import by_paper, counts
from replications.reporting.verdicts import Verdict

PLAIN_WIDTH = 110
STATEMENT_WIDTH = 95  # below it the claims' statements are left to the files
STYLES = {"reproduced": "green", "contradicted": "bold red", "inconclusive": "blue", "not tested": "dim"}
GAP = 2


def print_report(
    boards: Sequence[Leaderboard],
    verdicts: Sequence[Verdict],
    problems: Sequence[str],
    files: Iterable[Path],
    stamp: str = "",
    stream: TextIO | None = None,
    width: int | None = None,
) -> None:
    """Print leaderboards, verdicts, problems and file paths to `stream` (default: standard output).

    Of the metrics, the primary one and as many others as fit the width (default: the terminal's, else that of
    ``COLUMNS``, else 110 columns) are shown; the files hold all.
    """
    from rich.console import Console

    stream = stream or sys.stdout
    if width is None and not stream.isatty():
        width = int(os.environ["COLUMNS"]) if os.environ.get("COLUMNS", "").isdigit() else PLAIN_WIDTH
    console = Console(file=stream, width=width, highlight=False)
    if stamp:
        console.print(stamp, style="bold red")
    for board in boards:
        _print_board(console, board)
    if not any(board.rows for board in boards):
        console.print("No record yet: make them with 'snakemake --cores all'.")
    if verdicts:
        _print_verdicts(console, verdicts)
        _print_counts(console, verdicts)
    for problem in problems:
        console.print(f"problem: {problem}", style="red", markup=False, soft_wrap=True)
    for path in files:
        shown = os.path.relpath(path)
        console.print(str(path) if shown.startswith("..") else shown, markup=False, soft_wrap=True)


def _table(console, **options):
    from rich import box
    from rich.table import Table

    return Table(
        box=box.SIMPLE_HEAD if console.is_terminal else None,
        padding=(0, GAP, 0, 0),
        pad_edge=False,
        **options,
    )


def _print_board(console, board: Leaderboard) -> None:
    from rich.text import Text

    quality = tables.quality_table(board)
    titles = [column.title for column in quality.columns]
    rows = [cells for _, section in quality.sections for _, cells in section]
    widths = [max(len(text) for text in [title, *(c[i].text for c in rows)]) for i, title in enumerate(titles)]
    first, seeds = 0, titles.index("Seeds")
    primary = [c.key for c in quality.columns].index(board.primary_metric) if board.columns else None
    shown = [first, *([primary] if primary is not None else []), seeds]
    room = console.width - sum(widths[i] + GAP for i in shown) - 2
    for index in range(1, seeds):
        if index not in shown and widths[index] + GAP <= room:
            shown.append(index)
            room -= widths[index] + GAP
    shown.sort()
    console.print(f"\n{quality.title}", style="bold", markup=False)
    for number, (heading, section) in enumerate(quality.sections):
        # One table a section, all of the same widths: a heading may then be longer than its column.
        console.print(heading, style="italic", markup=False, no_wrap=True, overflow="ellipsis")
        table = _table(console, show_header=number == 0)
        for index in shown:
            table.add_column(
                titles[index],
                justify="right" if quality.columns[index].numeric else "left",
                no_wrap=index != seeds,
                min_width=min(widths[index], 40),
            )
        for _, cells in section:
            table.add_row(*(Text(cells[index].text) for index in shown))
        console.print(table)


def _print_verdicts(console, verdicts: Sequence[Verdict]) -> None:
    from rich.text import Text

    console.print("\nVerdicts (adjusted by Holm within a paper)", style="bold")
    table = _table(console)
    wide = console.width >= STATEMENT_WIDTH
    for title in ("Claim", "Verdict", "Effect", "95 % interval"):
        table.add_column(title, no_wrap=True, justify="right" if title == "Effect" else "left")
    if wide:
        table.add_column("Statement")
    for v in verdicts:
        interval = labels.interval(v.interval, v.effect_kind, v.decimals)
        cells = [v.address, labels.verdict(v.adjusted, v.raw), v.effect_text, interval]
        if wide:
            cells.append(v.statement if v.adjusted != "not tested" else f"{v.statement} ({v.reason})")
        table.add_row(*(Text(cell, style=STYLES[v.adjusted] if cell is cells[1] else "") for cell in cells))
    console.print(table)


def _print_counts(console, verdicts: Sequence[Verdict]) -> None:
    """One line a paper: how many of its claims have each verdict."""
    console.print("\nVerdicts in numbers", style="bold")
    table = _table(console)
    rows = [*by_paper(verdicts).items(), ("all", verdicts)]
    table.add_column("Paper", no_wrap=True, min_width=max(len(name) for name, _ in rows))
    for word in STYLES:
        table.add_column(word.capitalize(), justify="right", overflow="fold")
    for name, own in rows:
        table.add_row(name, *(str(number) for number in counts(own).values()))
    console.print(table)
