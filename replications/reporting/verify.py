"""Check every number of a report against the records it claims to come from.

Three independent looks: each file is compared, cell by cell, with one derived anew; means, intervals and
p-values are computed again from the bare JSON of the records by scipy's own tests; and scores kept beside a
record are scored again where the task offers ``rescore(arrays) -> metrics``.
"""

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path

import numpy as np

from replications.errors import UserError
from replications.records import run_path
from replications.reporting import report, site, tables
from replications.reporting.leaderboard import Leaderboard
from replications.reporting.load import Records
from replications.reporting.verdicts import Verdict
from replications.spec import Paper
from replications.tasks.base import Task, find_task

TOLERANCE = 1e-9


def verify(
    results: Path, tier: str, papers: Mapping[str, Paper], *, tasks: Mapping[str, Task] | None = None
) -> list[str]:
    """Return one line for each number in the report below `results` that the records do not give; empty is
    well.

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
    for name in [name for name in manifest["files"] if name not in expected and name.startswith("leaderboard_")]:
        wrong.append(f"{name}: no record gives this table")
    for name, text in expected.items():
        try:
            found = (results / name).read_text(encoding="utf-8")
        except FileNotFoundError:
            wrong.append(f"{name}: missing (make it again with 'replications report --tier {tier}')")
            continue
        wrong += [f"{name}: {line}" for line in _compare(Path(name).suffix, found, text)]
    if (results / "index.html").exists():
        cells = page_cells(records, boards, verdicts, tier, result)
        wrong += [f"index.html: {line}" for line in _compare_page((results / "index.html").read_text(), cells)]
    wrong += _means_again(results, tier, boards)
    wrong += _claims_again(results, verdicts)
    wrong += _rescored(results, records, tasks)
    return wrong


def _same(found, expected) -> bool:
    if isinstance(found, float | int) and isinstance(expected, float | int):
        return math.isclose(found, expected, rel_tol=TOLERANCE, abs_tol=TOLERANCE * 1e-3)
    return found == expected


def _told(cell: str, found, expected) -> str:
    return f"{cell}: {found} in the file, {expected} from the records"


def _compare(suffix: str, found: str, expected: str) -> list[str]:
    if found == expected:
        return []
    if suffix == ".json":
        try:
            return list(_compare_trees(json.loads(found), json.loads(expected), ""))
        except ValueError as error:
            return [f"not JSON: {error}"]
    if suffix == ".csv":
        return list(_compare_csv(found, expected))
    return list(_compare_lines(found, expected, "|" if suffix == ".md" else "&"))


def _compare_trees(found, expected, where: str) -> Iterator[str]:
    """Walk two JSON values; list entries are named by their address or claim where they have one."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in dict.fromkeys([*expected, *found]):
            path = f"{where} {key}".strip()
            if key not in found or key not in expected:
                yield _told(path, found.get(key, "nothing"), expected.get(key, "nothing"))
            else:
                yield from _compare_trees(found[key], expected[key], path)
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for index, (left, right) in enumerate(zip(found, expected, strict=True)):
            name = str(index)
            if isinstance(right, dict):
                name = right.get("address") or "/".join(filter(None, (right.get("paper"), right.get("claim")))) or name
            yield from _compare_trees(left, right, f"{where} {name}".strip())
    elif not _same(found, expected):
        yield _told(where, found, expected)


def _compare_csv(found: str, expected: str) -> Iterator[str]:
    left, right = (list(csv.reader(io.StringIO(text))) for text in (found, expected))
    if len(left) != len(right) or left[0] != right[0]:
        yield _told("rows or header", f"{len(left)} rows", f"{len(right)} rows")
        return
    for one, other in zip(left[1:], right[1:], strict=True):
        for column, x, y in zip(right[0], one, other, strict=False):
            try:
                equal = _same(float(x), float(y))
            except ValueError:
                equal = x == y
            if not equal:
                yield _told(f"{'/'.join(other[1:3]) if column and '/' not in other[0] else other[0]} {column}", x, y)


def _compare_lines(found: str, expected: str, separator: str) -> Iterator[str]:
    left, right = found.splitlines(), expected.splitlines()
    if len(left) != len(right):
        yield _told("length", f"{len(left)} lines", f"{len(right)} lines")
        return
    header: list[str] = []
    for number, (one, other) in enumerate(zip(left, right, strict=True), 1):
        cells, others = (line.strip("| ").split(separator) for line in (one, other))
        if "Method" in others[0] or "Claim" in others[0]:
            header = others
        if one == other:
            continue
        for column, (x, y) in enumerate(zip(cells, others, strict=False)):
            if x != y:
                name = header[column].strip() if column < len(header) else f"cell {column + 1}"
                yield _told(f"line {number}, {others[0].strip()} {name}", x.strip(), y.strip())


