"""Whether two results folders reach the same verdicts, and whether they differ by more than the spread over seeds.

Two machines round differently, and training amplifies a rounding error into a different network: on another machine the
same seed gives another sample. Verdicts may therefore differ for claims near their threshold, but a shift of the mean
beyond the spread over seeds would be a fault. Verdicts are made at the seeds that both folders have: a claim that one
folder decides with twelve seeds and the other leaves open with five says nothing about machines.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import ttest_ind

from replications.reporting import labels, statistics
from replications.reporting.results import Records
from replications.reporting.tables import Cell, Column, Table
from replications.reporting.verdicts import Verdict, judge
from replications.spec import Paper
from replications.tasks.base import Task


class Agreement(NamedTuple):
    """`claims` has a row for each claim with different verdicts: address, ``first`` and ``second``. `counts` are of the
    claims decided in a folder: ``alike``, ``only first``, ``only second``, ``opposite``. `shifts` has a row for each
    method and its primary metric: means, Welch's p adjusted by Holm (``p``), numbers of seeds, all that a folder has.
    """

    claims: pd.DataFrame
    counts: dict[str, int]
    shifts: pd.DataFrame


ROUNDING = 1e-5  # relative: a sum in float32 on another path through the kernels


def agreement(sides: tuple[Records, Records], papers: Mapping[str, Paper], tasks: Mapping[str, Task]) -> Agreement:
    """Judge both folders at the seeds that both have, and compare their verdicts and values."""
    judged = [{v.address: v for v in judge(side, papers, tasks, result=True)} for side in _common(*sides)]
    rows = [_alike(address, judged[0][address], judged[1][address]) for address in judged[0]]
    claims = pd.DataFrame(rows, columns=["address", "first", "second", "how"])
    found = claims["how"].value_counts()
    counts = {how: int(found.get(how, 0)) for how in ("alike", "only first", "only second", "opposite")}
    return Agreement(claims[claims["first"] != claims["second"]], counts, _shifts(sides, papers, tasks))


def _common(first: Records, second: Records) -> tuple[Records, Records]:
    """Return both folders' records of the methods and seeds of which both have one, finished or failed."""
    seeds = {address: runs.keys() & second.runs.get(address, {}).keys() for address, runs in first.runs.items()}
    return tuple(
        replace(side, runs={address: {s: side.runs[address][s] for s in of} for address, of in seeds.items() if of})
        for side in (first, second)
    )


def _alike(address: str, first: Verdict, second: Verdict) -> tuple[str, str, str, str]:
    words = first.adjusted, second.adjusted
    decided = [first.decided, second.decided]
    if all(decided):
        how = "alike" if words[0] == words[1] else "opposite"
    else:
        how = "only first" if decided[0] else "only second" if decided[1] else "undecided"
    return (address, *words, how)


def _shifts(sides: tuple[Records, Records], papers: Mapping[str, Paper], tasks: Mapping[str, Task]) -> pd.DataFrame:
    """Welch's t test of each method's primary metric between the folders, on the metric's scale, adjusted by Holm."""
    rows = []
    for address in sorted(sides[0].runs.keys() & sides[1].runs.keys()):
        task = tasks[papers[address.partition("/")[0]].task]
        metric = labels.metric_of(task, task.primary_metric)
        one, other = (
            np.array(
                [
                    r.metrics[task.primary_metric]
                    for r in side.finished(address).values()
                    if task.primary_metric in r.metrics
                ]
            )
            for side in sides
        )
        if min(len(one), len(other)) < 2:
            continue
        scaled = [np.log(values) if metric.scale == "log" else values for values in (one, other)]
        if all(np.ptp(values) <= ROUNDING * np.abs(values).max() for values in scaled):  # no spread to compare with
            p = float(np.isclose(scaled[0].mean(), scaled[1].mean(), rtol=ROUNDING, atol=0))
        else:
            p = ttest_ind(*scaled, equal_var=False).pvalue
        rows.append((address, metric.title, one.mean(), other.mean(), p, len(one), len(other)))
    found = pd.DataFrame(rows, columns=["address", "metric", "first", "second", "p", "n_first", "n_second"])
    return found.assign(p=statistics.holm(found["p"])) if len(found) else found


def in_words(found: Agreement) -> list[str]:
    """Return one sentence on the verdicts and one on the values."""
    c = found.counts
    decided = sum(c.values())
    if not decided:
        verdicts = "No claim is decided in either folder at the seeds that both have."
    else:
        verdicts = (
            f"Of {decided} claims decided in a folder, at the seeds that both have, {c['alike']} are decided alike, "
            f"{c['only first']} in the first only, {c['only second']} in the second only, {c['opposite']} the opposite "
            "way."
        )
    shifted = found.shifts[found.shifts["p"] <= statistics.ALPHA]
    if found.shifts.empty:
        return [verdicts]
    if shifted.empty:
        values = f"No primary metric of {len(found.shifts)} methods differs by more than its seeds do"
    else:
        values = (
            f"{len(shifted)} of {len(found.shifts)} primary metrics differ by more than their seeds do: "
            f"{', '.join(shifted['address'])}"
        )
    return [verdicts, f"{values} (Welch's test, Holm, 5 %)."]


def agreement_table(found: Agreement) -> Table:
    """Return a table of the claims with different verdicts, with the number that agree below it."""
    columns = [Column(name, name.capitalize(), numeric=False) for name in ("claim", "first", "second")]
    rows = [(c.address, [Cell(c.address), Cell(c.first), Cell(c.second)]) for c in found.claims.itertuples()]
    return Table("verdicts", "Claims with different verdicts", columns, [("", rows)], in_words(found))
