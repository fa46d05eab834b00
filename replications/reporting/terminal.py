"""Print leaderboards and verdicts: with colours and lines on a terminal, as plain text elsewhere."""

import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TextIO

from replications.reporting import labels, tables
from replications.reporting.leaderboard import Leaderboard
from replications.reporting.need import need_summary
from replications.reporting.summary import SYMBOLS, by_paper, counts, marked
from replications.reporting.verdicts import Verdict

PLAIN_WIDTH = 110
STATEMENT_WIDTH = 50  # columns: with less room beside a claim's numbers, its statement goes below them
STYLES = {"reproduced": "green", "contradicted": "bold red", "inconclusive": "blue", "not tested": "dim"}
GAP, INDENT = 2, 4
ADDRESS = re.compile(r"\b[a-z0-9_]+/[a-z0-9_.]+")


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

    Shows the primary metric and as many others as fit the width (default: the terminal's, else ``COLUMNS``, else
    110 columns); the files have all of them.
    """
    from rich.console import Console

    stream = stream or sys.stdout
    if width is None and not stream.isatty():
        width = int(os.environ["COLUMNS"]) if os.environ.get("COLUMNS", "").isdecimal() else PLAIN_WIDTH
    console = Console(file=stream, width=width, highlight=False)
    if stamp:
        console.print(stamp, style="bold red")
    for board in boards:
        _print_board(console, board)
    if not any(board.rows for board in boards):
        console.print("No record yet of these methods.")
    if verdicts:
        _print_tested(console, [v for v in verdicts if v.adjusted != "not tested"])
        # Claims that were not tested are listed only here.
        undecided = [v for v in verdicts if v.adjusted in ("inconclusive", "not tested")]
        reasons = ((f"{v.adjusted}: {_reason(v)}", v) for v in undecided)
        _print_grouped(console, "Undecided, by reason", reasons, lambda v: v.adjusted == "not tested")
        kinds = ((kind, v) for v in verdicts for kind in dict.fromkeys(map(_kind, v.warnings)))
        _print_grouped(console, "Warnings; the page has them in full", kinds)
        _print_counts(console, verdicts)
        if need := need_summary(verdicts):
            for line in _wrapped(need, console.width, 0):
                console.print(line, markup=False, soft_wrap=True)
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
    seeds = titles.index("Seeds")
    essential = {0, seeds, *(i for i, column in enumerate(quality.columns) if column.essential)}
    room = console.width - 2
    narrow = sum(widths[i] + GAP for i in essential) > room
    shown = tables.fitting([width + GAP for width in widths[: seeds + 1]], essential, room)
    console.print(f"\n{quality.title}", style="bold", markup=False)
    if narrow:
        _print_filled(console, [titles[index] for index in shown], {})
    for number, (heading, section) in enumerate(quality.sections):
        console.print(heading, style="italic", markup=False, no_wrap=True, overflow="ellipsis")
        if narrow:
            for cells in [cells for _, cells in section]:
                _print_filled(console, [cells[index].text for index in shown], {})
            continue
        # One table per section with common widths: a heading may then be longer than its column.
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


def _print_tested(console, verdicts: Sequence[Verdict]) -> None:
    """Print a claim's numbers on one line if they fit, and its statement beside them or below."""
    if not verdicts:
        return
    console.print("\nVerdicts (adjusted by Holm within a paper)", style="bold")
    rows = [
        (
            v.address,
            labels.verdict(v.adjusted, v.raw),
            v.effect_text,
            labels.interval(v.interval, v.effect_kind, v.decimals),
        )
        for v in verdicts
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    used = sum(width + GAP for width in widths)
    beside = console.width - used >= STATEMENT_WIDTH
    for v, (address, word, effect, interval) in zip(verdicts, rows, strict=True):
        if used - GAP <= console.width:
            address, word, effect, interval = (
                address.ljust(widths[0]), word.ljust(widths[1]), effect.rjust(widths[2]), interval.ljust(widths[3]),
            )  # fmt: skip
        statement = _wrapped(v.statement, console.width, used if beside else INDENT)
        first = [statement.pop(0).strip()] if beside else []
        _print_filled(console, [address, word, effect, interval, *first], {1: STYLES[v.adjusted]})
        for line in statement:
            console.print(line, markup=False, soft_wrap=True)


def _print_filled(console, parts: Sequence[str], styles: Mapping[int, str]) -> None:
    """Print the parts, as many per line as fit; later lines are indented. `styles` are by index."""
    from rich.text import Text

    line = Text()
    for place, part in enumerate(parts):
        if line and len(line) + GAP + len(part.rstrip()) > console.width:
            console.print(line, soft_wrap=True)
            line = Text(" " * (INDENT - GAP))
        line.append(" " * GAP if line else "").append(part, styles.get(place, ""))
    line.rstrip()
    console.print(line, soft_wrap=True)


def _wrapped(text: str, width: int, left: int) -> list[str]:
    """Wrap a text that begins at column `left`."""
    return textwrap.wrap(text, max(width, left + 20), initial_indent=" " * left, subsequent_indent=" " * left)


def _print_grouped(
    console, title: str, claims: Iterable[tuple[str, Verdict]], named: Callable[[Verdict], bool] = lambda v: True
) -> None:
    """Print texts with the number of claims that share them, most frequent first; and the claims, if `named`."""
    groups: dict[str, list[Verdict]] = {}
    for words, verdict in claims:
        groups.setdefault(words, []).append(verdict)
    if not groups:
        return
    console.print(f"\n{title}", style="bold")
    places = len(str(sum(map(len, groups.values()))))
    for words, own in sorted(groups.items(), key=lambda entry: -len(entry[1])):
        head, *rest = _wrapped(words, console.width, places + GAP)
        lines = [f"{len(own):>{places}}{head[places:]}", *rest]
        if named(own[0]):
            lines += _wrapped(", ".join(v.address for v in own), console.width, places + GAP)
        for line in lines:
            console.print(line, markup=False, soft_wrap=True)


def _reason(v: Verdict) -> str:
    """Return why a claim is undecided or untested, without its numbers and methods, so that claims can be grouped."""
    if v.adjusted == "inconclusive":
        if v.raw != v.adjusted:
            return f"{v.raw} on its own, but not among all claims of its paper (Holm)"
        if v.open and v.interval is not None:
            return f"{v.n} {v.replication} leave room for both answers"
    return "; ".join(dict.fromkeys(ADDRESS.sub("a method", part) for part in v.reason.split("; ")))


def _kind(warning: str) -> str:
    """``versions of torch differ``: a warning without its runs and methods."""
    return ADDRESS.sub("a method", warning.partition(":")[0])


def _print_counts(console, verdicts: Sequence[Verdict]) -> None:
    """Print the number of claims with each verdict, one line per paper."""
    console.print("\nVerdicts in numbers", style="bold")
    rows = [*by_paper(verdicts).items(), ("all", verdicts)]
    name_width = max(len(name) for name, _ in rows)
    titles = {word: word.capitalize() for word in STYLES}
    if name_width + sum(GAP + len(title) for title in titles.values()) + GAP > console.width:
        titles = SYMBOLS
        _print_filled(console, [marked(word) for word in titles], {})
    table = _table(console)
    table.add_column("Paper", no_wrap=True, min_width=name_width)
    for title in titles.values():
        table.add_column(title, justify="right", no_wrap=True)
    for name, own in rows:
        table.add_row(name, *(str(number) for number in counts(own).values()))
    console.print(table)
