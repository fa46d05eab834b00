"""The leaderboard of a task as data: each method's metrics over its seeds, and their cost.

All values have full precision and are written to JSON unchanged; `tables` formats them.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel

from replications.looks import LOOKS
from replications.records import Cost, ThroughputRecord
from replications.reporting import frame, labels, statistics
from replications.reporting.results import Records
from replications.spec import Paper
from replications.tasks.base import Task

COLUMNS = ["address", "metric", "seed", "value"]
MEANS = ["flops_per_sample", "train_seconds", "samples_per_second", "data_wait", "energy_joules"]
LARGEST = ["parameters", "model_parameters", "peak_memory_bytes"]


class MetricColumn(BaseModel):
    key: str
    title: str
    unit: str
    higher_is_better: bool
    description: str
    decimals: int
    scale: Literal["linear", "log"] = "linear"
    timed: bool = False


class MetricCell(BaseModel):
    """A metric over the finished seeds. `sd` (n - 1) is None for one seed; `half_width` (of the 95 % t
    interval of the mean) is also None if all seeds agree, since a spread of zero tells nothing about the next
    seed.

    On a log scale `mean` is the geometric one and its interval reaches from ``mean / factor`` to ``mean * factor``.
    """

    mean: float
    sd: float | None
    half_width: float | None
    factor: float | None = None
    n: int
    values: dict[int, float]

    @property
    def interval(self) -> tuple[float, float]:
        """Ends of the 95 % interval; the mean twice if there is none."""
        if self.factor is not None:
            return self.mean / self.factor, self.mean * self.factor
        return self.mean - (self.half_width or 0), self.mean + (self.half_width or 0)


class SpeedCell(BaseModel):
    """Throughput, measured in a separate process. Comparable only within its class (device, precision, batch
    size). `background_load` is the share of the machine used by other programs meanwhile, 0 to 1.
    """

    device: str
    precision: str
    batch_size: int
    train_samples_per_second: float | None
    inference_samples_per_second: float | None
    peak_memory_bytes: int | None
    mfu: float | None
    status: str
    background_load: float | None = None

    @property
    def busy(self) -> bool:
        """Whether other programs used so much of the machine that the figures are only lower bounds."""
        return (self.background_load or 0) > labels.BUSY

    @property
    def comparable(self) -> tuple[str, str, int]:
        return self.device, self.precision, self.batch_size


class CostCell(BaseModel):
    """Cost of the runs. Hours are sums over all seeds, failed ones included; the rest are means or maxima of
    seeds.

    A CPU-hour is one hour of one thread, a GPU-hour one hour of one device. `data_wait` is a fraction of the
    training time, `samples_per_second` the mean within the runs, which shared the machine with others.
    """

    device: str
    parameters: int | None
    model_parameters: int | None
    flops_per_sample: float | None
    peak_memory_bytes: int | None
    train_seconds: float | None
    samples_per_second: float | None
    data_wait: float | None
    energy_joules: float | None
    cpu_hours: float | None
    gpu_hours: float | None


class Row(BaseModel):
    """One method. `status` reads ``3/3``, ``2/3, 1 diverged`` or ``missing``.

    `background_load` is the largest share of the machine used by other programs during one of its finished runs.
    """

    address: str
    paper: str
    method: str
    title: str
    paper_title: str
    role: str
    category: str | None
    train_data: str
    test_data: str
    changed_options: str = ""
    status: str
    finished: list[int]
    failed: dict[int, str]
    missing: list[int]
    metrics: dict[str, MetricCell]
    cost: CostCell | None
    speed: SpeedCell | None
    background_load: float | None = None


class Leaderboard(BaseModel):
    """All rows of a task in a tier. `result` is false if the tier is plumbing only.

    `columns` are the task's own metrics, `further` those of some methods that a claim compares or of which a paper
    gives a figure.
    """

    task: str
    title: str
    tier: str
    result: bool
    primary_metric: str
    seeds: list[int]
    columns: list[MetricColumn]
    further: list[MetricColumn] = []
    rows: list[Row]

    def column(self, key: str) -> MetricColumn | None:
        return next((column for column in self.columns if column.key == key), None)

    def sections(self) -> list[tuple[str, list[Row]]]:
        """Rows that may be compared: same protocol category and test data; rows without a run come last."""
        keys = dict.fromkeys((row.category, row.test_data) for row in self.rows if row.finished)
        if len(keys) <= 1:
            (category, test_data) = next(iter(keys), (None, ""))
            return [(heading(test_data, category), self.rows)] if self.rows else []
        sections = [
            (
                heading(key[1], key[0]),
                [r for r in self.rows if (r.category, r.test_data) == key],
            )
            for key in keys
        ]
        rest = [row for row in self.rows if (row.category, row.test_data) not in keys]
        return [*sections, *([("No finished run", rest)] if rest else [])]


def heading(title: str, category: str | None) -> str:
    """``LFW · fold 1 of 10``: title of the set and category of the protocol; the set is named only once."""
    if not category:
        return title
    shown = re.sub(r"^[a-z0-9]+(_[a-z0-9]+)+: ", "", category)  # the set's key repeats its title
    for name in (title, title.partition(",")[0]):
        rest = shown[len(name) :]
        if name and shown.casefold().startswith(name.casefold()) and not rest[:1].isalnum():
            return f"{title}{rest}" if rest[:1] != "," or name == title else f"{title} · {rest[1:].strip()}"
    return " · ".join(filter(None, (title, shown)))


def leaderboards(
    records: Records, papers: Mapping[str, Paper], tasks: Mapping[str, Task], result: bool
) -> list[Leaderboard]:
    """Return one leaderboard for each task that has a row, in the papers' order."""
    table = frame.tidy(records, papers, tasks)
    metrics, costs = metric_cells(table), cost_cells(table)
    rows_of: dict[str, list[Row]] = {}
    for address in records.addresses():
        paper = papers[address.partition("/")[0]]
        row = _row(address, paper, records, metrics.get(address, {}), costs.get(address))
        rows_of.setdefault(paper.task, []).append(row)
    order = [task for task in dict.fromkeys(paper.task for paper in papers.values()) if task in rows_of]
    return [
        _leaderboard(task, tasks[task], rows_of[task], list(_named(task, papers)), records, result) for task in order
    ]


