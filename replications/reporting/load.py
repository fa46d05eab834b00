"""Read a tier's folder of records. What cannot be read is named, never dropped in silence."""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from replications.errors import UserError
from replications.records import SCHEMA_VERSION, RunRecord, ThroughputRecord, read_run, read_throughput
from replications.spec import Paper


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
        """All methods that have, or should have, a row."""
        return sorted({*self.runs, *self.throughput, *self.expected})


def read_results(
    results: Path,
    tier: str,
    papers: Mapping[str, Paper],
    methods: Collection[str] | None = None,
    seeds: int | None = None,
) -> Records:
    """Read every record below `results` (the folder ``results/<tier>``).

    `methods` are the addresses that should be there: by default every method of `papers` that runs in the
    tier. `seeds` is how many seeds each should have; where not given, the seeds that any method has.
    """
    results = Path(results)
    if methods is None:
        methods = [f"{p}/{m}" for p, paper in papers.items() for m, x in paper.methods.items() if tier in x.tiers]
    records = Records(tier=tier, expected=tuple(sorted(methods)))
    for path in sorted(results.glob("runs/*/*/seed*/run.json")):
        _add_run(records, path, papers, results)
    for path in sorted(results.glob("throughput/*/*.json")):
        _add_throughput(records, path, papers, results)
    found = {seed for runs in records.runs.values() for seed in runs}
    records.seeds = tuple(sorted(found | set(range(seeds or 0))))
    for address, runs in records.runs.items():
        _check_alike(records, address, runs)
    return records


def _known(address: str, papers: Mapping[str, Paper]) -> bool:
    paper, _, method = address.partition("/")
    return paper in papers and method in papers[paper].methods


def _add_run(records: Records, path: Path, papers: Mapping[str, Paper], results: Path) -> None:
    short = path.relative_to(results).as_posix()
    address, folder = "/".join(path.parts[-4:-2]), path.parts[-2]
    try:
        record = read_run(path)
    except (UserError, OSError) as error:
        records.problems.append(_told(error, path, short))
        return
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
        told = {"status": "failed", "reason": "diverged", "metrics": {}}
        records.runs.setdefault(address, {})[spec.seed] = record.model_copy(update=told)
    elif not _finite(record.cost.model_dump().values()):
        records.problems.append(f"{short} has a cost that is not a number: left out (delete it and run again)")
    else:
        records.runs.setdefault(address, {})[spec.seed] = record


def _told(error: Exception, path: Path, short: str) -> str:
    if isinstance(error, OSError):
        return f"{short} cannot be read ({error.strerror}): left out"
    return str(error).replace(str(path), short)


def _finite(values: Iterable) -> bool:
    return all(math.isfinite(value) for value in values if isinstance(value, float))


def _add_throughput(records: Records, path: Path, papers: Mapping[str, Paper], results: Path) -> None:
    short = path.relative_to(results).as_posix()
    address = f"{path.parts[-2]}/{path.stem}"
    try:
        record = read_throughput(path)
    except (UserError, OSError) as error:
        records.problems.append(_told(error, path, short))
        return
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


def _check_alike(records: Records, address: str, runs: Mapping[int, RunRecord]) -> None:
    """Seeds of a method must differ in nothing but the seed; otherwise say so beside the table."""
    for what, key in (
        ("code", lambda r: r.code_fingerprint),
        ("data", lambda r: r.data_fingerprint),
        ("configuration", lambda r: r.spec.model_copy(update={"seed": 0}).canonical_json()),
        ("device", lambda r: r.provenance and r.provenance.device),
    ):
        if len({key(record) for record in runs.values()}) > 1:
            records.problems.append(f"{address}: its seeds were not all run with the same {what}")
