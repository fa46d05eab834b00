"""The leaderboard of a task as data: what every method reached over its seeds, and what that cost.

Everything here is full precision and goes to JSON as it is; `tables` makes it readable.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
from pydantic import BaseModel

from replications.records import RunRecord, ThroughputRecord
from replications.reporting import labels, statistics
from replications.reporting.load import Records
from replications.spec import Paper
from replications.tasks.base import Task


class MetricColumn(BaseModel):
    key: str
    title: str
    unit: str
    higher_is_better: bool
    description: str
    decimals: int
    timed: bool = False


class MetricCell(BaseModel):
    """A metric over the finished seeds. `sd` (n - 1) is None for one seed; `half_width` (of the 95 % t
    interval of the mean) also where all seeds agree, since a spread of zero says nothing about the next
    seed's."""

    mean: float
    sd: float | None
    half_width: float | None
    n: int
    values: dict[int, float]


class SpeedCell(BaseModel):
    """Throughput, measured in a process of its own. Comparable only within its class (device, precision, batch
    size). `background_load` is the share of the machine that others used meanwhile, 0 to 1.
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
        """Whether others used so much of the machine that the figures are no more than lower bounds."""
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

    `background_load` is the largest share of the machine that others used during one of its finished runs.
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
    """All rows of a task in a tier. `result` is false where the tier is plumbing only."""

    task: str
    title: str
    tier: str
    result: bool
    primary_metric: str
    seeds: list[int]
    columns: list[MetricColumn]
    rows: list[Row]

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
    """``LFW · fold 1 of 10``: a set's title and the protocol's category, which often names the set itself, once."""
    if not category:
        return title
    told = re.sub(r"^[a-z0-9]+(_[a-z0-9]+)+: ", "", category)  # a set's key says no more than its title
    for name in (title, title.partition(",")[0]):
        rest = told[len(name) :]
        if name and told.casefold().startswith(name.casefold()) and not rest[:1].isalnum():
            return f"{title}{rest}" if rest[:1] != "," or name == title else f"{title} · {rest[1:].strip()}"
    return " · ".join(filter(None, (title, told)))


def leaderboards(
    records: Records, papers: Mapping[str, Paper], tasks: Mapping[str, Task], result: bool
) -> list[Leaderboard]:
    """Return one leaderboard for each task that has a row, in the papers' order."""
    rows_of: dict[str, list[Row]] = {}
    for address in records.addresses():
        paper = papers[address.partition("/")[0]]
        rows_of.setdefault(paper.task, []).append(_row(address, paper, records))
    made = []
    for task in dict.fromkeys(paper.task for paper in papers.values()):
        if task in rows_of:
            made.append(_leaderboard(task, tasks[task], rows_of[task], records, result))
    return made


def _leaderboard(name: str, task: Task, rows: list[Row], records: Records, result: bool) -> Leaderboard:
    columns = []
    for key, metric in task.metrics.items():
        if any(key in row.metrics for row in rows):
            columns.append(
                MetricColumn(
                    key=key,
                    title=metric.title,
                    unit=metric.unit,
                    higher_is_better=metric.higher_is_better,
                    description=metric.description,
                    decimals=metric.decimals,
                    timed=metric.timed,
                )
            )
    sign = -1 if task.metrics[task.primary_metric].higher_is_better else 1

    def order(row: Row) -> tuple:
        cell = row.metrics.get(task.primary_metric)
        role = list(labels.ROLE_TITLES).index(row.role)
        return (
            not row.finished,
            row.category or "",
            row.test_data,
            role,
            cell is None,
            sign * cell.mean if cell else 0,
            row.address,
        )

    return Leaderboard(
        task=name,
        title=task.title,
        tier=records.tier,
        result=result,
        primary_metric=task.primary_metric,
        seeds=list(records.seeds),
        columns=columns,
        rows=sorted(rows, key=order),
    )