def _named(task: str, papers: Mapping[str, Paper]) -> Iterator[str]:
    """Yield the metrics that the claims and the reported figures of a task's papers name."""
    for paper in papers.values():
        if paper.task == task:
            for claim in paper.claims:
                yield from (side.metric for side in (claim.subject, claim.reference) if side)
            yield from (figure.beside.metric for figure in paper.reported if figure.beside)


def _leaderboard(
    name: str, task: Task, rows: list[Row], named: Sequence[str], records: Records, result: bool
) -> Leaderboard:
    def columns(keys: Iterable[str]) -> list[MetricColumn]:
        reached = [key for key in dict.fromkeys(keys) if any(key in row.metrics for row in rows)]
        return [MetricColumn(key=key, **vars(labels.metric_of(task, key))) for key in reached]

    own = list(task.metrics)  # `in` a Metrics asks for any name that it can make
    sign = -1 if task.metrics[task.primary_metric].higher_is_better else 1

    def order(row: Row) -> tuple:
        cell = row.metrics.get(task.primary_metric)
        role = list(labels.ROLE_TITLES).index(row.role)
        reached = (cell is None, sign * cell.mean if cell else 0)
        return not row.finished, row.category or "", row.test_data, role, *reached, row.address

    return Leaderboard(
        task=name,
        title=task.title,
        tier=records.tier,
        result=result,
        primary_metric=task.primary_metric,
        seeds=list(records.seeds),
        columns=columns(own),
        further=columns(key for key in named if key not in own),
        rows=sorted(rows, key=order),
    )


def _row(address: str, paper: Paper, records: Records, metrics: dict[str, MetricCell], cost: CostCell | None) -> Row:
    runs, finished = records.runs.get(address, {}), records.finished(address)
    failed = {seed: r.reason or "failed" for seed, r in sorted(runs.items()) if r.status == "failed"}
    # Rows stop at different looks: seeds of a later look that other rows took are not missing here.
    begun = min((size for size in LOOKS if size > max(runs, default=0)), default=math.inf)
    asked = [seed for seed in records.seeds if seed < begun]
    missing = [seed for seed in asked if seed not in runs]
    name = address.partition("/")[2]
    first = next(iter({**finished, **runs}.values()), None)
    speed = records.throughput.get(address)
    loads = [r.cost.load_by_others for r in finished.values() if r.cost.load_by_others is not None]
    return Row(
        address=address,
        paper=paper.key or address.partition("/")[0],
        method=name,
        title=paper.methods[name].title,
        paper_title=paper.title,
        role=frame.role(paper, name),
        category=first and labels.category(first),
        train_data=labels.data_name(first, "train") if first else "",
        test_data=labels.data_name(first, "test") if first else "",
        changed_options=labels.changed_options(first) if first else "",
        status=_status(runs, finished, failed, missing, len(asked)),
        finished=list(finished),
        failed=failed,
        missing=missing,
        metrics=metrics,
        cost=cost,
        speed=speed and _speed(speed),
        background_load=max(loads, default=None),
    )


