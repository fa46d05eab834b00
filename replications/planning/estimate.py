"""Estimated cost of a request: whole seconds and megabytes, for Snakemake's resources.

Seconds come from run records of the same method in the same tier and on the same kind of device: local records, else
published ones, else the task's ``minutes_per_run``. Megabytes come from the disk use of earlier runs of the method and,
for data, from the registry.
"""

import functools
import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from replications import catalogue, running
from replications.archive import record_files
from replications.datasets import registry
from replications.errors import UserError
from replications.measurement.hardware import count_gpus
from replications.planning.job import Job
from replications.planning.plan import Plan
from replications.records import RunRecord, parse

UNKNOWN = -1
START_SECONDS = 4.0  # of a process, of which most imports torch


def run_seconds(plan: Plan, address: str, seeds: str) -> int:
    """Wall seconds of runs, with the starts of their processes; runs already in the work store cost nothing."""
    left = _left(plan, address, seeds)
    spent = alone_seconds(_earlier(plan, address))
    minutes = catalogue.task_tiers(catalogue.find_method(address)[0].task)[plan.knobs.tier].minutes_per_run
    if left and not spent and minutes is None:
        return UNKNOWN
    starts = math.ceil(left / plan.tier.seeds_per_process)
    return math.ceil(starts * START_SECONDS + left * (statistics.median(spent) if spent else 60 * (minutes or 0)))


def published_seconds(plan: Plan, address: str) -> float | None:
    """Seconds of one run by the published records, else by the task; None: unknown.

    They come from other machines, so only their ratios apply to this one.
    """
    spent = alone_seconds(published_records(plan, address))
    minutes = catalogue.task_tiers(catalogue.find_method(address)[0].task)[plan.knobs.tier].minutes_per_run
    if spent:
        return statistics.median(spent)
    return None if minutes is None else 60 * minutes


def alone_seconds(records: Iterable[RunRecord]) -> list[float]:
    """Wall seconds of finished runs, had others left them as many processors as they have threads.

    A run on a CPU that others kept busy had only the rest of its machine: its seconds count by that share. A GPU's
    runs are not corrected, nor those whose load is not known.
    """
    return [
        record.cost.total_seconds * _share(record)
        for record in records
        if record.status == "finished" and record.cost.total_seconds
    ]


def _share(record: RunRecord) -> float:
    about, load = record.provenance, record.cost.background_load
    if about is None or about.device_kind != "cpu" or not about.cpu_count or not load:
        return 1.0
    return min(1.0, (1 - load) * about.cpu_count / min(about.threads or 1, about.cpu_count))


@functools.cache
def published_records(plan: Plan, address: str) -> tuple[RunRecord, ...]:
    """A method's published records in the tier with the unchanged set-up: on this kind of device, else on any.

    They are beside the results folder, or in this checkout.
    """
    places = (Path(plan.knobs.results), catalogue.PACKAGE.parent / "results")
    folders = next(filter(None, (sorted(p.glob(f"published/{plan.knobs.tier}-*")) for p in places)), [])
    for kinds in ((_device_kind(plan),), ("cpu", "cuda", "mps")):
        for folder in folders:
            found = [record for kind in kinds for record in _readable(folder, address, kind)]
            if own := tuple(record for record in found if not record.spec.changes):
                return own
    return ()


def run_megabytes(plan: Plan, address: str, seeds: str) -> int:
    """Disk space of a group of runs: checkpoints, finished weights and records."""
    left = _left(plan, address, seeds)
    folders = (Path(plan.knobs.work) / "runs" / record.fingerprint[:16] for record in _earlier(plan, address))
    kept = [_bytes(folder) for folder in folders if folder.exists()]
    if left and not kept:
        return UNKNOWN
    return math.ceil(left * statistics.median(kept or [0]) / 1e6)


def later(plan: Plan, jobs: Sequence[Job]) -> tuple[int, int, bool] | None:
    """Return the maximum number of runs that further looks add to `jobs`, their seconds, and whether they use a GPU.

    Seconds are summed over runs, times threads on a CPU; negative if unknown.
    """
    found = _later(plan, jobs)
    seconds = [run_seconds(plan, address, ",".join(map(str, seeds))) for address, seeds in found.items()]
    gpu = bool(plan.gpu and count_gpus())
    total = sum(s if gpu else s * plan.threads for s in seconds) if UNKNOWN not in seconds else UNKNOWN
    return (sum(map(len, found.values())), total, gpu) if found else None


def _later(plan: Plan, jobs: Sequence[Job]) -> dict[str, list[int]]:
    """Return the seeds by row that a look may still require after the judging among `jobs`."""
    planned = {path for job in jobs for path in job.output}
    first: dict[str, int] = {}
    for job in jobs:
        if job.rule == "judge" and job.paper:
            for address in plan.open_to(job.paper):
                first[address] = min(first.get(address, len(plan.knobs.passes)), job.look)
    found = {}
    for address, look in first.items():
        seeds = [seed for of_look in plan.knobs.passes[look:] for seed in of_look]
        found[address] = [
            seed
            for seed in seeds
            if plan.record(address, seed) not in planned and not _is_finished(plan, address, seed)
        ]
    return {address: seeds for address, seeds in found.items() if seeds}


def set_megabytes(key: str) -> int:
    """Disk space of a data set: downloads and prepared arrays."""
    about = registry.describe_set(key)
    return math.ceil((about["bytes"] + about["prepared_bytes"]) / 1e6)


def _left(plan: Plan, address: str, seeds: str) -> int:
    """Return the number of runs without a finished record in the work store."""
    return sum(not _is_finished(plan, address, int(seed)) for seed in seeds.split(","))


@functools.cache
def _is_finished(plan: Plan, address: str, seed: int) -> bool:
    try:
        prints = plan.fingerprints(address, seed)
        return running.finished_record(plan.spec(address, seed), prints, Path(plan.knobs.work)) is not None
    except UserError:
        return False  # damaged record: the run is repeated


@functools.cache
def _earlier(plan: Plan, address: str) -> tuple[RunRecord, ...]:
    """Records of a method: those of the results folder, or the published ones if it has none."""
    published = sorted(Path(plan.knobs.results).glob(f"published/{plan.knobs.tier}-*"))
    for folder in (plan.folder, *published):
        found = tuple(_readable(folder, address, _device_kind(plan)))
        if found:
            return found
    return ()


def _readable(folder: Path, address: str, device_kind: str) -> Iterator[RunRecord]:
    for name, read in _files(folder).items():
        if not name.startswith(f"runs/{address}/"):
            continue
        try:
            record = parse(read(), RunRecord, name)
        except UserError:
            continue  # damaged records are ignored here; their runs are repeated
        if record.provenance is None or record.provenance.device_kind == device_kind:
            yield record


@functools.cache
def _files(folder: Path) -> dict[str, Callable[[], bytes]]:
    try:
        return dict(record_files(folder))
    except UserError:
        return {}


@functools.cache
def _device_kind(plan: Plan) -> str:
    return "cuda" if plan.gpu and count_gpus() else "cpu"


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
