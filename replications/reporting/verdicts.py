"""From a claim and the records to a verdict.

A claim is tested at looks of 3, 5, 8 and 12 seeds, always the seeds 0 to n - 1, as far as both sides have records;
seeds beyond the last complete look are not used until the next one is complete. For a directional claim let d be the
effect in the claimed direction and delta the smallest effect of interest:

* ``contradicted``: ``d >= delta`` is rejected, so an effect of interest is ruled out. That includes effects of the
  claimed sign that are shown to be smaller than delta.
* ``reproduced``: not contradicted, and ``d <= 0`` is rejected. This establishes the direction and leaves delta
  possible; it does not say that the effect is as large as the paper's, which is shown beside it.
* ``inconclusive``: neither.

An `equal` claim is ``reproduced`` if the effect is shown to be inside ±delta (TOST), ``contradicted`` if it is shown
to be outside, else ``inconclusive``; its p-values are doubled, also for a single claim, so that both errors together
stay below 5 %. ``not tested`` always has a reason.

Tests use sequential p-values (statistics.sequential). The first decision is final: if statement and denial are
rejected at different looks, the earlier one gives the verdict and the reason mentions the other. Effect and interval
shown are those of the last complete look; the interval is not adjusted.

Under a true null a verdict is wrong at most 5 % of the time: a directional claim with d <= 0 is called reproduced at
most 2.5 %, one with d >= delta contradicted at most 2.5 %; for 0 < d < delta either verdict is correct as defined. The
adjusted verdict keeps that bound for a whole paper (statistics.adjust_family); it is the raw one or ``inconclusive``.
Reports show the adjusted verdict and keep the raw one beside it.

A seed that failed on one side only invalidates the looks that contain it, whatever the other seeds show, because
methods tend to fail where they do badly. A seed that failed on both sides is left out, and the reason mentions it.
Claims whose runs do not match (see `comparable`) are ``not tested``.

Metrics on a logarithmic scale (times, memory, speed-ups) are compared as ratios. Ratios are judged on the log scale:
delta 0.1 means a quotient of at least 1.1 (`greater`), at most 1/1.1 (`less`) or between the two (`equal`); effect and
interval are reported as quotients.

If neither side varies with the seed (a deterministic classical method), seeds are no replication. The interval then
comes from the test folds, if the record has their values, with the variance factor 1/k + 1/(k-1) of Nadeau and Bengio
(2003) because k folds share their training parts; `replication` says ``folds``. More seeds repeat the same folds, so
there is one look, with all of ALPHA.

Claims of ``evidence: exact`` are checked at every available seed: reproduced if every value is within the margin,
contradicted if any is not. They have no p-value and do not take part in Holm's adjustment. Sampled claims whose
effect is zero at every seed have no p-value either: the sides are equal, and there is no effect. This requires at
least three different values; with fewer, the sides may be equal by chance (a ceiling, a small test set), and the
claim stays open.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from replications import looks
from replications.records import RunRecord
from replications.reporting import comparable, labels, power, statistics, wording
from replications.reporting.pairs import Pairs, minutes_a_seed, pairs_of, why_missing
from replications.reporting.results import Records
from replications.reporting.verdict import Verdict, Word
from replications.spec import Claim, Paper
from replications.tasks.base import Task

WORDS: dict[int, Word] = {1: "reproduced", -1: "contradicted", 0: "inconclusive"}


def judge(
    records: Records,
    papers: Mapping[str, Paper],
    tasks: Mapping[str, Task],
    result: bool,
    selected: tuple[str, ...] | None = None,
) -> list[Verdict]:
    """Judge the claims of the `selected` papers (default: all), each paper's claims being one Holm family.

    `result` is false in a plumbing tier: effects are shown, nothing is tested.
    """
    verdicts = []
    for key, paper in papers.items():
        if selected is None or key in selected:
            family = [_weigh(claim, key, records, papers, tasks[paper.task], result) for claim in paper.claims]
            verdicts += _adjust(family, records)
    tested = [verdict for verdict in verdicts if verdict.p is not None]
    for name in ("p", "p_against") if tested else ():
        doubled = [min(1.0, getattr(v, name) * (2 if v.direction == "equal" else 1)) for v in tested]
        for verdict, q in zip(tested, statistics.benjamini_hochberg(np.array(doubled)), strict=True):
            setattr(verdict, name.replace("p", "q", 1), float(q))
    return verdicts


def _weigh(
    claim: Claim, paper: str, records: Records, papers: Mapping[str, Paper], task: Task, result: bool
) -> Verdict:
    """Judge one claim alone: effect, interval and raw verdict, or the reason for no verdict."""
    verdict = _untested(claim, paper, records.tier, task, result)
    pairs = pairs_of(claim, records)
    other_tier = _other_tiers(claim, records.tier)
    if not pairs.paired:
        verdict.reason = other_tier or why_missing(records, pairs)
        return verdict
    exact = claim.evidence == "exact"
    seeds = [seed for seed in pairs.paired if seed < pairs.size and not exact] or pairs.paired
    paired = [[by_seed[seed] for seed in seeds] for by_seed in pairs.runs]
    verdict.seeds, verdict.n = tuple(seeds), len(seeds)
    verdict.data = tuple(dict.fromkeys(filter(None, (labels.all_data(side[0]) for side in paired))))
    verdict.category = labels.category(paired[0][0])
    metrics = [labels.metric_of(task, side.metric) for side in pairs.sides]
    if claim.effect != "ratio" and any(metric.scale == "log" for metric in metrics):
        verdict.reason = f"{metrics[0].title} is compared as a ratio: the claim needs 'effect: ratio'"
        return verdict
    values = _values(pairs, pairs.paired)
    if claim.effect == "ratio" and min(values.min(), claim.expected or 1) <= 0:
        verdict.reason = "a ratio needs values above 0"
        return verdict
    if not exact:
        verdict.looks = pairs.looks
        verdict.waiting = tuple(pairs.waiting)
        verdict.waiting_values = tuple(_natural_effect(claim, pairs, seed) for seed in pairs.waiting)
    verdict.failed_seeds = tuple(sorted(pairs.one_failed if exact else pairs.one_failed & set(range(pairs.size))))
    measured = _measure(verdict, claim, pairs, paired)
    timed = any(metric.timed for metric in metrics)
    verdict.warnings = comparable.warnings(paired, timed)
    verdict.reason = (
        ("" if result else f"tier {records.tier} is plumbing only: {labels.NOT_A_RESULT}")
        or other_tier
        or comparable.why_not(paired, timed, papers)
        or ("" if exact else pairs.why_no_look())
    )
    if not verdict.reason:
        one_side, both_sides = pairs.failures(range(pairs.size) if not exact else set.union(*pairs.recorded))
        decide = _check if exact else _test
        decide(verdict, measured, pairs)
        reason = verdict.reason if verdict.raw != "inconclusive" or not one_side else ""
        verdict.reason = "; ".join(filter(None, (reason, one_side, both_sides)))
        verdict.adjusted = verdict.raw
    return verdict


class _Measured(NamedTuple):
    """Effects [n] on the scale of the claim, with its margin, the rounding error, whether the subject has three values
    or more that differ, and the evidence at the last look.
    """

    effects: np.ndarray
    smallest: float
    resolution: float
    varies: bool
    evidence: statistics.Evidence


def _test(verdict: Verdict, measured: _Measured, pairs: Pairs) -> None:
    """Fill in p-values and the raw verdict of a sampled claim."""
    effects, smallest, resolution, varies, evidence = measured
    if not verdict.failed_seeds and np.abs(effects).max() <= resolution:
        decides = smallest > 0 and varies
        verdict.raw = ("reproduced" if verdict.direction == "equal" else "contradicted") if decides else "inconclusive"
        verdict.reason = wording.why_zero(verdict, varies)
        return
    if verdict.replication == "folds":
        p, p_against, weights = np.array([evidence.p]), np.array([evidence.p_against]), (1.0,)
    else:
        of_seed = dict(zip(verdict.seeds, effects, strict=True))
        by_seed = np.array([of_seed.get(seed, np.nan) for seed in range(pairs.size)])
        lost = np.isin(np.arange(pairs.size), verdict.failed_seeds)
        p, p_against = statistics.at_looks(by_seed, verdict.direction, smallest, lost, resolution)
        weights = looks.WEIGHTS
    both = [statistics.sequential(q, weights) for q in (p, p_against)]
    raw, reached = statistics.first_outcome(*both)
    verdict.p_looks, verdict.p_against_looks = tuple(p.tolist()), tuple(p_against.tolist())
    verdict.p, verdict.p_against = (float(q[-1]) for q in both)
    verdict.raw, verdict.reached = WORDS[int(raw)], int(reached) or None
    verdict.reason = wording.why(verdict)


def _check(verdict: Verdict, measured: _Measured, pairs: Pairs) -> None:
    """Fill in the verdict of an exact claim."""
    effects, smallest, resolution = measured[:3]
    d = -effects if verdict.direction == "less" else effects
    if verdict.direction == "equal":
        holds = np.abs(effects) <= smallest + resolution
    else:
        holds = (d >= smallest - resolution) & (d > resolution)
    verdict.raw = "contradicted" if not holds.all() else "inconclusive" if verdict.failed_seeds else "reproduced"
    verdict.reason = wording.why_checked(verdict, holds.tolist())


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
        evidence=claim.evidence,
        testable=tier in claim.tiers,
        tier=tier,
        result=result,
        deviations=claim.deviations,
    )


def _values(pairs: Pairs, seeds: list[int]) -> np.ndarray:
    """The metrics [sides, seeds] of a claim."""
    sides = zip(pairs.sides, pairs.runs, strict=True)
    return np.array([[runs[seed].metrics[side.metric] for seed in seeds] for side, runs in sides])


def _natural_effect(claim: Claim, pairs: Pairs, seed: int) -> float | None:
    """The effect of one seed as it is reported; None if a side has no value for it."""
    if seed not in pairs.paired:
        return None
    effect = float(_effects(claim, _values(pairs, [seed]))[0])
    return float(np.exp(effect)) if claim.effect == "ratio" else effect


def _measure(verdict: Verdict, claim: Claim, pairs: Pairs, paired: list[list[RunRecord]]) -> _Measured:
    """Fill in effect, interval and their seeds; return the inputs of the test."""
    ratio, exact = claim.effect == "ratio", claim.evidence == "exact"
    values, factor = _values(pairs, list(verdict.seeds)), None
    folds = None if exact else _folds(claim, pairs.sides, paired, values)
    if folds is not None:
        k = folds.shape[1]
        values, factor = folds, 1 / k + 1 / (k - 1)
        verdict.replication, verdict.n = "folds", k
    effects = _effects(claim, values)
    largest = float(np.abs(values).max())
    resolution = 1e-12 * (1.0 if ratio else max(largest, abs(claim.expected or 0)))
    evidence = statistics.weigh(effects, claim.direction, verdict.delta, factor, resolution)
    natural = np.exp if ratio else np.asarray
    verdict.effect = float(natural(evidence.effect))
    verdict.values = tuple(float(value) for value in natural(effects))
    if not exact and not np.isnan(evidence.lower):
        verdict.interval = (float(natural(evidence.lower)), float(natural(evidence.upper)))
        if not ratio and folds is None and verdict.looks and len(effects) >= statistics.FEWEST:
            n, alpha = len(effects), statistics.ALPHA * looks.WEIGHTS[verdict.looks - 1]
            equal = claim.direction == "equal"
            in_sds = power.equality_margin(n, alpha=alpha / 2) if equal else power.detectable_effect(n, alpha=alpha)
            verdict.detectable = in_sds * float(np.std(effects, ddof=1))
    varies = int((np.diff(np.sort(values[0])) > 1e-12 * largest).sum()) + 1 >= statistics.FEWEST
    return _Measured(effects, verdict.delta, resolution, varies, evidence)


def _effects(claim: Claim, values: np.ndarray) -> np.ndarray:
    """Paired effects [n] of `values` [sides, n]; logarithms of the quotients for a ratio."""
    other = values[1] if len(values) == 2 else claim.expected
    return np.log(values[0] / other) if claim.effect == "ratio" else values[0] - other


def _folds(claim: Claim, sides: tuple, paired: list[list[RunRecord]], values: np.ndarray) -> np.ndarray | None:
    """Values [sides, folds] if no side varies with the seed and the folds' means are the metrics; else None."""
    if values.shape[1] < 2 or np.ptp(values, axis=1).max() > 0:
        return None
    groups = [by_seed[0].groups.get(side.metric, []) for side, by_seed in zip(sides, paired, strict=True)]
    if len({len(group) for group in groups}) > 1 or len(groups[0]) < 2:
        return None
    if not np.allclose(np.mean(groups, axis=1), values[:, 0], rtol=1e-6):
        return None
    if claim.effect == "ratio" and np.min(groups) <= 0:
        return None
    return np.array(groups)