def _row(address: str, paper: Paper, records: Records) -> Row:
    runs = records.runs.get(address, {})
    finished = records.finished(address)
    failed = {seed: r.reason or "failed" for seed, r in sorted(runs.items()) if r.status == "failed"}
    missing = [seed for seed in records.seeds if seed not in runs]
    method = paper.methods[address.partition("/")[2]]
    first = next(iter({**finished, **runs}.values()), None)
    keys = dict.fromkeys(key for record in finished.values() for key in record.metrics)
    return Row(
        address=address,
        paper=paper.key or address.partition("/")[0],
        method=address.partition("/")[2],
        title=method.title,
        paper_title=paper.title,
        role="baseline" if paper.role == "baseline" and method.role == "method" else method.role,
        category=first and labels.category(first),
        train_data=labels.data_name(first, "train") if first else "",
        test_data=labels.data_name(first, "test") if first else "",
        changed_options=labels.changed_options(first) if first else "",
        status=_status(runs, finished, failed, missing, len(records.seeds)),
        finished=list(finished),
        failed=failed,
        missing=missing,
        metrics={key: metric_cell(finished, key) for key in keys},
        cost=_cost(runs, finished),
        speed=_speed(records.throughput.get(address)),
        background_load=_max(record.cost.load_by_others for record in finished.values()),
    )


def _status(runs: dict, finished: dict, failed: dict[int, str], missing: list[int], seeds: int) -> str:
    if not runs:
        return "missing"
    parts = [f"{len(finished)}/{seeds}"]
    parts += [f"{count} {reason}" for reason, count in Counter(failed.values()).items()]
    return ", ".join([*parts, *([f"{len(missing)} missing"] if missing else [])])


def metric_cell(finished: Mapping[int, RunRecord], key: str) -> MetricCell:
    """The metric over those finished runs that have it."""
    values = {seed: record.metrics[key] for seed, record in finished.items() if key in record.metrics}
    array = np.array(list(values.values()))
    sd = float(array.std(ddof=1)) if len(array) > 1 else None
    varies = sd is not None and sd > 1e-12 * abs(array).max()
    return MetricCell(
        mean=float(array.mean()),
        sd=sd,
        half_width=float(statistics.half_width(array)) if varies else None,
        n=len(array),
        values=values,
    )


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _max(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _cost(runs: Mapping[int, RunRecord], finished: Mapping[int, RunRecord]) -> CostCell | None:
    if not runs:
        return None
    costs = [record.cost for record in finished.values()]
    hours = {"cpu": [], "gpu": []}
    for record in runs.values():
        if record.cost.total_seconds is not None and record.provenance is not None:
            on_cpu = record.provenance.device_kind == "cpu"
            units = record.cost.processes * (record.provenance.threads if on_cpu else 1)
            hours["cpu" if on_cpu else "gpu"].append(record.cost.total_seconds * units / 3600)
    waits = [
        c.data_wait_seconds / c.train_seconds for c in costs if c.data_wait_seconds is not None and c.train_seconds
    ]
    return CostCell(
        device=labels.device_class(next(iter({**finished, **runs}.values()))),
        parameters=_max(c.parameters for c in costs),
        model_parameters=_max(c.model_parameters for c in costs),
        flops_per_sample=_mean(c.flops_per_sample for c in costs),
        peak_memory_bytes=_max(c.peak_memory_bytes for c in costs),
        train_seconds=_mean(c.train_seconds for c in costs),
        samples_per_second=_mean(c.samples_per_second for c in costs),
        data_wait=_mean(waits),
        energy_joules=_mean(c.energy_joules for c in costs),
        cpu_hours=sum(hours["cpu"]) if hours["cpu"] else None,
        gpu_hours=sum(hours["gpu"]) if hours["gpu"] else None,
    )


def _speed(record: ThroughputRecord | None) -> SpeedCell | None:
    if record is None:
        return None
    return SpeedCell(
        device=labels.device_class(record),
        precision=record.precision,
        batch_size=record.batch_size,
        train_samples_per_second=record.train_samples_per_second,
        inference_samples_per_second=record.inference_samples_per_second,
        peak_memory_bytes=record.peak_memory_bytes,
        mfu=record.mfu,
        status="measured" if record.status == "finished" else record.reason or "failed",
        background_load=record.background_load,
    )
