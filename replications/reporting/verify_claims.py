"""Recompute the verdicts from the records' JSON: scipy's tests, and an independent implementation of looks and Holm."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from replications.looks import LOOKS, WEIGHTS
from replications.reporting.verdict import Verdict

Find = Callable[[str, int], Mapping[str, Any] | None]  # returns the JSON of a method's record for a seed, or None


def claims_again(find: Find, verdicts: Sequence[Verdict]) -> Iterator[str]:
    """Yield a line for each number or label of a verdict that does not follow from the records."""
    for v in verdicts:
        if v.evidence == "exact" and v.adjusted != "not tested":
            found, again = {"verdict": v.raw}, {"verdict": _checked(find, v)}
        elif v.p is not None and v.replication == "seeds":
            found = {"effect": v.effect, "lower": v.interval and v.interval[0], "upper": v.interval and v.interval[1]}
            found |= {"p": v.p, "p_against": v.p_against, "verdict": v.raw}
            again = _tested(find, v)
        elif v.evidence == "sampled" and v.p is None and v.raw in ("reproduced", "contradicted"):
            found, again = {"verdict": v.raw}, {"verdict": _without_effect(find, v)}
        else:
            continue
        for part, value in again.items():
            if not _alike(found[part], value):
                yield f"claim {v.address} {part}: {found[part]}, {value} from the records"
    papers: dict[str, list[Verdict]] = {}
    for v in verdicts:
        if v.p is not None or (v.testable and v.evidence == "sampled"):
            papers.setdefault(v.paper, []).append(v)
    for family in papers.values():
        yield from _family_again([v for v in family if v.p is not None], len(family))
    yield from _shares_again([v for family in papers.values() for v in family if v.p is not None])


def _alike(found: float | str | None, again: float | str | None) -> bool:
    if isinstance(found, str) or None in (found, again):
        return found == again
    return math.isclose(found, again, rel_tol=1e-6, abs_tol=1e-9)


def _value(find: Find, method: str | None, metric: str | None, seed: int, constant: float | None) -> float | None:
    if method is None:
        return constant
    record = find(method, seed)
    return record["metrics"].get(metric) if record and record["status"] == "finished" else None


def _both(find: Find, v: Verdict, seed: int) -> tuple[float | None, float | None]:
    return (
        _value(find, v.subject, v.subject_metric, seed, None),
        _value(find, v.reference, v.reference_metric, seed, v.expected),
    )


def _tested(find: Find, v: Verdict) -> dict[str, float | str]:
    """Return effect and interval of the last complete look, all sequential p-values, and the first decision."""
    from scipy import stats

    delta, back = v.smallest_effect, float
    if v.effect_kind == "ratio":
        delta, back = math.log1p(delta), math.exp
    best, word, pairs = {"p": 1.0, "p_against": 1.0}, "inconclusive", []
    for size, weight in zip(LOOKS, WEIGHTS, strict=True):
        methods = (v.subject, v.reference) if v.reference else (v.subject,)
        if any(find(method, seed) is None for method in methods for seed in range(size)):
            break
        of_look = [_both(find, v, seed) for seed in range(size)]
        pairs = [pair for pair in of_look if None not in pair]
        if len(pairs) < 3 or any((a is None) != (b is None) for a, b in of_look):
            continue
        x, y = np.array(pairs).T
        if v.effect_kind == "ratio":
            x, y = np.log(x), np.log(y)
        scale = 1.0 if v.effect_kind == "ratio" else np.abs([x, y]).max()
        if np.std(x - y, ddof=1) <= 1e-12 * scale + 1e-9 * abs(np.mean(x - y)):
            continue

        def one_sided(shift: float, alternative: str, x=x, y=y) -> float:
            return float(stats.ttest_rel(x, y + shift, alternative=alternative).pvalue)

        if v.direction == "equal":
            p = max(one_sided(-delta, "greater"), one_sided(delta, "less"))
            p_against = 2 * min(one_sided(delta, "greater"), one_sided(-delta, "less"))
        else:
            less = {"greater": "less", "less": "greater"}[v.direction]
            p = 2 * one_sided(0, v.direction)
            p_against = 2 * one_sided(delta if v.direction == "greater" else -delta, less)
        best = {"p": min(best["p"], p / weight), "p_against": min(best["p_against"], p_against / weight)}
        if word == "inconclusive":
            word = "contradicted" if best["p_against"] <= 0.05 else "reproduced" if best["p"] <= 0.05 else word
    again = best | {"verdict": word}
    if not pairs:
        return again
    x, y = np.array(pairs).T
    if v.effect_kind == "ratio":
        x, y = np.log(x), np.log(y)
    again["effect"] = back(float(np.mean(x - y)))
    if v.interval is not None:
        interval = stats.ttest_rel(x, y).confidence_interval(0.95)
        again |= {"lower": back(float(interval.low)), "upper": back(float(interval.high))}
    return again


def _without_effect(find: Find, v: Verdict) -> str:
    """Return the verdict on a claim whose sides are equal at every seed, with at least three different values."""
    pairs = [_both(find, v, seed) for seed in v.seeds]
    equal = all(None not in pair and math.isclose(*pair, rel_tol=1e-11) for pair in pairs)
    if not equal or v.smallest_effect <= 0 or (v.replication == "seeds" and len({a for a, _ in pairs}) < 3):
        return "inconclusive"
    return "reproduced" if v.direction == "equal" else "contradicted"


def _checked(find: Find, v: Verdict) -> str:
    """Return the verdict on an exact claim: each seed is checked alone."""
    failed = False
    inside = []
    methods = {v.subject, v.reference} - {None}
    for seed in sorted({*v.seeds, *v.failed_seeds}):
        a, b = _both(find, v, seed)
        if a is None or b is None:
            failed = failed or any(find(method, seed) for method in methods)
            continue
        rounding = 1e-12 * max(abs(a), abs(b))
        change, delta = a - b, v.smallest_effect
        if v.effect_kind == "ratio":
            change, delta, rounding = math.log(a / b), math.log1p(delta), 1e-12
        if v.direction == "equal":
            inside.append(abs(change) <= delta + rounding)
        else:
            change = -change if v.direction == "less" else change
            inside.append(change > rounding and change >= delta - rounding)
    return "contradicted" if not all(inside) else "inconclusive" if failed else "reproduced"


def _family_again(family: Sequence[Verdict], size: int) -> Iterator[str]:
    """Apply Holm to the statements and to the denials of one paper; `size` includes claims that were never run."""
    for name in ("p", "p_against"):
        own = [min(1.0, getattr(v, name) * (2 if v.direction == "equal" else 1)) for v in family]
        largest, place = 0.0, size
        for i in sorted(range(len(own)), key=own.__getitem__):
            largest, place = max(largest, min(1.0, own[i] * place)), place - 1
            found = getattr(family[i], f"{name}_holm")
            if not _alike(found, largest):
                yield f"claim {family[i].address} {name}_holm: {found}, {largest} from its family"
    for v in family:
        kept = {"reproduced": v.p_holm, "contradicted": v.p_against_holm}.get(v.raw)
        word = v.raw if kept is None or kept <= 0.05 else "inconclusive"
        if v.adjusted != word:
            yield f"claim {v.address}: {v.adjusted}, {word} by Holm"


def _shares_again(tested: Sequence[Verdict]) -> Iterator[str]:
    """Apply Benjamini and Hochberg over all papers, with scipy."""
    from scipy import stats

    for p, q in (("p", "q"), ("p_against", "q_against")) if tested else ():
        own = [min(1.0, getattr(v, p) * (2 if v.direction == "equal" else 1)) for v in tested]
        for v, value in zip(tested, stats.false_discovery_control(own), strict=True):
            if not _alike(getattr(v, q), float(value)):
                yield f"claim {v.address} {q}: {getattr(v, q)}, {value} from all papers"
