"""The reasons of verdicts, in words."""

import math
from collections.abc import Sequence

from replications import looks
from replications.reporting import labels
from replications.reporting.verdict import Verdict


def margin(v: Verdict) -> str:
    """The smallest effect of interest, as it is written beside an effect; of an equality, the range."""
    kind, decimals = v.effect_kind, v.decimals
    quotient = 1 + v.smallest_effect
    if v.direction == "equal":
        room = f"{labels.effect(1 / quotient, kind, decimals)} to {labels.effect(quotient, kind, decimals)}"
        return room if kind == "ratio" else f"±{labels.number(v.smallest_effect, decimals)} {v.unit}".strip()
    if kind == "ratio":
        return labels.effect(1 / quotient if v.direction == "less" else quotient, kind, decimals)
    return f"{labels.number(v.smallest_effect, decimals)} {v.unit}".strip()


def why(v: Verdict) -> str:
    """Return the reason for a raw verdict."""
    room, few = margin(v), v.evidence_text
    if v.raw == "inconclusive" and v.interval is None:
        return f"all {v.n} effects agree: neither their spread nor an interval can be estimated"
    if v.direction == "equal":
        finding = {
            "reproduced": f"the effect is inside {room}",
            "contradicted": f"the effect is outside {room}",
            "inconclusive": f"{few} leave room for effects inside and outside {room}",
        }[v.raw]
    else:
        finding = {
            "reproduced": f"the effect has the claimed sign, and {_whether_large(v)}",
            "contradicted": f"an effect of {room} in the claimed direction is ruled out",
            "inconclusive": f"{few} leave room for no effect and for one of {room}",
        }[v.raw]
    early = v.reached and v.reached < v.looks
    return f"at the {look(v.reached)}: {finding}" if early else finding


def _whether_large(v: Verdict) -> str:
    least = -v.smallest_effect if v.direction == "less" else v.smallest_effect
    if v.effect_kind == "ratio":
        least = 1 / (1 + v.smallest_effect) if v.direction == "less" else 1 + v.smallest_effect
    ends = v.interval or (v.effect, v.effect)
    if v.interval and (ends[1] <= least if v.direction == "less" else ends[0] >= least):
        return f"its interval lies beyond {margin(v)}"
    return f"one of {margin(v)} is possible"


def earlier(v: Verdict) -> str:
    """``, decided at 5 seeds`` for a verdict of an earlier look that the interval over all seeds does not show."""
    if not v.decided or v.interval is None or not v.reached or v.reached >= v.looks:
        return ""
    sign = -1 if v.direction == "less" else 1
    low, high = sorted(sign * (math.log(end) if v.effect_kind == "ratio" else end) for end in v.interval)
    if v.direction == "equal":
        inside, outside = -v.delta <= low and high <= v.delta, low > v.delta or high < -v.delta
        shows = inside if v.adjusted == "reproduced" else outside
    else:
        shows = low > 0 if v.adjusted == "reproduced" else high < v.delta
    return "" if shows else f", decided at {looks.LOOKS[v.reached - 1]} seeds"


def look(number: int) -> str:
    """``second look (5 seeds)``."""
    return f"{labels.look(number)} look ({looks.LOOKS[number - 1]} seeds)"


def why_checked(v: Verdict, holds: Sequence[bool]) -> str:
    """Describe the values of an exact claim relative to its margin; `holds` is by value."""
    rule = f"within {margin(v)}" if v.direction == "equal" else f"{margin(v)} or more in the claimed direction"
    if all(holds):
        return f"{labels.CHECKED}: {f'each of {v.n} values is' if v.n > 1 else 'the value is'} {rule}"
    beyond = len(holds) - sum(holds)
    return f"{labels.CHECKED}: {f'{beyond} of {v.n} values are' if v.n > 1 else 'the value is'} not {rule}"


def why_zero(v: Verdict, varies: bool) -> str:
    """Describe effects that are all zero."""
    text = f"no effect at all: the sides are equal in each of {v.n} {v.replication}"
    if not varies:
        return f"{text}, but have fewer than three different values: this may be a ceiling"
    return text if v.smallest_effect > 0 else f"{text}, but the claim names no smallest effect"


def taken_back(v: Verdict) -> str:
    """Return the p-value by which Holm's adjustment revokes a raw verdict."""
    before, after = (v.p, v.p_holm) if v.raw == "reproduced" else (v.p_against, v.p_against_holm)
    change = f"p {labels.p_value(before)} → {labels.p_value(after)}"
    if v.family > 1:
        return f"{v.raw} on its own, but not among {v.family} claims of the paper ({change} by Holm)"
    return f"{v.raw} at 5 %, but statement and denial share these ({change})"


def waiting(v: Verdict) -> str:
    """``seeds 5, 6 wait for the third look at 8 (+0.31, +0.28)``: seeds beyond the last complete look."""
    groups: dict[str, dict[int, float | None]] = {}
    for seed, effect in zip(v.waiting, v.waiting_values, strict=True):
        place = next((k for k in range(v.looks, len(looks.LOOKS)) if seed < looks.LOOKS[k]), None)
        words = "of no look" if place is None else f"for the {labels.look(place + 1)} look at {looks.LOOKS[place]}"
        groups.setdefault(words, {})[seed] = effect
    parts = []
    for words, effects in groups.items():
        several = len(effects) > 1
        verb = ("are" if several else "is") if words == "of no look" else "wait" if several else "waits"
        values = [labels.effect(x, v.effect_kind, v.decimals) or "no pair" for x in effects.values()]
        parts.append(f"{labels.seeds(effects)} {verb} {words} ({', '.join(values)})")
    return "; ".join(parts)