def _status(runs: dict, finished: dict, failed: dict[int, str], missing: list[int], seeds: int) -> str:
    if not runs:
        return "missing"
    parts = [f"{len(finished)}/{seeds}"]
    parts += [f"{count} {reason}" for reason, count in Counter(failed.values()).items()]
    return ", ".join([*parts, *([f"{len(missing)} missing"] if missing else [])])


def metric_cells(table: pd.DataFrame) -> dict[str, dict[str, MetricCell]]:
    """Each method's metrics over those finished runs of the tidy `table` that have them, by address and metric."""
    table = table.dropna(subset="metric").copy()
    # Noise of times and other sizes is a factor; a value of zero has no logarithm.
    lowest = table.groupby(["address", "metric"])["value"].transform("min")
    table["log"] = np.log(table["value"].where((table["scale"] == "log") & (lowest > 0)))
    by_metric = table.groupby(["address", "metric"], sort=False)
    figures = by_metric["value"].agg(mean="mean", sd="std", n="count", max="max", min="min")
    logs = by_metric["log"].agg(["mean", "std"])
    reach = figures["n"].map(lambda n: statistics.t_quantile(0.975, n - 1) / np.sqrt(n) if n > 1 else np.nan)
    varies = figures["sd"] > 1e-12 * figures[["max", "min"]].abs().max(axis=1)
    on_log = logs["mean"].notna()
    figures["mean"] = np.exp(logs["mean"]).where(on_log & varies, figures["mean"])
    figures["half_width"] = (reach * figures["sd"]).where(varies & ~on_log)
    figures["factor"] = np.exp(reach * logs["std"]).where(varies & on_log)
    values: dict[tuple[str, str], dict[int, float]] = {}
    for address, metric, seed, value in zip(*(table[name].tolist() for name in COLUMNS), strict=True):
        values.setdefault((address, metric), {})[seed] = value
    found: dict[str, dict[str, MetricCell]] = {}
    for key, row in figures[["mean", "sd", "half_width", "factor", "n"]].to_dict("index").items():
        found.setdefault(key[0], {})[key[1]] = MetricCell(values=values[key], **known(row))
    return found


def known(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of a pandas table as plain values, with None for NaN."""
    return {name: None if pd.isna(value) else value for name, value in row.items()}


def cost_cells(table: pd.DataFrame) -> dict[str, CostCell]:
    """Return the cost of each method's runs in the tidy `table`, by address."""
    runs = table.drop_duplicates(frame.RUN).sort_values("status", ascending=False, kind="stable")  # finished first
    cost = runs[[f"cost_{name}" for name in Cost.model_fields]].rename(columns=lambda name: name[len("cost_") :])
    cost = cost.astype(float)
    on_cpu = runs["device_kind"] == "cpu"
    hours = cost["total_seconds"] * cost["processes"] * runs["threads"].where(on_cpu, 1).astype(float) / 3600
    spent = pd.DataFrame(
        {"cpu_hours": hours.where(on_cpu), "gpu_hours": hours.where(runs["device_kind"].isin(["cuda", "mps"]))}
    )
    spent = spent.groupby(runs["address"]).sum(min_count=1)
    device = runs["cpu"].where(on_cpu, runs["device"]).fillna("unknown device").groupby(runs["address"]).first()
    cost["data_wait"] = cost["data_wait_seconds"] / cost["train_seconds"].where(cost["train_seconds"] > 0)
    reached = cost[runs["status"] == "finished"].groupby(runs["address"])
    figures = pd.concat([reached[MEANS].mean(), reached[LARGEST].max()], axis=1)
    figures = spent.join(device.rename("device")).join(figures)
    return {address: CostCell(**known(row)) for address, row in figures.to_dict("index").items()}


def _speed(record: ThroughputRecord) -> SpeedCell:
    return SpeedCell(
        device=labels.device_class(record),
        status="measured" if record.status == "finished" else record.reason or "failed",
        **record.model_dump(include=SpeedCell.model_fields.keys() - {"status"}),
    )
