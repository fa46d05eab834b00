"""Pages on the publications: one page per publication, one table of all, and an overview for docs/publications.md.

All are derived from the publications' records and tables, and regenerated together.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from replications.archive import ARCHIVE
from replications.records import write_atomic
from replications.reporting import formats, labels, report, rerun, site, summary, wording
from replications.reporting.leaderboard import Leaderboard
from replications.reporting.learned import first_line, paragraphs
from replications.reporting.measured import Publication, measured_table
from replications.reporting.publish import compact, write_if_changed
from replications.reporting.results import read_results
from replications.reporting.sections import markers, with_section
from replications.reporting.speeds import PAGE as SPEEDS
from replications.reporting.speeds import read_speeds, speeds_table
from replications.reporting.tables import Cell, Column, Table
from replications.reporting.verdicts import Verdict
from replications.spec import Paper
from replications.tasks.base import Task

SECTION = "published"  # of the README, between its markers
PAGE = "README.md"

RERUN = "In a clone of the suite, set up as its README says (at the commit above, where code has changed since):"
HOLM = (
    "Verdicts are adjusted by Holm over the claims of a paper, intervals are not: where the adjustment takes a verdict "
    "back, the claim's own one stands in brackets."
)


def readme_section(published: Path, root: Path) -> str:
    """Return Markdown of the publications, ordered by name; links are relative to `root`, the README's folder.

    A line for each publication, then every claim that one of them decides.
    """
    found = folders(published)
    if not found:
        return "Nothing is published yet."
    overview, decided = [], []
    for folder in found:
        boards, verdicts = _read(folder)
        link = f"[{folder.name}]({os.path.relpath(folder.resolve(), Path(root).resolve())})"
        rows = [row for board in boards for row in board.rows if row.finished]
        runs = sum(len(row.finished) for row in rows)
        tasks = ", ".join(board.title for board in boards if board.rows)
        cells = [link, tasks, f"{len(rows)} rows, {runs} runs", *map(str, summary.counts(verdicts).values())]
        overview.append((folder.name, [Cell(text) for text in cells]))
        decided += [
            (verdict.address, [Cell(text) for text in (*_claim_texts(verdict), link)])
            for verdict in verdicts
            if verdict.decided
        ]
    columns = [Column(name, name.capitalize(), numeric=False) for name in ("publication", "task", "made of")]
    columns += [Column(word, word.capitalize()) for word in summary.SYMBOLS]
    made = [Table("publications", "Publications", columns, [("", overview)])]
    if decided:
        columns = [*_claim_columns(), Column("publication", "Publication", numeric=False)]
        made.append(Table("decided", "What they decide", columns, [("", decided)], [HOLM]))
    return formats.to_markdown(made, level=3).rstrip()


def update_readme(readme: Path, published: Path) -> None:
    """Regenerate the file's section between its two markers.

    Raises UserError if a marker is missing.
    """
    readme = Path(readme)
    text = readme.read_text(encoding="utf-8")
    text = with_section(readme, text, SECTION, readme_section(published, readme.resolve().parent))
    write_atomic(readme, text.encode())


def update(
    published: Path,
    papers: Mapping[str, Paper],
    *,
    tasks: Mapping[str, Task] | None = None,
    describe_set: Callable[[str], Mapping] | None = None,
) -> None:
    """Regenerate the files and the page of every publication, and the pages on all of them beside their folders.

    Older formats are converted to the current one; the content of the records is unchanged.
    """
    for folder in folders(published):
        compact(folder, papers, tasks=tasks, describe_set=describe_set)
    if published.exists():
        for name, text in all_pages(published, papers).items():
            write_if_changed(published / name, text)


def all_pages(published: Path, papers: Mapping[str, Paper]) -> dict[str, str]:
    """Return the pages by path below `published`: Markdown of each publication, Markdown and HTML of all together."""
    found = [_publication(folder, papers) for folder in folders(published)]
    table = measured_table(found, papers)
    measured = speeds_table(list(read_speeds(published, found)))
    readme = published / PAGE
    empty = "\n".join(("# Publications\n", *markers(SECTION), ""))
    text = readme.read_text(encoding="utf-8") if readme.exists() else empty
    html = site.render(
        "publications.html.jinja",
        title="Replications: publications",
        subtitle=f"{len(found)} publications, {sum(len(rows) for _, rows in table.sections)} figures.",
        stamp="",
        table=table,
        speeds=measured,
    )
    return {
        PAGE: with_section(readme, text, SECTION, formats.to_markdown([table]).rstrip()),
        SPEEDS: f"# Speeds by card\n\n{formats.to_markdown([measured])}",
        site.INDEX: html,
        **{f"{one.name}/{PAGE}": _page(one, papers, published / one.name) for one in found},
    }


def _publication(folder: Path, papers: Mapping[str, Paper]) -> Publication:
    tier = json.loads((folder / report.MANIFEST).read_text(encoding="utf-8"))["tier"]
    return Publication(folder.name, read_results(folder, tier, papers, methods=()), *_read(folder))


def _page(one: Publication, papers: Mapping[str, Paper], folder: Path) -> str:
    """Return the page of a publication: short forms of its tables, and the plot of its claims."""
    runs = [record.provenance for of in one.records.runs.values() for record in of.values() if record.provenance]
    commits = sorted({run.commit[:9] for run in runs if run.commit})
    intro = (
        f"Tier {one.records.tier}. Code: {', '.join(commits) or 'unknown commit'}. Records are in `{ARCHIVE}`, a line "
    )
    intro += "of JSON each; the tables beside this page have all columns. [All publications](../README.md)."
    blocks = [f"# {one.name}", intro]
    table = measured_table([one], papers)
    sections = [(title, [(key, cells[:-1]) for key, cells in rows]) for title, rows in table.sections]
    shown = [replace(table, title="Measured", columns=table.columns[:-1], sections=sections)]
    if one.verdicts:
        rows = [(verdict.address, [Cell(text) for text in _claim_texts(verdict)]) for verdict in one.verdicts]
        blocks.append(first_line(one.verdicts))
        shown.append(Table("claims", "Claims", _claim_columns(), [("", rows)], [HOLM]))
    blocks.append(formats.to_markdown(shown).rstrip())
    learned = [f"**{papers[key].title}**. {' '.join(texts)}" for key, texts in paragraphs(one.verdicts, papers).items()]
    blocks += ["## What was learned", *learned] if learned else []
    if (folder / "plots" / "claims.svg").exists():
        blocks.append("![Effects and intervals of the claims](plots/claims.svg)")
    if again := rerun.commands(one.records):
        again += rerun.comparison(one.records, Path("results") / folder.parent.name / one.name)
        blocks += ["## Rerun", RERUN, "\n".join(["```", *again, "```"])]
    return "\n\n".join(blocks) + "\n"


def folders(published: Path) -> list[Path]:
    """Return the folders of the publications, ordered by name."""
    return sorted(path.parent for path in Path(published).glob(f"*/{report.MANIFEST}"))


def _read(folder: Path) -> tuple[list[Leaderboard], list[Verdict]]:
    boards = [Leaderboard.model_validate_json(path.read_bytes()) for path in sorted(folder.glob("leaderboard_*.json"))]
    stored = json.loads((folder / "claims.json").read_text(encoding="utf-8"))["verdicts"]
    return boards, [Verdict.model_validate(one) for one in stored]


def _claim_columns() -> list[Column]:
    columns = [Column(name.lower(), name, numeric=False) for name in ("Claim", "Statement", "Verdict")]
    return columns + [Column(name.lower(), name) for name in ("Effect", "95 % interval", "Paper's effect")]


def _claim_texts(v: Verdict) -> Sequence[str]:
    """Return the cells of a claim, in the order of `_claim_columns`."""
    kind, decimals = v.effect_kind, v.decimals
    verdict = labels.verdict(v.adjusted, v.raw) + wording.earlier(v)
    return (
        v.address,
        v.statement,
        f"{v.adjusted}: {v.reason}" if v.adjusted == "not tested" else verdict,
        v.effect_text,
        labels.interval(v.interval, kind, decimals),
        labels.effect(v.reported_effect, kind, decimals) or "–",
    )
