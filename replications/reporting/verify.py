"""Check every number of a report against its records.

Three independent checks: each file is regenerated and compared; means, intervals and p-values are recomputed from the
records' JSON with the standard library and scipy's tests; and metrics are recomputed from stored scores if the task
has ``rescore(arrays) -> metrics``.
"""

import json
import math
import re
import statistics
from collections.abc import Callable, Iterator, Mapping
from itertools import zip_longest
from pathlib import Path

import numpy as np

from replications.archive import record_files
from replications.errors import UserError
from replications.records import run_path
from replications.reporting import report
from replications.reporting.leaderboard import Leaderboard
from replications.reporting.results import Records
from replications.reporting.verify_claims import claims_again
from replications.spec import Paper
from replications.tasks.base import Task, find_task

NUMBER = re.compile(r"(\d+(?:\.\d+)?(?:e[+-]?\d{1,3})?)")


def verify(
    results: Path,
    tier: str,
    papers: Mapping[str, Paper],
    *,
    tasks: Mapping[str, Task] | None = None,
    deviations: Mapping[str, Mapping[int, str]] | None = None,
    describe_set: Callable[[str], Mapping] | None = None,
) -> list[str]:
    """Return a line for each file and each number of the report below `results` that does not follow from the records.

    Arguments as in `report.build`. Raises UserError if there is no report to verify.
    """
    results = Path(results)
    manifest = report.read_manifest(results)
    if manifest is None:
        raise UserError(f"no report in {results}: make one with 'replications report --tier {tier}'")
    if tasks is None:
        tasks = {name: find_task(name) for name in dict.fromkeys(paper.task for paper in papers.values())}
    asked = {key: manifest[key] for key in ("methods", "selected", "seeds")}
    records, boards, verdicts, _ = derived = report.derive(results, tier, papers, tasks=tasks, **asked)
    wrong = []
    expected = report.text_files(derived, papers, manifest, deviations, describe_set, tasks)
    for name in manifest["files"]:
        if name not in expected and not name.startswith("plots/"):
            wrong.append(f"{name}: no record gives this file")
    for name, text in expected.items():
        if name.endswith(report.LOCAL) and name not in manifest["files"]:
            continue
        try:
            found = (results / name).read_text(encoding="utf-8")
        except FileNotFoundError:
            wrong.append(f"{name}: missing (make it again with 'replications report --tier {tier}')")
            continue
        wrong += [f"{name} {line}" for line in first_difference(found, text)]
    read = {record_name(address, seed) for address, of in records.runs.items() for seed in of}
    raw = {name: json.loads(text()) for name, text in record_files(results) if name in read}
    wrong += _means_again(raw, boards)
    wrong += claims_again(lambda address, seed: raw.get(record_name(address, seed)), verdicts)
    wrong += _rescored(results, records, tasks)
    return wrong


def first_difference(found: str, expected: str) -> Iterator[str]:
    """Yield the first difference between two files, if any. Numbers may differ in the tenth digit.

    Another processor or library version causes such differences for the same records.
    """
    for number, (x, y) in enumerate(zip_longest(found.splitlines(), expected.splitlines()), start=1):
        if x != y and not (x and y and _same(x, y)):
            pairs = enumerate(zip_longest(x or "", y or ""))
            start = max(next(place for place, (a, b) in pairs if a != b) - 40, 0)
            x, y = ("nothing" if line is None else f"'{line[start : start + 80]}'" for line in (x, y))
            yield f"line {number}: {x} in the file, {y} from the records"
            return


def _same(x: str, y: str) -> bool:
    x, y = NUMBER.split(x), NUMBER.split(y)
    if x[::2] != y[::2]:
        return False
    pairs = zip(x[1::2], y[1::2], strict=True)
    return all(math.isclose(float(a), float(b), rel_tol=1e-9, abs_tol=1e-12) for a, b in pairs)


def record_name(address: str, seed: int) -> str:
    """Return a record's name as in `record_files`."""
    return run_path(Path(), *address.split("/"), seed).as_posix()


def _metrics(raw: Mapping[str, dict], address: str, seed: int) -> dict:
    return raw[record_name(address, seed)]["metrics"]


def _means_again(raw: Mapping[str, dict], boards: list[Leaderboard]) -> Iterator[str]:
    """Recompute leaderboard means and intervals from the records' JSON with scipy; yield differences."""
    from scipy import stats

    for board in boards:
        for row in board.rows:
            of_seeds = [_metrics(raw, row.address, seed) for seed in row.finished]
            for key, cell in row.metrics.items():
                values = np.array([metrics[key] for metrics in of_seeds if key in metrics])
                again = {"mean": float(stats.gmean(values) if cell.factor else np.mean(values))}
                if cell.sd is not None:
                    again["sd"] = statistics.stdev(values.tolist())
                if cell.half_width is not None:
                    high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))[1]
                    again["half_width"] = float(high - np.mean(values))
                if cell.factor is not None:
                    logs = np.log(values)
                    high = stats.t.interval(0.95, len(logs) - 1, np.mean(logs), stats.sem(logs))[1]
                    again["factor"] = math.exp(high - np.mean(logs))
                for part, value in again.items():
                    found = getattr(cell, part)
                    if not math.isclose(found, value, rel_tol=1e-6, abs_tol=1e-9):
                        yield f"{board.task}: {row.address} {key} {part}: {found}, {value} from the records"


def _rescored(results: Path, records: Records, tasks: Mapping[str, Task]) -> Iterator[str]:
    """Recompute metrics from the scores stored beside the records, if the task can; yield differences."""
    for address, runs in records.runs.items():
        for seed, record in runs.items():
            rescore = getattr(tasks.get(record.spec.task), "rescore", None)
            path = run_path(results, *address.split("/"), seed)
            arrays = path.with_name("arrays.npz")
            if rescore is None or record.status != "finished" or not arrays.exists():
                continue
            try:
                with np.load(arrays) as stored:
                    again = rescore(dict(stored))
            except Exception as error:  # damaged files raise many kinds of errors; or the scores are of another task
                yield f"{arrays.relative_to(results)}: cannot be scored again ({type(error).__name__}: {error})"
                continue
            for key, value in again.items():
                found = record.metrics.get(key)
                if found is None or not math.isclose(found, value, rel_tol=1e-6, abs_tol=1e-9):
                    where = f"{path.relative_to(results)}: {key}"
                    yield f"{where}: {found} in the record, {value} from its scores"
