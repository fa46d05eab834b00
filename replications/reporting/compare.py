"""The differences between two results folders of one tier: two devices, two machines, or before and after a
change.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from replications.errors import UserError
from replications.records import ThroughputRecord
from replications.reporting import frame, labels
from replications.reporting.agreement import Agreement, agreement, agreement_table
from replications.reporting.leaderboard import metric_cells
from replications.reporting.results import Records, read_results, tasks_of, tier_of
from replications.reporting.tables import Cell, Column, Table, number
from replications.spec import Paper
from replications.tasks.base import Task

PAIR = [*frame.RUN, "metric"]
RATES = ("train_samples_per_second", "inference_samples_per_second")
SAME = {"code_fingerprint": "code", "data_fingerprint": "data", "config_fingerprint": "configuration"}


@dataclass
class Comparison:
    """Two folders, paired over their common seeds.

    `differences` has a row for each method and metric: ``first`` and ``second`` (means), and ``change``, of `kind`
    ``difference`` (second minus first) with the ``half_width`` of its interval or, on a log scale, ``ratio`` (second
    over first) with its ``factor``; of ``n`` pairs ``identical`` have the same value to the last bit. `speeds` has a
    row for each method with ``train_ratio`` and ``inference_ratio``, second over first; the classes may differ: both
    are named. `notes` list what else differs: code, data, configuration, methods in one folder only.
    `verdicts` compares the verdicts of the two.
    """

    tier: str
    differences: pd.DataFrame
    speeds: pd.DataFrame
    notes: list[str]
    verdicts: Agreement


def compare(
    first: Path, second: Path, papers: Mapping[str, Paper], tasks: Mapping[str, Task] | None = None
) -> Comparison:
    """Compare the records below two folders of the form ``results/<tier>``.

    Raises UserError if a folder has no record or the tiers differ.
    """
    tiers = tier_of(first), tier_of(second)
    if tiers[0] != tiers[1]:
        raise UserError(f"{first} is of tier {tiers[0]}, {second} of tier {tiers[1]}: compare folders of one tier")
    tasks = tasks or tasks_of(papers)
    sides = [read_results(folder, tiers[0], papers, methods=()) for folder in (first, second)]
    notes = [f"{folder}: {text}" for folder, side in zip((first, second), sides, strict=True) for text in side.problems]
    runs = [frame.tidy(side, papers, tasks) for side in sides]
    notes += _lost(*runs)
    both = pd.merge(*(side.dropna(subset="metric") for side in runs), on=PAIR, suffixes=("_first", "_second"))
    notes += _changed(both)
    for one, other, folder in ((0, 1, second), (1, 0, first)):
        lacking = sorted(set(sides[one].runs) - set(sides[other].runs))
        if lacking:
            notes.append(f"{folder} has no record of {', '.join(lacking)}")
    found = agreement((sides[0], sides[1]), papers, tasks)
    return Comparison(tiers[0], _differences(both, tasks), _speeds(sides), notes, found)


def _lost(*sides: pd.DataFrame) -> list[str]:
    """Return notes on runs that both folders have but that finished in only one."""
    one, other = (side.drop_duplicates(frame.RUN) for side in sides)
    runs = one.merge(other, on=frame.RUN, suffixes=("_first", "_second"))
    lost = runs[runs["status_first"] != runs["status_second"]]
    return [
        f"{address}: {labels.seeds(own['seed'])} failed in one folder only and left out"
        for address, own in lost.groupby("address")
    ]


def _changed(both: pd.DataFrame) -> list[str]:
    """Return notes on methods whose code, data or configuration differ."""
    notes = []
    for address, own in both.groupby("address"):
        differs = {what: (own[f"{name}_first"] != own[f"{name}_second"]).any() for name, what in SAME.items()}
        notes += [f"{address}: different {what}" for what, found in differs.items() if found]
    return notes


def _differences(both: pd.DataFrame, tasks: Mapping[str, Task]) -> pd.DataFrame:
    """Return a row for each method and metric of its task: mean change, interval and number of pairs."""
    if both.empty:
        return pd.DataFrame()
    by_metric = [both["address"], both["metric"]]
    lowest = both[["value_first", "value_second"]].min(axis=1).groupby(by_metric).transform("min")
    log = both["scale_first"].eq("log") & (lowest > 0)
    scaled = both[PAIR].assign(scale=np.where(log, "log", "linear"))
    first, second = both["value_first"], both["value_second"]
    change = np.where(log, second / first.where(log, 1), second - first)
    cells, *sides = (metric_cells(scaled.assign(value=values)) for values in (change, first, second))
    task_of = dict(zip(both["address"], both["task_first"], strict=True))
    rows = []
    for address, own in cells.items():
        for name, metric in tasks[task_of[address]].metrics.items():
            if name not in own:
                continue
            cell, is_log = own[name], log[(both["address"] == address) & (both["metric"] == name)].all()
            unchanged = 1.0 if is_log else 0.0
            rows.append({
                "address": address, "task": task_of[address], "metric": name, "title": metric.title,
                "unit": metric.unit, "decimals": metric.decimals,
                "first": sides[0][address][name].mean, "second": sides[1][address][name].mean,
                "kind": "ratio" if is_log else "difference", "change": cell.mean,
                "half_width": cell.half_width, "factor": cell.factor, "n": cell.n,
                "identical": sum(value == unchanged for value in cell.values.values()),
            })  # fmt: skip
    return pd.DataFrame(rows)


def _speeds(sides: list[Records]) -> pd.DataFrame:
    rows = []
    for address in sorted(sides[0].throughput.keys() & sides[1].throughput.keys()):
        a, b = (side.throughput[address] for side in sides)
        rates = [(getattr(a, name), getattr(b, name)) for name in RATES]
        ratios = [y / x if x and y else None for x, y in rates]
        rows.append((address, *ratios, _class(a), _class(b)))
    columns = ["address", "train_ratio", "inference_ratio", "first_class", "second_class"]
    return pd.DataFrame(rows, columns=columns)


def _class(record: ThroughputRecord) -> str:
    """Device, precision and batch size, and the load by other programs if it makes the figure unreliable."""
    load = record.background_load or 0
    busy = f", {load:.0%} of the machine in use by others" if load > labels.BUSY else ""
    return f"{labels.device_class(record)}, {record.precision}, batch {record.batch_size}{busy}"


def comparison_tables(comparison: Comparison) -> list[Table]:
    """The comparison as tables for `formats` and `terminal`."""
    method = Column("method", "Method", numeric=False, cell=lambda row: Cell(row.address))
    values = [
        method,
        Column("metric", "Metric", numeric=False, cell=lambda d: Cell(labels.with_unit(d.title, d.unit))),
        Column("first", "First", cell=lambda d: Cell(labels.number(d.first, d.decimals), d.first)),
        Column("second", "Second", cell=lambda d: Cell(labels.number(d.second, d.decimals), d.second)),
        Column("change", "Second − first, or second / first", cell=lambda d: Cell(_change(d), d.change)),
        Column("identical", "Identical seeds", cell=lambda d: Cell(f"{d.identical}/{d.n}", d.identical)),
    ]
    rates = [
        method,
        Column("train", "Training, second / first", cell=lambda s: _ratio(s.train_ratio)),
        Column("inference", "Inference, second / first", cell=lambda s: _ratio(s.inference_ratio)),
        Column("first", "First measured on", numeric=False, cell=lambda s: Cell(s.first_class)),
        Column("second", "Second measured on", numeric=False, cell=lambda s: Cell(s.second_class)),
    ]
    note = (
        "Means over the seeds that both have; ± is the half width of the difference's 95 % interval. Sizes whose noise "
        "is a factor, such as times, have geometric means and a ratio with the factor of its interval."
    )
    tables = [
        Table("differences", f"Metrics, tier {comparison.tier}", values, notes=[note, *comparison.notes]),
        Table("speeds", f"Throughput, tier {comparison.tier}", rates),
    ]
    tables[0].fill([("", [(f"{d.address} {d.metric}", d) for d in comparison.differences.itertuples()])])
    tables[1].fill([("", [(s.address, s) for s in comparison.speeds.itertuples()])])
    return [agreement_table(comparison.verdicts), *(tables if len(comparison.speeds) else tables[:1])]


def _ratio(value: float) -> Cell:
    return number(None if pd.isna(value) else value, lambda ratio: labels.effect(ratio, "ratio"))


def _change(d: Any) -> str:
    if d.kind == "ratio":
        text = labels.effect(d.change, "ratio", max(3, d.decimals))
        return text if pd.isna(d.factor) else f"{text} ×/÷ {d.factor:.2f}"
    text = labels.effect(d.change, "difference", d.decimals)
    return text if pd.isna(d.half_width) else f"{text} ± {labels.number(d.half_width, d.decimals)}"
