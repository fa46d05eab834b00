"""All published results in one table: task, data set, metric, the paper's figure beside ours, device and budget."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from replications.records import RunRecord
from replications.reporting import labels
from replications.reporting.leaderboard import Leaderboard, Row
from replications.reporting.results import Records
from replications.reporting.tables import Cell, Column, Table, plus_minus
from replications.reporting.verdicts import Verdict
from replications.spec import TIERS, Paper, Reported

COLUMNS = [
    Column("method", "Method", numeric=False),
    Column("metric", "Metric", numeric=False),
    Column("ours", "Ours", sortable=False, description="mean over seeds and its 95 % t interval; ×/÷ for times"),
    Column("seeds", "Seeds", numeric=False),
    Column("paper", "Paper", sortable=False, description="as the paper, or the source that is named, reports it"),
    Column("of", "The paper's figure is of", numeric=False, wrap=True, sortable=False),
    Column("budget", "Budget of a run", numeric=False, wrap=True, sortable=False),
    Column("device", "Device", numeric=False),
    Column("publication", "Publication", numeric=False),
]
NOTE = (
    "Each row is a method's metric in one publication, below its task and test data. Shown are the task's first "
    "metric, those that a claim compares, and those of which the paper gives a figure. All others are in the "
    "publication's tables. The paper's figure is of its own data and budget, which differ from ours. Verdicts are on "
    "differences within one budget."
)


@dataclass(frozen=True)
class Publication:
    """A publication: its name, records, leaderboards and verdicts."""

    name: str
    records: Records
    boards: Sequence[Leaderboard]
    verdicts: Sequence[Verdict]


def measured_table(publications: Sequence[Publication], papers: Mapping[str, Paper]) -> Table:
    """Return the table: a section for each task and test data, larger tiers first, a row for each metric and method."""
    reported: dict[tuple[str, str], list[Reported]] = {}
    for paper in papers.values():
        for figure in paper.reported:
            if figure.beside:
                reported.setdefault((figure.beside.method, figure.beside.metric), []).append(figure)
    tasks = list(dict.fromkeys(paper.task for paper in papers.values()))
    found = [(board, one) for one in publications for board in one.boards]
    found.sort(key=lambda pair: (tasks.index(pair[0].task), -TIERS.index(pair[0].tier), pair[1].name))
    sections: dict[str, list] = {}
    for board, one in found:
        for heading, rows in board.sections():
            title = f"{board.title}: {heading}"
            sections.setdefault(title, []).extend(_rows(board, rows, one, reported))
    return Table("measured", "All that is published", COLUMNS, [pair for pair in sections.items() if pair[1]], [NOTE])


def _rows(
    board: Leaderboard, rows: Sequence[Row], one: Publication, reported: Mapping[tuple[str, str], list[Reported]]
) -> Iterator[tuple[str, list[Cell]]]:
    claimed = {(v.subject, v.subject_metric) for v in one.verdicts}
    claimed |= {(v.reference, v.reference_metric) for v in one.verdicts}
    for column in [*board.columns, *board.further]:
        for row in rows:
            pair = row.address, column.key
            shown = column.key == board.primary_metric or pair in claimed or pair in reported
            if not shown or column.key not in row.metrics:
                continue
            cell, runs = row.metrics[column.key], list(one.records.finished(row.address).values())
            figures = reported.get(pair, ())
            yield (
                f"{one.name} {row.address} {column.key}",
                [
                    Cell(row.address, hint=row.title),
                    Cell(labels.with_unit(column.title, column.unit)),
                    Cell(plus_minus(cell.mean, cell.half_width, column.decimals, cell.factor), cell.mean),
                    Cell(row.status),
                    Cell("; ".join(f"{f.value:g} {f.unit}".strip() for f in figures) or "–"),
                    Cell("; ".join(f"{f.data}, {f.setting} ({f.where})" for f in figures) or "–"),
                    Cell(_budget(runs)),
                    Cell("; ".join(sorted({_device(record) for record in runs}))),
                    Cell(f"[{one.name}]({one.name}/README.md)"),
                ],
            )


def _budget(runs: Sequence[RunRecord]) -> str:
    """Training steps, samples and hours of one run: means over the seeds."""
    costs = [record.cost for record in runs]

    def mean(name: str) -> float | None:
        known = [getattr(cost, name) for cost in costs if getattr(cost, name) is not None]
        return sum(known) / len(known) if known else None

    steps, samples, seconds = map(mean, ("steps", "samples", "total_seconds"))
    parts = [f"{steps:,.0f} steps" if steps else "no training", samples and f"{labels.short(samples)} samples"]
    size, unit = next((pair for pair in ((3600, "h"), (60, "min")) if (seconds or 0) >= pair[0]), (1, "s"))
    parts.append(seconds and f"{seconds / size:.1f} {unit}")
    return ", ".join(part for part in parts if part)


def _device(record: RunRecord) -> str:
    provenance = record.provenance
    if provenance is None or provenance.device_kind != "cpu":
        return labels.device_class(record)
    return f"{labels.device_class(record)}, {provenance.threads} thread{'s' if provenance.threads > 1 else ''}"
