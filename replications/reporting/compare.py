"""What differs between two results folders of one tier: two devices, two machines, or before and after a
change.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from pydantic import BaseModel

from replications.archive import ARCHIVE, record_files
from replications.errors import UserError
from replications.records import RunRecord, ThroughputRecord, parse
from replications.reporting import labels, statistics
from replications.reporting.leaderboard import leaderboards
from replications.reporting.load import Records, read_results
from replications.reporting.tables import Cell, Column, Table
from replications.spec import Paper
from replications.tasks.base import Task, find_task


class Difference(BaseModel):
    """A method's metric in both folders; `difference` is second minus first, paired over `n` seeds both have.

    `identical` counts the paired seeds with the same value to the last bit.
    """

    address: str
    task: str
    metric: str
    title: str
    unit: str
    decimals: int
    first: float
    second: float
    difference: float
    half_width: float | None
    n: int
    identical: int


class SpeedRatio(BaseModel):
    """A method's throughput in both folders; `ratio` is second over first. The classes may differ: both are
    named.
    """

    address: str
    first_class: str
    second_class: str
    train_ratio: float | None
    inference_ratio: float | None


class Comparison(BaseModel):
    """Differences of two folders. `notes` say what else differs: code, data, configuration, methods of one
    side.
    """

    tier: str
    differences: list[Difference]
    speeds: list[SpeedRatio]
    notes: list[str]


def tier_of(results: Path) -> str:
    """The tier of the first record below `results`; raises UserError where there is none."""
    for name, read in record_files(results):
        if name.startswith("runs/"):
            return parse(read(), RunRecord, name).spec.tier
    raise UserError(f"no record below {results}: expected runs/<paper>/<method>/seed<k>/run.json there, or {ARCHIVE}")


def compare(
    first: Path, second: Path, papers: Mapping[str, Paper], tasks: Mapping[str, Task] | None = None
) -> Comparison:
    """Compare the records below two folders of the form ``results/<tier>``.

    Raises UserError where a folder has no record or the tiers differ.
    """
    tiers = tier_of(first), tier_of(second)
    if tiers[0] != tiers[1]:
        raise UserError(f"{first} is of tier {tiers[0]}, {second} of tier {tiers[1]}: compare folders of one tier")
    if tasks is None:
        tasks = {name: find_task(name) for name in dict.fromkeys(paper.task for paper in papers.values())}
    sides = [read_results(folder, tiers[0], papers, methods=()) for folder in (first, second)]
    notes = [f"{folder}: {text}" for folder, side in zip((first, second), sides, strict=True) for text in side.problems]
    differences = []
    for board in leaderboards(sides[0], papers, tasks, result=True):
        for row in board.rows:
            pairs = _pairs(sides, row.address, notes)
            for column in board.columns:
                difference = _difference(row.address, board.task, column, pairs)
                if difference is not None:
                    differences.append(difference)
    for one, other, folder in ((0, 1, second), (1, 0, first)):
        lacking = sorted(set(sides[one].runs) - set(sides[other].runs))
        if lacking:
            notes.append(f"{folder} has no record of {', '.join(lacking)}")
    return Comparison(tier=tiers[0], differences=differences, speeds=_speeds(sides), notes=notes)


def _pairs(sides: list[Records], address: str, notes: list[str]) -> list[tuple]:
    runs = [side.finished(address) for side in sides]
    lost = {seed for one, other in ((0, 1), (1, 0)) for seed in runs[one].keys() & sides[other].runs.get(address, {})}
    if lost := lost - (runs[0].keys() & runs[1].keys()):
        notes.append(f"{address}: {labels.seeds(lost)} failed in one folder only and left out")
    pairs = [(runs[0][seed], runs[1][seed]) for seed in sorted(runs[0].keys() & runs[1].keys())]
    for what, key in (
        ("code", lambda r: r.code_fingerprint),
        ("data", lambda r: r.data_fingerprint),
        ("configuration", lambda r: r.spec.canonical_json()),
    ):
        if any(key(a) != key(b) for a, b in pairs):
            notes.append(f"{address}: different {what}")
    return pairs


def _difference(address: str, task: str, column, pairs: list[tuple]) -> Difference | None:
    key = column.key
    both = [(a.metrics[key], b.metrics[key]) for a, b in pairs if key in a.metrics and key in b.metrics]
    if not both:
        return None
    values = np.array(both)
    change = values[:, 1] - values[:, 0]
    return Difference(
        address=address,
        task=task,
        metric=key,
        title=column.title,
        unit=column.unit,
        decimals=column.decimals,
        first=float(values[:, 0].mean()),
        second=float(values[:, 1].mean()),
        difference=float(change.mean()),
        half_width=float(statistics.half_width(change)) if len(change) > 1 and np.ptp(change) > 0 else None,
        n=len(change),
        identical=int((change == 0).sum()),
    )


def _speeds(sides: list[Records]) -> list[SpeedRatio]:
    def ratio(a: float | None, b: float | None) -> float | None:
        return b / a if a and b else None

    made = []
    for address in sorted(sides[0].throughput.keys() & sides[1].throughput.keys()):
        a, b = (side.throughput[address] for side in sides)
        made.append(
            SpeedRatio(
                address=address,
                first_class=_class(a),
                second_class=_class(b),
                train_ratio=ratio(a.train_samples_per_second, b.train_samples_per_second),
                inference_ratio=ratio(a.inference_samples_per_second, b.inference_samples_per_second),
            )
        )
    return made


def _class(record: ThroughputRecord) -> str:
    """Device, precision and batch, and how busy others kept the machine where that spoils the figure."""
    load = record.background_load or 0
    busy = f", {load:.0%} of the machine in use by others" if load > labels.BUSY else ""
    return f"{labels.device_class(record)}, {record.precision}, batch {record.batch_size}{busy}"


def comparison_tables(comparison: Comparison) -> list[Table]:
    """The comparison as tables for `formats` and `terminal`."""
    columns = [
        Column("method", "Method", numeric=False),
        Column("metric", "Metric", numeric=False),
        Column("first", "First"),
        Column("second", "Second"),
        Column("difference", "Second − first"),
        Column("identical", "Identical seeds"),
    ]
    rows = [
        (
            f"{d.address} {d.metric}",
            [
                Cell(d.address),
                Cell(labels.with_unit(d.title, d.unit)),
                Cell(labels.number(d.first, d.decimals), d.first),
                Cell(labels.number(d.second, d.decimals), d.second),
                Cell(_change(d), d.difference),
                Cell(f"{d.identical}/{d.n}", d.identical),
            ],
        )
        for d in comparison.differences
    ]
    note = "Means over the seeds that both have; ± is the half width of the difference's 95 % interval."
    made = [
        Table(
            "differences",
            f"Metrics, tier {comparison.tier}",
            columns,
            [("", rows)],
            [note, *comparison.notes],
        )
    ]
    if comparison.speeds:
        made.append(_speed_table(comparison))
    return made


def _change(d: Difference) -> str:
    text = labels.effect(d.difference, "difference", d.decimals)
    return text if d.half_width is None else f"{text} ± {labels.number(d.half_width, d.decimals)}"


def _speed_table(comparison: Comparison) -> Table:
    columns = [
        Column("method", "Method", numeric=False),
        Column("train", "Training, second / first"),
        Column("inference", "Inference, second / first"),
        Column("first", "First measured on", numeric=False),
        Column("second", "Second measured on", numeric=False),
    ]
    rows = [
        (
            s.address,
            [
                Cell(s.address),
                Cell(labels.effect(s.train_ratio, "ratio") or "–", s.train_ratio),
                Cell(labels.effect(s.inference_ratio, "ratio") or "–", s.inference_ratio),
                Cell(s.first_class),
                Cell(s.second_class),
            ],
        )
        for s in comparison.speeds
    ]
    return Table("speeds", f"Throughput, tier {comparison.tier}", columns, [("", rows)])