def _other_tiers(claim: Claim, tier: str) -> str:
    """Return why `tier` cannot test the claim; empty if it can."""
    if tier in claim.tiers:
        return ""
    why = f": {claim.why_not}" if claim.why_not else ""
    return f"tier {tier} cannot test it, only {' or '.join(claim.tiers) or 'no tier yet'}{why}"


def _adjust(verdicts: list[Verdict], records: Records) -> list[Verdict]:
    """Apply Holm's method to the claims of one paper; fill in adjusted p-values, verdicts and the seeds still needed.

    The family is all claims that the tier can test by sampling, run or not: otherwise running another claim's rows
    could revoke a verdict. Claims without a p-value count as p = 1.
    """
    family = [v for v in verdicts if v.p is not None or (v.testable and v.evidence == "sampled")]
    tested = [v for v in family if v.p is not None]
    if not tested:
        return verdicts
    family = tested + [v for v in family if v.p is None]
    equal = np.array([v.direction == "equal" for v in family])
    p, p_against = (np.array([1.0 if v.p is None else getattr(v, name) for v in family]) for name in ("p", "p_against"))
    adjusted = [values[: len(tested)] for values in statistics.adjust_family(p, p_against, equal)]
    raw = np.array([{word: sign for sign, word in WORDS.items()}[v.raw] for v in tested])
    kept = statistics.confirmed(raw, *adjusted)
    ranks = [statistics.holm_factors(np.minimum(q * np.where(equal, 2, 1), 1)) for q in (p, p_against)]
    for i, verdict in enumerate(tested):
        verdict.p_holm, verdict.p_against_holm = (float(q[i]) for q in adjusted)
        verdict.family, verdict.adjusted = len(family), WORDS[int(kept[i])]
        if verdict.adjusted != verdict.raw:
            verdict.reason = f"{wording.taken_back(verdict)}; {verdict.reason}"
        elif verdict.adjusted == "reproduced" and verdict.p_against_holm <= statistics.ALPHA:
            verdict.reason += f"; a later look rules out one of {wording.margin(verdict)}"
        if verdict.open and verdict.interval is not None:
            _fill_need(verdict, records, tuple(int(factors[i]) for factors in ranks))
    return verdicts


def _fill_need(verdict: Verdict, records: Records, ranks: tuple[int, int]) -> None:
    """Fill in how many seeds an undecided claim needs at its rank in Holm's order, and their cost."""
    effects = np.log(verdict.values) if verdict.effect_kind == "ratio" else np.array(verdict.values)
    spread, sign = effects.std(ddof=1), -1 if verdict.direction == "less" else 1
    needed = power.seeds_needed(
        sign * effects.mean() / spread, verdict.delta / spread, verdict.direction == "equal", verdict.looks, ranks
    )
    if needed is None:
        return
    verdict.needed = needed
    verdict.needed_look = looks.LOOKS.index(needed) + 1 if needed in looks.LOOKS else None
    minutes = []
    for method in verdict.methods:
        a_seed, verdict.needed_unit = minutes_a_seed(records.finished(method).values())
        minutes.append(a_seed * len(set(range(needed)) - records.runs[method].keys()))
    verdict.needed_minutes = tuple(minutes)
