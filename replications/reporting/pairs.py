"""The records of a claim's two sides: the pairs of each look, failed seeds, and seeds of incomplete looks.

A look of n seeds is complete if both sides have a record, finished or failed, of each of the seeds 0 to n - 1.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from replications import looks
from replications.records import RunRecord
from replications.reporting import labels
from replications.reporting.results import Records
from replications.spec import Claim, Side


@dataclass(frozen=True)
class Pairs:
    """The sides of a claim, subject first; for each its usable runs by seed, and why its other seeds have none."""

    sides: tuple[Side, ...]
    runs: list[dict[int, RunRecord]]
    lost: list[dict[int, str]]

    @cached_property
    def recorded(self) -> list[set[int]]:
        """The seeds of which each side has a record."""
        return [runs.keys() | lost.keys() for runs, lost in zip(self.runs, self.lost, strict=True)]

    @cached_property
    def paired(self) -> list[int]:
        """The seeds of which every side has a value."""
        return sorted(set.intersection(*map(set, self.runs)))

    @cached_property
    def looks(self) -> int:
        """How many looks are complete."""
        every, seed = set.intersection(*self.recorded), 0
        while seed in every:
            seed += 1
        return looks.looks_of(seed)

    @property
    def size(self) -> int:
        """The number of seeds of the last complete look."""
        return looks.LOOKS[self.looks - 1] if self.looks else 0

    @property
    def waiting(self) -> list[int]:
        """Seeds beyond the last complete look of which a side has a record; none before the first look is complete."""
        return sorted(seed for seed in set.union(*self.recorded) if seed >= self.size) if self.looks else []

    @property
    def both_failed(self) -> set[int]:
        return set.intersection(*map(set, self.lost)) if len(self.sides) == 2 else set()

    @property
    def one_failed(self) -> set[int]:
        """The seeds that failed, or lack the metric, on one side only."""
        return set.union(*map(set, self.lost)) - self.both_failed

    def failures(self, seeds: Iterable[int]) -> tuple[str, str]:
        """Return which of `seeds` failed, or lack the metric, on one side only, and which on both; empty if none."""
        seeds, said = set(seeds), {}
        for side, of in zip(self.sides, self.lost, strict=True):
            for seed in sorted(of.keys() & self.one_failed & seeds):
                said.setdefault(f"{side.method} {of[seed]}", []).append(seed)
        both = self.both_failed & seeds
        one_side = "; ".join(_at(what, of) for what, of in said.items())
        return one_side, f"{labels.seeds(both)} left out: failed on both sides" if both else ""

    def why_no_look(self) -> str:
        """Return why no look is complete; empty if one is."""
        if self.looks:
            return ""
        every, first = sorted(set.intersection(*self.recorded)), looks.LOOKS[0]
        if every != list(range(len(every))):
            return f"{labels.seeds(every)} are a trial: the first look is of the seeds 0 to {first - 1}"
        few = f"{len(every)} seed{'s' if len(every) > 1 else ''}, the first look needs {first}"
        return "; ".join(filter(None, (few, *self.failures(every))))


def pairs_of(claim: Claim, records: Records) -> Pairs:
    """Return the records of a claim's sides."""
    sides = tuple(claim.sides().values())
    runs = [
        {seed: run for seed, run in records.finished(side.method).items() if side.metric in run.metrics}
        for side in sides
    ]
    return Pairs(sides, runs, [_lost(records, side, own) for side, own in zip(sides, runs, strict=True)])


def _lost(records: Records, side: Side, by_seed: dict[int, RunRecord]) -> dict[int, str]:
    """Return why seeds of a side have no value, by seed."""
    lost = {}
    for seed, record in records.runs.get(side.method, {}).items():
        if record.status == "failed":
            reason = record.reason or "no reason given"
            lost[seed] = "diverged" if reason == "diverged" else f"failed ({reason})"
        elif seed not in by_seed:
            lost[seed] = f"has no metric '{side.metric}'"
    return lost


def _at(what: str, seeds: list[int]) -> str:
    """``detr diverged at seeds 1, 4``; text in brackets stays last."""
    head, bracket, tail = what.partition(" (")
    return f"{head} at {labels.seeds(seeds)}{bracket}{tail}"


def why_missing(records: Records, pairs: Pairs) -> str:
    """Return which side has no usable run, and why."""
    reasons = []
    for side, by_seed in zip(pairs.sides, pairs.runs, strict=True):
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


def minutes_a_seed(runs: Iterable[RunRecord]) -> tuple[float, str]:
    """Return the mean cost of a seed of a method and its unit: core-minutes or GPU-minutes."""
    known = [run for run in runs if run.cost.total_seconds is not None]
    if not known:
        return 0.0, ""
    on_gpu = known[0].provenance is not None and known[0].provenance.device_kind != "cpu"
    units = [1 / run.cost.runs_per_gpu if on_gpu else run.spec.threads for run in known]
    spent = [run.cost.total_seconds * run.cost.processes * of / 60 for run, of in zip(known, units, strict=True)]
    return sum(spent) / len(spent), "GPU-minutes" if on_gpu else "core-minutes"
