"""What undecided claims still need: the rows that take the next look, and the cost of their seeds."""

from collections.abc import Iterable

from replications import looks
from replications.reporting import labels
from replications.reporting.power import MOST_SEEDS
from replications.reporting.verdict import Verdict


def next_seeds(verdicts: Iterable[Verdict], most: int, hopeless: bool = False) -> dict[str, int]:
    """Return for each method (``arcface/softmax``) that an undecided claim needs, the seeds of its next look.

    A claim is undecided if it was tested and is inconclusive. Looks after the `most`-th are left out, and so are
    claims that need more seeds than the last look has, unless `hopeless` is set. Claims with a seed that failed on one
    side, or with test folds, are always left out: no further seed can decide them.
    """
    rows: dict[str, int] = {}
    for verdict in verdicts:
        within = verdict.needed is not None and verdict.needed <= looks.LOOKS[-1]
        if verdict.open and verdict.looks < most and (within or hopeless):
            for method in verdict.methods:
                rows[method] = max(rows.get(method, 0), looks.LOOKS[verdict.looks])
    return rows


def need_text(verdict: Verdict) -> str:
    """``8 seeds (the third look), 24 core-minutes more``; empty if more seeds cannot help."""
    if not verdict.open:
        return ""
    if verdict.needed is None:
        return f"not within {MOST_SEEDS} seeds here"
    cost = _cost(sum(dict(zip(verdict.methods, verdict.needed_minutes, strict=True)).values()), verdict.needed_unit)
    if verdict.needed_look is None:
        return ", ".join(filter(None, (f"about {verdict.needed} seeds, more than the last look has", cost)))
    return ", ".join(filter(None, (f"{verdict.needed} seeds (the {labels.look(verdict.needed_look)} look)", cost)))


def _cost(minutes: float, unit: str) -> str:
    return f"{labels.minutes(minutes)} {unit} more" if unit and minutes else ""


def need_summary(verdicts: Iterable[Verdict]) -> str:
    """``12 claims undecided: 7 need 8 seeds (24 core-minutes more), 3 need 12, 2 not within 40``; empty if none is.

    A row that several claims need is counted once.
    """
    undecided = [verdict for verdict in verdicts if verdict.adjusted == "inconclusive"]
    groups: dict[int | None, list[Verdict]] = {}
    for verdict in undecided:
        if verdict.open:
            groups.setdefault(verdict.needed, []).append(verdict)
    steps = {n: groups.pop(n) for n in looks.LOOKS if n in groups}
    never = groups.pop(None, [])
    far = [verdict for of in groups.values() for verdict in of]
    parts = []
    for n, of in steps.items():
        costs = ", ".join(filter(None, (_cost(*pair) for pair in _together(of))))
        parts.append(f"{len(of)} need{'s' if len(of) == 1 else ''} {n} seeds" + (f" ({costs})" if costs else ""))
    if far:
        parts.append(f"{len(far)} more than {looks.LOOKS[-1]}")
    if never:
        parts.append(f"{len(never)} not within {MOST_SEEDS}")
    if rest := len(undecided) - sum(map(len, steps.values())) - len(far) - len(never):
        parts.append(f"{rest} cannot be decided by more seeds")
    claims = f"{len(undecided)} claim{'s' if len(undecided) > 1 else ''} undecided"
    return f"{claims}: {', '.join(parts)}" if undecided else ""


def _together(verdicts: Iterable[Verdict]) -> list[tuple[float, str]]:
    """Minutes (and their unit) of the runs that the claims need, each row once."""
    rows: dict[str, tuple[float, str]] = {}
    for verdict in verdicts:
        for method, minutes in zip(verdict.methods, verdict.needed_minutes, strict=True):
            rows[method] = max(rows.get(method, (0.0, "")), (minutes, verdict.needed_unit))
    units = dict.fromkeys(unit for _, unit in rows.values())
    return [(sum(minutes for minutes, of in rows.values() if of == unit), unit) for unit in units]
