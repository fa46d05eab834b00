"""From a claim and the records to a verdict.

For a directional claim let d be the effect in the claimed direction and delta the smallest effect of
interest:

* ``contradicted``: the 95 % interval's upper end is below delta, so an effect worth the name is ruled out.
  That includes effects of the claimed sign that are shown to be smaller than delta.
* ``reproduced``: not contradicted, and the lower end is above 0. This establishes the direction and leaves
  delta possible; it does not say that the effect is as large as the paper's, which is shown beside it.
* ``inconclusive``: neither. With three seeds that is the common fate of effects under about three standard
  deviations of a seed difference.

An `equal` claim is ``reproduced`` where the 90 % interval is inside ±delta (TOST at 5 %), ``contradicted``
where the 95 % interval is wholly outside, else ``inconclusive``; its p-values count twice, alone too, so that
both errors together stay below 5 %. ``not tested`` always has its reason.

Under a true null a wrong verdict comes at most 5 % of the time: a directional claim with d <= 0 is called
reproduced at most 2.5 %, one with d >= delta contradicted at most 2.5 %; for 0 < d < delta either verdict is
right in its own words. The adjusted verdict keeps that bound for a whole paper (statistics.adjust_family); it
is the raw one or ``inconclusive``, never another. It is the one that is shown; the raw one is kept beside it.

A seed that failed on one side only leaves a claim ``inconclusive``, whatever the others say: methods fail where
they do badly. One that failed on both sides is left out, and the reason says so. Claims whose runs do not
match (see `comparable`) are ``not tested``.

A metric of a logarithmic scale (a time, a memory, a speed-up) is compared as a ratio. A ratio is judged on the
log scale: delta 0.1 means a quotient of at least 1.1 (`greater`), at most 1/1.1 (`less`) or between the two
(`equal`); effect and interval are reported as quotients.

Where neither side varies with the seed (a classical method with nothing random in it), seeds are no
replication. The interval then comes from the test folds, if the record has their values, with the variance
factor 1/k + 1/(k-1) of Nadeau and Bengio (2003) because k folds share their training parts; `replication`
says ``folds``. Equal effects without folds give no interval, and no verdict but ``inconclusive``.
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from pydantic import BaseModel

from replications.records import RunRecord
from replications.reporting import comparable, labels, statistics
from replications.reporting.results import Records
from replications.spec import Claim, Paper, Side
from replications.tasks.base import Task

Word = Literal["reproduced", "contradicted", "inconclusive", "not tested"]
WORDS: dict[int, Word] = {1: "reproduced", -1: "contradicted", 0: "inconclusive"}


class Verdict(BaseModel):
    """A claim, its evidence and what they come to. Effects have the sign of subject minus reference.

    `p` and `p_against` (see statistics.Evidence) compare with 0.05; `values` are the paired effects by seed
    or fold. `family` is how many claims of the paper were tested, and so adjusted for.
    """

    paper: str
    claim: str
    statement: str
    where: str
    note: str
    subject: str
    subject_metric: str
    reference: str | None
    reference_metric: str | None
    expected: float | None
    metric_title: str
    unit: str
    decimals: int
    effect_kind: Literal["difference", "ratio"]
    direction: Literal["greater", "less", "equal"]
    smallest_effect: float
    reported_effect: float | None
    effect: float | None = None
    interval: tuple[float, float] | None = None
    replication: Literal["seeds", "folds"] = "seeds"
    n: int = 0
    seeds: tuple[int, ...] = ()
    values: tuple[float, ...] = ()
    p: float | None = None
    p_against: float | None = None
    p_holm: float | None = None
    p_against_holm: float | None = None
    family: int = 0
    detectable: float | None = None
    raw: Word = "not tested"
    adjusted: Word = "not tested"
    reason: str = ""
    tier: str
    result: bool
    data: tuple[str, ...] = ()
    category: str | None = None
    deviations: tuple[int, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def address(self) -> str:
        return f"{self.paper}/{self.claim}"

    @property
    def effect_text(self) -> str:
        """``+0.31 points``, ``×1.25``, or a dash where there is none."""
        if self.effect is None:
            return "–"
        return f"{labels.effect(self.effect, self.effect_kind, self.decimals)} {self.unit}".strip()


def judge(
    records: Records,
    papers: Mapping[str, Paper],
    tasks: Mapping[str, Task],
    result: bool,
    selected: tuple[str, ...] | None = None,
) -> list[Verdict]:
    """Judge the claims of the `selected` papers (default: all), each paper's claims being one Holm family.

    `result` is false in a tier that is plumbing only: effects are shown, nothing is tested.
    """
    verdicts = []
    for key, paper in papers.items():
        if selected is None or key in selected:
            family = [_weigh(claim, key, records, papers, tasks[paper.task], result) for claim in paper.claims]
            verdicts += _adjust(family)
    return verdicts


def _weigh(
    claim: Claim, paper: str, records: Records, papers: Mapping[str, Paper], task: Task, result: bool
) -> Verdict:
    """Weigh one claim on its own: effect, interval and raw verdict, or why there is none."""
    verdict = _untested(claim, paper, records.tier, task, result)
    sides = [side for side in (claim.subject, claim.reference) if side is not None]
    runs = [
        {seed: r for seed, r in records.finished(side.method).items() if side.metric in r.metrics} for side in sides
    ]
    seeds = sorted(set.intersection(*map(set, runs)))
    other_tier = _other_tiers(claim, records.tier)
    if not seeds:
        verdict.reason = other_tier or _why_missing(records, sides, runs)
        return verdict
    paired = [[by_seed[seed] for seed in seeds] for by_seed in runs]
    verdict.seeds, verdict.n = tuple(seeds), len(seeds)
    verdict.data = tuple(dict.fromkeys(labels.all_data(side[0]) for side in paired))
    verdict.category = labels.category(paired[0][0])
    values = np.array([[r.metrics[side.metric] for r in of_side] for side, of_side in zip(sides, paired, strict=True)])
    metrics = [labels.metric_of(task, side.metric) for side in sides]
    if claim.effect != "ratio" and any(metric.scale == "log" for metric in metrics):
        verdict.reason = f"{metrics[0].title} is compared as a ratio: the claim needs 'effect: ratio'"
        return verdict
    if claim.effect == "ratio" and min(values.min(), claim.expected or 1) <= 0:
        verdict.reason = "a ratio needs values above 0"
        return verdict
    evidence = _measure(verdict, claim, sides, paired, values)
    timed = any(metric.timed for metric in metrics)
    verdict.warnings = (*comparable.warnings(paired, timed), *_unpaired(records, sides))
    one_side, both_sides = _failures(records, sides, runs)
    verdict.reason = (
        ("" if result else f"tier {records.tier} is plumbing only: {labels.NOT_A_RESULT}")
        or other_tier
        or comparable.why_not(paired, timed, papers)
        or _why_too_few(seeds, sides, records)
    )
    if verdict.reason:
        return verdict
    if verdict.interval is None:
        verdict.raw = verdict.adjusted = "inconclusive"
        agree = f"all {verdict.n} effects agree: neither their spread nor an interval can be estimated"
        verdict.reason = "; ".join(filter(None, (one_side, agree, both_sides)))
        return verdict
    verdict.p, verdict.p_against = float(evidence.p), float(evidence.p_against)
    # The p-values stay, so that the family does not shrink by what failed.
    word = "inconclusive" if one_side else WORDS[int(statistics.outcome(evidence.p, evidence.p_against))]
    verdict.raw = verdict.adjusted = word
    verdict.reason = "; ".join(filter(None, (one_side or _why(verdict), both_sides)))
    return verdict


def _untested(claim: Claim, paper: str, tier: str, task: Task, result: bool) -> Verdict:
    metric = labels.metric_of(task, claim.subject.metric)
    return Verdict(
        paper=paper,
        claim=claim.id,
        statement=claim.statement,
        where=claim.where,
        note=claim.note,
        subject=claim.subject.method,
        subject_metric=claim.subject.metric,
        reference=claim.reference and claim.reference.method,
        reference_metric=claim.reference and claim.reference.metric,
        expected=claim.expected,
        metric_title=metric.title,
        unit=labels.effect_unit(metric.unit, claim.effect),
        decimals=max(3, metric.decimals) if claim.effect == "ratio" else metric.decimals,
        effect_kind=claim.effect,
        direction=claim.direction,
        smallest_effect=claim.smallest_effect,
        reported_effect=claim.reported_effect,
        tier=tier,
        result=result,
        deviations=claim.deviations,
    )


def _measure(
    verdict: Verdict, claim: Claim, sides: list, paired: list[list[RunRecord]], values: np.ndarray
) -> statistics.Evidence:
    """Fill in effect, interval and what they rest on, from `values` [sides, seeds]; return the evidence."""
    ratio = claim.effect == "ratio"
    effects, factor = _effects(claim, values), None
    folds = _folds(claim, sides, paired, values)
    if folds is not None:
        effects, factor = folds, 1 / len(folds) + 1 / (len(folds) - 1)
        verdict.replication, verdict.n = "folds", len(folds)
    smallest = float(np.log1p(claim.smallest_effect)) if ratio else claim.smallest_effect
    resolution = 1e-12 * float(np.abs(values).max())
    evidence = statistics.weigh(effects, claim.direction, smallest, factor, resolution)
    natural = np.exp if ratio else np.asarray
    verdict.effect = float(natural(evidence.effect))
    verdict.values = tuple(float(value) for value in natural(effects))
    if not np.isnan(evidence.lower):
        verdict.interval = (float(natural(evidence.lower)), float(natural(evidence.upper)))
        if not ratio and folds is None:
            n, half = len(effects), statistics.ALPHA / 2
            equal = claim.direction == "equal"
            in_sds = statistics.equality_margin(n, alpha=half) if equal else statistics.detectable_effect(n)
            verdict.detectable = in_sds * float(np.std(effects, ddof=1))
    return evidence


def _effects(claim: Claim, values: np.ndarray) -> np.ndarray:
    """Paired effects [n] of `values` [sides, n]; logarithms of the quotients for a ratio."""
    other = values[1] if len(values) == 2 else claim.expected
    return np.log(values[0] / other) if claim.effect == "ratio" else values[0] - other


def _folds(claim: Claim, sides: list, paired: list[list[RunRecord]], values: np.ndarray) -> np.ndarray | None:
    """Effects by test fold where no side varies with the seed, and the folds' means are the metrics; else
    None.
    """
    if values.shape[1] < 2 or np.ptp(values, axis=1).max() > 0:
        return None
    groups = [by_seed[0].groups.get(side.metric, []) for side, by_seed in zip(sides, paired, strict=True)]
    if len({len(group) for group in groups}) > 1 or len(groups[0]) < 2:
        return None
    if not np.allclose(np.mean(groups, axis=1), values[:, 0], rtol=1e-6):
        return None
    if claim.effect == "ratio" and np.min(groups) <= 0:
        return None
    return _effects(claim, np.array(groups))


def _why_missing(records: Records, sides: list, runs: list[dict[int, RunRecord]]) -> str:
    """Say which side has no usable run, and why."""
    reasons = []
    for side, by_seed in zip(sides, runs, strict=True):
        every = records.runs.get(side.method, {})
        if by_seed:
            continue
        failed = sorted({record.reason or "failed" for record in every.values() if record.status == "failed"})
        if not every:
            reasons.append(f"no record of {side.method}")
        elif not records.finished(side.method):
            reasons.append(f"{side.method} failed ({', '.join(failed)})")
        else:
            reasons.append(f"the records of {side.method} have no metric '{side.metric}'")
    return "; ".join(dict.fromkeys(reasons)) or "subject and reference share no finished seed"


def _other_tiers(claim: Claim, tier: str) -> str:
    """Return why `tier` cannot test the claim; empty where it can."""
    if tier in claim.tiers:
        return ""
    why = f": {claim.why_not}" if claim.why_not else ""
    return f"tier {tier} cannot test it, only {' or '.join(claim.tiers) or 'no tier yet'}{why}"


def _failures(records: Records, sides: list, runs: list[dict[int, RunRecord]]) -> tuple[str, str]:
    """Say which seeds failed, or lack the metric, on one side only, and which on both; empty where none."""
    lost = [_lost(records, side, by_seed) for side, by_seed in zip(sides, runs, strict=True)]
    both = set.intersection(*map(set, lost)) if len(lost) == 2 else set()
    said: dict[str, list[int]] = {}
    for side, of in zip(sides, lost, strict=True):
        for seed in sorted(of.keys() - both):
            said.setdefault(f"{side.method} {of[seed]}", []).append(seed)
    one_side = "; ".join(_at(what, seeds) for what, seeds in said.items())
    return one_side, f"{labels.seeds(both)} left out: failed on both sides" if both else ""


def _unpaired(records: Records, sides: list[Side]) -> list[str]:
    """Say of which seeds one side has a record and the other none: they are left out."""
    methods = dict.fromkeys(side.method for side in sides)
    every = {seed for method in methods for seed in records.runs.get(method, {})}
    lacking = {method: every - records.runs.get(method, {}).keys() for method in methods}
    return [f"{method} has no record of {labels.seeds(seeds)}, left out" for method, seeds in lacking.items() if seeds]


def _lost(records: Records, side: Side, by_seed: dict[int, RunRecord]) -> dict[int, str]:
    """What became of the seeds of a side that give no value."""
    lost = {}
    for seed, record in records.runs.get(side.method, {}).items():
        if record.status == "failed":
            reason = record.reason or "no reason given"
            lost[seed] = "diverged" if reason == "diverged" else f"failed ({reason})"
        elif seed not in by_seed:
            lost[seed] = f"has no metric '{side.metric}'"
    return lost


def _at(what: str, seeds: list[int]) -> str:
    """``detr diverged at seeds 1, 4``; what stands in brackets stays last."""
    head, bracket, tail = what.partition(" (")
    return f"{head} at {labels.seeds(seeds)}{bracket}{tail}"


def _why_too_few(seeds: list[int], sides: list, records: Records) -> str:
    if len(seeds) > 1:
        return ""
    lost = [
        f"{side.method} failed at seed {seed} ({record.reason or 'failed'})"
        for side in sides
        for seed, record in sorted(records.runs[side.method].items())
        if record.status == "failed"
    ]
    return "; ".join(["1 paired seed, an interval needs at least 2", *dict.fromkeys(lost)])


def _why(verdict: Verdict) -> str:
    kind, decimals = verdict.effect_kind, verdict.decimals
    if kind == "ratio":
        quotient = 1 + verdict.smallest_effect
        least = 1 / quotient if verdict.direction == "less" else quotient
        margin = labels.effect(least, kind, decimals)
    else:
        least = -verdict.smallest_effect if verdict.direction == "less" else verdict.smallest_effect
        margin = f"{labels.number(verdict.smallest_effect, decimals)} {verdict.unit}".strip()
    few = f"{verdict.n} {verdict.replication}"
    if verdict.direction == "equal":
        room = f"{labels.effect(1 / (1 + verdict.smallest_effect), kind, decimals)} to {margin}"
        room = room if kind == "ratio" else f"±{margin}"
        return {
            "reproduced": f"the 90 % interval is inside {room}",
            "contradicted": f"the 95 % interval is outside {room}",
            "inconclusive": f"{few} leave room for effects inside and outside {room}",
        }[verdict.raw]
    beyond = verdict.interval[1] <= least if verdict.direction == "less" else verdict.interval[0] >= least
    sign = f"the effect has the claimed sign, and one of {margin} is possible"
    return {
        "reproduced": f"the effect is at least {margin} in the claimed direction" if beyond else sign,
        "contradicted": f"an effect of {margin} in the claimed direction is ruled out",
        "inconclusive": f"{few} leave room for no effect and for one of {margin}",
    }[verdict.raw]


def _adjust(family: list[Verdict]) -> list[Verdict]:
    """Holm over the tested claims of one paper; fills in the adjusted p-values and verdicts."""
    tested = [verdict for verdict in family if verdict.p is not None]
    if not tested:
        return family
    adjusted = statistics.adjust_family(
        np.array([v.p for v in tested]),
        np.array([v.p_against for v in tested]),
        np.array([v.direction == "equal" for v in tested]),
    )
    for verdict, p, p_against in zip(tested, *adjusted, strict=True):
        verdict.p_holm, verdict.p_against_holm, verdict.family = float(p), float(p_against), len(tested)
        decisive = {"reproduced": p, "contradicted": p_against}.get(verdict.raw)
        if decisive is not None and decisive > statistics.ALPHA:
            verdict.adjusted = "inconclusive"
            before = verdict.p if verdict.raw == "reproduced" else verdict.p_against
            change = f"p {labels.p_value(before)} → {labels.p_value(decisive)}"
            verdict.reason = (
                f"{verdict.raw} on its own, but not among {len(tested)} claims of the paper ({change} by Holm); "
                if len(tested) > 1
                else f"{verdict.raw} at 5 %, but statement and denial share these ({change}); "
            ) + verdict.reason
    return family
