"""Check every number of a report against the records it claims to come from.

Three independent looks: each file is compared, cell by cell, with one derived anew; means, intervals and
p-values are computed again from the bare JSON of the records by the standard library and scipy's own tests;
and scores kept beside a record are scored again where the task offers ``rescore(arrays) -> metrics``.
"""

import json
import math
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from replications.errors import UserError
from replications.records import run_path
from replications.reporting import cells, report, site, summary, tables
from replications.reporting.leaderboard import Leaderboard
from replications.reporting.results import Records
from replications.reporting.verdicts import Verdict
from replications.spec import Paper
from replications.tasks.base import Task, find_task


def verify(
    results: Path, tier: str, papers: Mapping[str, Paper], *, tasks: Mapping[str, Task] | None = None
) -> list[str]:
    """Return one line for each number in the report below `results` that does not follow from the records.

    Raises UserError where there is no report to verify.
    """
    results = Path(results)
    manifest = report.read_manifest(results)
    if manifest is None:
        raise UserError(f"no report in {results}: make one with 'replications report --tier {tier}'")
    if tasks is None:
        tasks = {name: find_task(name) for name in dict.fromkeys(paper.task for paper in papers.values())}
    records, boards, verdicts, result = report.derive(
        results,
        tier,
        papers,
        tasks=tasks,
        methods=manifest["methods"],
        selected=manifest["selected"],
        seeds=manifest["seeds"],
    )
    wrong = []
    expected = report.table_files(boards, verdicts, tier, result)
    if report.RUNS in manifest["files"]:
        expected[report.RUNS] = report.runs_csv(records, papers, tasks, result)
    for name in [name for name in manifest["files"] if name not in expected and name.startswith("leaderboard_")]:
        wrong.append(f"{name}: no record gives this table")
    for name, text in expected.items():
        try:
            found = (results / name).read_text(encoding="utf-8")
        except FileNotFoundError:
            wrong.append(f"{name}: missing (make it again with 'replications report --tier {tier}')")
            continue
        wrong += [f"{name}: {line}" for line in cells.compare(Path(name).suffix, found, text)]
    if (results / "index.html").exists():
        on_page = page_cells(records, boards, verdicts, tier, result, papers, tasks)
        wrong += [
            f"index.html: {line}"
            for line in cells.compare_page((results / "index.html").read_text(encoding="utf-8"), on_page)
        ]
    wrong += _means_again(results, boards)
    wrong += _claims_again(results, verdicts)
    wrong += _rescored(results, records, tasks)
    return wrong


def page_cells(
    records: Records,
    boards: list[Leaderboard],
    verdicts: list[Verdict],
    tier: str,
    result: bool,
    papers: Mapping[str, Paper],
    tasks: Mapping[str, Task],
) -> dict[str, tuple[str, float | None]]:
    """Text and value of every cell of the page, by its ``data-cell``."""
    made = [tables.claims_table(verdicts, tier, result), site.power_table(), site.provenance_table(records)]
    made.append(summary.summary_table(verdicts, papers, tasks))
    for board in boards:
        made += [tables.quality_table(board), tables.cost_table(board)]
    shown = {
        f"{table.name}|{key}|{column.key}": (cell.text, cell.value)
        for table in made
        for _, rows in table.sections
        for key, row in rows
        for column, cell in zip(table.columns, row, strict=True)
    }
    for v in verdicts:
        for part, text in site.card_numbers(v).items():
            shown[f"card|{v.address}|{part}"] = (text, None)
    shown |= {f"chip|{address}": (text, None) for address, text in summary.chips(verdicts).items()}
    return shown


def _raw(results: Path, address: str, seed: int) -> dict:
    return json.loads(run_path(results, *address.split("/"), seed).read_text(encoding="utf-8"))


def _means_again(results: Path, boards: list[Leaderboard]) -> Iterator[str]:
    """Leaderboard means and intervals once more, from the records' bare JSON and scipy."""
    from scipy import stats

    for board in boards:
        for row in board.rows:
            raw = [_raw(results, row.address, seed)["metrics"] for seed in row.finished]
            for key, cell in row.metrics.items():
                values = np.array([metrics[key] for metrics in raw if key in metrics])
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
                        yield cells.told(f"{board.task}: {row.address} {key} {part}", found, value)


def _claims_again(results: Path, verdicts: list[Verdict]) -> Iterator[str]:
    """Effects, intervals and p-values of tested claims once more, from bare JSON and scipy's t tests."""
    from scipy import stats

    for v in verdicts:
        if v.p is None or v.replication != "seeds":
            continue
        subject = np.array([_raw(results, v.subject, seed)["metrics"][v.subject_metric] for seed in v.seeds])
        if v.reference is None:
            other = np.full(len(subject), v.expected)
        else:
            other = np.array([_raw(results, v.reference, s)["metrics"][v.reference_metric] for s in v.seeds])
        delta, back = v.smallest_effect, float
        if v.effect_kind == "ratio":
            subject, other, delta, back = np.log(subject), np.log(other), math.log1p(delta), math.exp
        interval = stats.ttest_rel(subject, other).confidence_interval(0.95)

        def one_sided(shift: float, alternative: str, x=subject, y=other) -> float:
            return float(stats.ttest_rel(x, y + shift, alternative=alternative).pvalue)

        if v.direction == "equal":
            p = max(one_sided(-delta, "greater"), one_sided(delta, "less"))
            p_against = 2 * min(one_sided(delta, "greater"), one_sided(-delta, "less"))
        else:
            less = {"greater": "less", "less": "greater"}[v.direction]
            p = 2 * one_sided(0, v.direction)
            p_against = 2 * one_sided(delta if v.direction == "greater" else -delta, less)
        again = {
            "effect": back(float(np.mean(subject - other))),
            "lower": back(float(interval.low)),
            "upper": back(float(interval.high)),
            "p": min(p, 1.0),
            "p_against": min(p_against, 1.0),
        }
        found = {
            "effect": v.effect,
            "lower": v.interval[0],
            "upper": v.interval[1],
            "p": v.p,
            "p_against": v.p_against,
        }
        for part, value in again.items():
            if not math.isclose(found[part], value, rel_tol=1e-6, abs_tol=1e-9):
                yield cells.told(f"claim {v.address} {part}", found[part], value)


def _rescored(results: Path, records: Records, tasks: Mapping[str, Task]) -> Iterator[str]:
    """Metrics once more from the scores kept beside the records, where the task can."""
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
            except Exception as error:  # zipfile's, zlib's, numpy's own; or the scores are not those of the task
                yield f"{arrays.relative_to(results)}: cannot be scored again ({type(error).__name__}: {error})"
                continue
            for key, value in again.items():
                found = record.metrics.get(key)
                if found is None or not math.isclose(found, value, rel_tol=1e-6, abs_tol=1e-9):
                    where = f"{path.relative_to(results)}: {key}"
                    yield f"{where}: {found} in the record, {value} from its scores"
