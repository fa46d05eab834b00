"""Read a tier's folder of records. Unreadable records are reported, never dropped silently."""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from replications.archive import ARCHIVE, record_files
from replications.errors import UserError
from replications.looks import LOOKS
from replications.records import SCHEMA_VERSION, RunRecord, ThroughputRecord, parse
from replications.reporting import comparable, labels
from replications.spec import Paper
from replications.tasks.base import Task, find_task


@dataclass
class Records:
    """The records of ``results/<tier>``: runs by address and seed, throughput by address, problems as
    sentences.

    `seeds` are the seeds that each method should have, `expected` the addresses that should have a row.
    """

    tier: str
    runs: dict[str, dict[int, RunRecord]] = field(default_factory=dict)
    throughput: dict[str, ThroughputRecord] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    seeds: tuple[int, ...] = ()
    expected: tuple[str, ...] = ()

    def finished(self, address: str) -> dict[int, RunRecord]:
        """The method's finished runs by seed."""
        return {s: r for s, r in sorted(self.runs.get(address, {}).items()) if r.status == "finished"}

    def addresses(self) -> list[str]:
        """All methods that have a row, or should have one."""
        return sorted({*self.runs, *self.throughput, *self.expected})


def tier_of(results: Path) -> str:
    """Return the tier of the first record below `results`; raises UserError if there is none."""
    for name, read in record_files(results):
        if name.startswith("runs/"):
            return parse(read(), RunRecord, name).spec.tier
    raise UserError(f"no record below {results}: expected runs/<paper>/<method>/seed<k>/run.json there, or {ARCHIVE}")


def tasks_of(papers: Mapping[str, Paper]) -> dict[str, Task]:
    """The tasks of `papers` by name."""
    return {name: find_task(name) for name in dict.fromkeys(paper.task for paper in papers.values())}


def read_results(
    results: Path,
    tier: str,
    papers: Mapping[str, Paper],
    methods: Collection[str] | None = None,
    seeds: int | None = None,
    names: Collection[str] | None = None,
) -> Records:
    """Read every record below `results` (the folder ``results/<tier>``, or a publication).

    `methods` are the addresses that should be there: by default every method of `papers` that runs in the
    tier. `seeds` is how many seeds each should have; by default the seeds that any method has. `names` are the
    records to read, by path below `results`; by default all.
    """
    if methods is None:
        methods = [f"{p}/{m}" for p, paper in papers.items() for m, x in paper.methods.items() if tier in x.tiers]
    records = Records(tier=tier, expected=tuple(sorted(methods)))
    for name, read in record_files(results):
        if names is not None and name not in names:
            continue
        add = _add_run if name.startswith("runs/") else _add_throughput
        try:
            add(records, name, read(), papers)
        except UserError as error:
            records.problems.append(str(error).replace(f"{results}/", ""))
    found = {seed for runs in records.runs.values() for seed in runs}
    records.seeds = tuple(sorted(found | set(range(seeds or 0))))
    for address, runs in records.runs.items():
        _leave_out_later(records, address, runs)
        if different := comparable.within(list(runs.values())):
            records.problems.append(f"{address}: its seeds differ in their {different}")
    return records


def _leave_out_later(records: Records, address: str, runs: dict[int, RunRecord]) -> None:
    """Leave out seeds of later looks whose code, data, set-up or device differs from the first look's.

    Such records remain if the first look was rerun and no claim needs more seeds of the row.
    """
    first = [record for seed, record in runs.items() if seed < LOOKS[0]]
    if not first or comparable.within(first):
        return
    other = {seed: comparable.within([first[0], runs[seed]]) for seed in runs if seed >= LOOKS[0]}
    if stale := sorted(seed for seed, different in other.items() if different):
        message = f"{labels.seeds(stale)} left out, not of the first look's {other[stale[0]]}"
        records.problems.append(f"{address}: {message} (run again, or delete what is left out)")
    for seed in stale:
        del runs[seed]


def _known(address: str, papers: Mapping[str, Paper]) -> bool:
    paper, _, method = address.partition("/")
    return paper in papers and method in papers[paper].methods


def _add_run(records: Records, short: str, text: bytes, papers: Mapping[str, Paper]) -> None:
    _, paper, method, folder, _ = short.split("/")
    address, record = f"{paper}/{method}", parse(text, RunRecord, short)
    spec = record.spec
    if (spec.address, f"seed{spec.seed}", spec.tier) != (address, folder, records.tier):
        records.problems.append(
            f"{short} is of {spec.address}, seed {spec.seed}, tier {spec.tier}: left out (delete it)"
        )
    elif not _known(address, papers):
        records.problems.append(f"{short} is of no known method: left out (delete it, or restore the method)")
    elif record.schema_version != SCHEMA_VERSION:
        records.problems.append(f"{short} is of schema {record.schema_version}, not {SCHEMA_VERSION}: left out")
    elif spec.task != papers[spec.paper].task:
        records.problems.append(f"{short} is of task {spec.task}: left out (delete it and run again)")
    elif not all(math.isfinite(value) for value in record.metrics.values()):
        records.problems.append(f"{short} has a metric that is not a number: taken as failed (delete it and run again)")
        as_failed = {"status": "failed", "reason": "diverged", "metrics": {}}
        records.runs.setdefault(address, {})[spec.seed] = record.model_copy(update=as_failed)
    elif not _finite(record.cost.model_dump().values()):
        records.problems.append(f"{short} has a cost that is not a number: left out (delete it and run again)")
    else:
        records.runs.setdefault(address, {})[spec.seed] = record


def _finite(values: Iterable) -> bool:
    return all(math.isfinite(value) for value in values if isinstance(value, float))


def _add_throughput(records: Records, short: str, text: bytes, papers: Mapping[str, Paper]) -> None:
    address, record = short.removeprefix("throughput/").removesuffix(".json"), parse(text, ThroughputRecord, short)
    if (f"{record.paper}/{record.method}", record.tier) != (address, records.tier):
        records.problems.append(f"{short} is of {record.paper}/{record.method}, tier {record.tier}: left out")
    elif record.synthetic:
        records.problems.append(f"{short} was measured on random data: left out (it belongs to the folder synthetic)")
    elif not _known(address, papers):
        records.problems.append(f"{short} is of no known method: left out (delete it, or restore the method)")
    elif not _finite(record.model_dump().values()):
        records.problems.append(f"{short} has a speed that is not a number: left out (delete it and measure again)")
    else:
        records.throughput[address] = record