def page_cells(
    records: Records, boards: list[Leaderboard], verdicts: list[Verdict], tier: str, result: bool
) -> dict[str, tuple[str, float | None]]:
    """Text and value of every cell of the page, by its ``data-cell``."""
    made = [tables.claims_table(verdicts, tier, result), site.power_table(), site.provenance_table(records)]
    for board in boards:
        made += [tables.quality_table(board), tables.cost_table(board)]
    cells = {
        f"{table.name}|{key}|{column.key}": (cell.text, cell.value)
        for table in made
        for _, rows in table.sections
        for key, row in rows
        for column, cell in zip(table.columns, row, strict=True)
    }
    for v in verdicts:
        for part, text in site.card_numbers(v).items():
            cells[f"card|{v.address}|{part}"] = (text, None)
    return cells


class _Cells(HTMLParser):
    """Collects the text and ``data-value`` of every element with a ``data-cell``."""

    def __init__(self):
        super().__init__()
        self.found: dict[str, tuple[str, float | None]] = {}
        self._open: tuple[str, str, str | None] | None = None
        self._text = ""

    def handle_starttag(self, tag, attributes):
        told = dict(attributes)
        if "data-cell" in told:
            self._open, self._text = (tag, told["data-cell"], told.get("data-value")), ""
        elif tag == "small":  # the method's title below its address
            self._close()

    def handle_data(self, data):
        self._text += data

    def handle_endtag(self, tag):
        if self._open and tag == self._open[0]:
            self._close()

    def _close(self):
        if self._open:
            _, cell, value = self._open
            self.found[cell] = (self._text.strip(), None if value is None else float(value))
            self._open = None


def _compare_page(html: str, expected: Mapping[str, tuple[str, float | None]]) -> Iterator[str]:
    parser = _Cells()
    parser.feed(html)
    for cell, (text, value) in expected.items():
        found = parser.found.get(cell)
        name = cell.replace("|", " ")
        if found is None:
            yield _told(name, "nothing", text)
        elif found[0] != text.strip():
            yield _told(name, found[0], text)
        elif not _same(found[1], value):
            yield _told(f"{name} (sort value)", found[1], value)
    for cell in parser.found.keys() - expected.keys():
        yield _told(cell.replace("|", " "), parser.found[cell][0], "nothing")


def _raw(results: Path, address: str, seed: int) -> dict:
    return json.loads(run_path(results, *address.split("/"), seed).read_text())


def _means_again(results: Path, tier: str, boards: list[Leaderboard]) -> Iterator[str]:
    """Leaderboard means and intervals once more, from the records' bare JSON and scipy."""
    from scipy import stats

    for board in boards:
        path = results / f"leaderboard_{board.task}.json"
        for row in json.loads(path.read_text())["rows"] if path.exists() else ():
            for key, cell in row["metrics"].items():
                raw = [_raw(results, row["address"], seed) for seed in row["finished"]]
                values = [record["metrics"][key] for record in raw if key in record["metrics"]]
                found = {"mean": cell["mean"]}
                again = {"mean": float(np.mean(values))}
                if cell["half_width"] is not None:
                    found["half_width"] = cell["half_width"]
                    high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))[1]
                    again["half_width"] = float(high - np.mean(values))
                for part, value in again.items():
                    if not math.isclose(found[part], value, rel_tol=1e-6, abs_tol=1e-9):
                        yield _told(f"{path.name}: {row['address']} {key} {part}", found[part], value)


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
                yield _told(f"claim {v.address} {part}", found[part], value)


def _rescored(results: Path, records: Records, tasks: Mapping[str, Task]) -> Iterator[str]:
    """Metrics once more from the scores kept beside the records, where the task can."""
    for address, runs in records.runs.items():
        for seed, record in runs.items():
            rescore = getattr(tasks[record.spec.task], "rescore", None)
            path = run_path(results, *address.split("/"), seed)
            arrays = path.with_name("arrays.npz")
            if rescore is None or record.status != "finished" or not arrays.exists():
                continue
            with np.load(arrays) as stored:
                again = rescore(dict(stored))
            for key, value in again.items():
                found = record.metrics.get(key)
                if found is None or not math.isclose(found, value, rel_tol=1e-6, abs_tol=1e-9):
                    where = f"{path.relative_to(results)}: {key}"
                    yield f"{where}: {found} in the record, {value} from its scores"
