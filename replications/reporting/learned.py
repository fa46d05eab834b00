"""A summary in words, derived from the verdicts: one line for all claims and one paragraph per paper."""

import re
from collections.abc import Mapping, Sequence

from replications.reporting import labels, wording
from replications.reporting.need import need_summary, need_text
from replications.reporting.summary import by_paper
from replications.reporting.verdict import Verdict
from replications.spec import Paper

FIRST = (("reproduced", "Held up"), ("contradicted", "Did not hold up"))


def first_line(verdicts: Sequence[Verdict]) -> str:
    """``67 of 119 claims are decided. 32 claims undecided: ... 12 cannot be tested here.``"""
    if not verdicts:
        return ""
    decided = [v for v in verdicts if v.decided]
    exact = sum(v.evidence == "exact" for v in decided)
    sentences = [
        f"{len(decided)} of {len(verdicts)} claims are decided" + (f", {exact} of them exactly" if exact else "")
    ]
    sentences.append(need_summary(verdicts))
    elsewhere = [v for v in verdicts if not v.testable]
    if elsewhere:
        sentences.append(f"{_claims(len(elsewhere))} cannot be tested in tier {elsewhere[0].tier}")
    if rest := sum(v.adjusted == "not tested" and v.testable for v in verdicts):
        sentences.append(f"{_claims(rest)} not tested, for the reason on the card")
    return "".join(f"{sentence}. " for sentence in sentences if sentence).rstrip()


def paragraphs(verdicts: Sequence[Verdict], papers: Mapping[str, Paper]) -> dict[str, tuple[str, ...]]:
    """Return sentences on each paper, by key: data and seeds, then reproduced, contradicted and open claims."""
    return {key: _paragraph(own) for key, own in by_paper(verdicts).items() if key in papers}


def _without_data(v: Verdict) -> tuple[str, ...]:
    """``eight Gaussians, 4,000 samples``: what a claim that needs no data set is tested on, by its category."""
    return tuple(filter(None, re.split("; | · ", v.category or "")[:1]))


def _paragraph(verdicts: Sequence[Verdict]) -> tuple[str, ...]:
    sentences = []
    tested = [v for v in verdicts if v.adjusted != "not tested"]
    data = dict.fromkeys(name for v in tested for name in v.data or _without_data(v))
    seeds = sorted({v.n for v in tested if v.evidence == "sampled" and v.replication == "seeds"})
    if data:
        count = f", {' to '.join(map(str, dict.fromkeys((seeds[0], seeds[-1]))))} seeds" if seeds else ""
        sentences.append(f"Tested on {'; '.join(data)}{count}.")
    for word, heading in FIRST:
        own = [_finding(v) for v in verdicts if v.adjusted == word]
        if own:
            sentences.append(f"{heading}: {'; '.join(own)}.")
    undecided = [
        f"{v.claim} ({need})" if (need := need_text(v)) else v.claim for v in verdicts if v.adjusted == "inconclusive"
    ]
    if undecided:
        sentences.append(f"Undecided: {', '.join(undecided)}.")
    rest = [v.claim for v in verdicts if v.adjusted == "not tested"]
    if rest:
        sentences.append(f"Not tested here: {', '.join(rest)}.")
    return tuple(sentences)


def _finding(v: Verdict) -> str:
    """``“The margin helps” (C2, +1.60 points, 95 % interval [+0.60, +2.60])``."""
    statement = v.statement.rstrip(".")
    if v.evidence == "exact":
        return f"“{statement}” ({v.claim}, {labels.CHECKED})"
    interval = f", 95 % interval {labels.interval(v.interval, v.effect_kind, v.decimals)}" if v.interval else ""
    return f"“{statement}” ({v.claim}, {v.effect_text}{interval}{wording.earlier(v)})"


def _claims(number: int) -> str:
    return f"{number} claim{'s' if number > 1 else ''}"
