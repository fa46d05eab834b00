"""What to run next so that a budget of time decides most claims: pure arithmetic, without files or clocks.

The unit of choice is a bundle: some claims and the look (replications.looks) that each should reach. Its cost is the
time of the missing runs, with shared runs counted once; its value is the sum of the probabilities that the claims are
decided by then. The bundle with the most decisions per second starts first, at its earliest look. The choice is made
again for each job from the current records alone, so a campaign can resume where another one stopped.
"""

import heapq
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from replications import looks

Run = tuple[str, int]  # address and seed
Targets = tuple[tuple[str, int], ...]
LOOKS = range(1, len(looks.LOOKS) + 1)
LEAST = 1e-9  # smaller probabilities count as 0
WORTH_GROWING = 0.5  # share of the best rate; claims below it alone are not combined with their neighbours


@dataclass(frozen=True)
class Question:
    """An undecided claim: the rows that it needs, and the probability of a decision by each look (0 for past looks)."""

    claim: str
    rows: tuple[str, ...]
    chance: tuple[float, ...]

    def gain(self, before: int, after: int) -> float:
        """The probability that looks `before` + 1 to `after` decide it."""
        return (self.chance[after - 1] if after else 0.0) - (self.chance[before - 1] if before else 0.0)


@dataclass(frozen=True)
class Bundle:
    """Runs that belong together: those missing for each of `claims` to reach its look, earlier looks first."""

    runs: tuple[Run, ...]
    claims: Mapping[str, int]
    value: float
    seconds: float

    @property
    def rate(self) -> float:
        return self.value / self.seconds


@dataclass(frozen=True)
class Job:
    """Seeds of one row that one process runs, with the claims that need them and their looks."""

    address: str
    seeds: tuple[int, ...]
    seconds: float
    claims: Mapping[str, int] = field(compare=False)

    @property
    def runs(self) -> frozenset[Run]:
        return frozenset((self.address, seed) for seed in self.seeds)


@dataclass(frozen=True)
class Slots:
    """How many processes run at once, seeds that a process may take, and seconds that starting a process takes."""

    count: int
    per_process: int = 1
    start: float = 0.0


class Board:
    """The undecided claims. `seconds` is the duration of a run of each row."""

    def __init__(self, questions: Sequence[Question], seconds: Mapping[str, float]):
        self.questions, self.seconds = tuple(questions), seconds
        self._groups = _connected(self.questions)
        self._known: dict[tuple, list[Bundle]] = {}

    def ranked(self, paid: frozenset[Run]) -> list[Bundle]:
        """Return candidate bundles, most decisions per second first; `paid` runs are finished or running."""
        seeds: dict[str, set[int]] = {}
        for address, seed in paid:
            seeds.setdefault(address, set()).add(seed)
        found = []
        for number, group in enumerate(self._groups):
            state = {row: frozenset(seeds.get(row, ())) for question in group for row in question.rows}
            key = (number, *state.values())
            if key not in self._known:
                self._known[key] = list(_Group(group, state, self.seconds).bundles())
            found += self._known[key]
        return sorted(found, key=lambda bundle: (-bundle.rate, bundle.seconds, bundle.runs))

    def expected(self, before: frozenset[Run], after: frozenset[Run]) -> float:
        """Return the expected number of claims decided by the runs in `after` that are not in `before`."""
        return sum(q.gain(_looks(q.rows, before), _looks(q.rows, after)) for q in self.questions)

    def cheapest(self, done: frozenset[Run]) -> Job | None:
        """The shortest run that any claim still needs."""
        runs = {run for bundle in self.ranked(done) for run in bundle.runs}
        if not runs:
            return None
        address, seed = min(runs, key=lambda run: (self.seconds[run[0]], run))
        return Job(address, (seed,), self.seconds[address], {})


def next_job(board: Board, done: frozenset[Run], running: Mapping[Job, float], left: float, slots: Slots) -> Job | None:
    """Return the job for a free slot, or None if nothing is left or nothing would finish within `left` seconds.

    `running` are jobs with their remaining seconds. The best bundle that can finish in time comes first; if none
    can, as much of the best look as finishes in time, for a later campaign to complete.
    """
    paid = done.union(*(job.runs for job in running))
    ranked = board.ranked(paid)
    for whole in (True, False):
        for bundle in ranked:
            job = _first_job(bundle, board.seconds, slots, left)
            if job and (not whole or _fits(bundle, board.seconds, running, left, slots)):
                return job
    return None


def simulate(
    board: Board, done: frozenset[Run], budget: float, slots: Slots, running: Mapping[Job, float] = ()
) -> list[tuple[float, Job]]:
    """Return the jobs that fit in `budget` seconds with their start times, if all take as long as expected."""
    now, begun = 0.0, []
    ends = [(seconds, number, job) for number, (job, seconds) in enumerate(dict(running).items())]
    heapq.heapify(ends)
    while True:
        while len(ends) < slots.count:
            under_way = {job: end - now for end, _, job in ends}
            job = next_job(board, done, under_way, budget - now, slots)
            if job is None:
                break
            begun.append((now, job))
            heapq.heappush(ends, (now + job.seconds, len(begun) + len(dict(running)), job))
        if not ends:
            return begun
        now, _, ended = heapq.heappop(ends)
        done = done | ended.runs


def _first_job(bundle: Bundle, seconds: Mapping[str, float], slots: Slots, left: float) -> Job | None:
    """The first seeds of a bundle, as many as one process takes and as finish in time."""
    address, first = bundle.runs[0]
    look = looks.looks_of(first) + 1
    alike = [seed for row, seed in bundle.runs if looks.looks_of(seed) + 1 == look and row == address]
    of_look = sum(looks.looks_of(seed) + 1 == look for _, seed in bundle.runs)
    most = min(slots.per_process, math.ceil(of_look / slots.count), int((left - slots.start) / seconds[address]))
    if most < 1:
        return None
    seeds = tuple(alike[:most])
    return Job(address, seeds, slots.start + len(seeds) * seconds[address], bundle.claims)


def _fits(
    bundle: Bundle, seconds: Mapping[str, float], running: Mapping[Job, float], left: float, slots: Slots
) -> bool:
    """Whether the bundle and the running jobs finish within `left` seconds, with the longest runs scheduled first."""
    free = sorted([0.0] * (slots.count - len(running)) + list(running.values()))
    share = slots.start / slots.per_process
    for took in sorted((seconds[row] + share for row, _ in bundle.runs), reverse=True):
        heapq.heapreplace(free, free[0] + took)
    return max(free) <= left


def _connected(questions: Sequence[Question]) -> list[tuple[Question, ...]]:
    """Claims in groups that share no row."""
    groups: list[tuple[set[str], list[Question]]] = []
    for question in questions:
        rows, members = set(question.rows), [question]
        apart = []
        for other in groups:
            if rows & other[0]:
                rows |= other[0]
                members = other[1] + members
            else:
                apart.append(other)
        groups = [*apart, (rows, members)]
    return [tuple(members) for _, members in groups]


class _Group:
    """Claims connected by shared rows, the seeds of each row, and the value of raising rows to later looks.

    `Targets` are rows with the look that each should reach, sorted.
    """

    def __init__(
        self, questions: Sequence[Question], state: Mapping[str, frozenset[int]], seconds: Mapping[str, float]
    ):
        self.questions, self.state, self.seconds = questions, state, seconds
        self.now = {
            row: next((k for k, size in _downwards() if seeds.issuperset(range(size))), 0)
            for row, seeds in state.items()
        }
        self.price = {(row, k): seconds[row] * len(self.missing(row, k)) for row in state for k in LOOKS}
        self.touching = {row: [q for q in questions if row in q.rows] for row in state}

    def missing(self, row: str, look: int) -> list[int]:
        return [seed for seed in range(looks.LOOKS[look - 1]) if seed not in self.state[row]]

    def bundles(self) -> Iterable[Bundle]:
        """Yield each claim's looks alone and, for better ones, with claims that share rows while the rate improves."""
        alone = dict.fromkeys(self.raised((), question, look) for question in self.questions for look in LOOKS)
        worth = {targets: self.weigh(targets) for targets in alone}
        worth = {targets: (value, cost) for targets, (value, cost) in worth.items() if value > LEAST and cost > 0}
        best = max((value / cost for value, cost in worth.values()), default=0.0)
        for targets, (value, cost) in list(worth.items()):
            yield self.bundle(targets, value, cost)
            while value / cost > WORTH_GROWING * best:
                more = dict.fromkeys(self.raised(targets, q, k) for q in self.near(targets) for k in LOOKS)
                rated = [(v / c, wider, v, c) for wider in more for v, c in (self.weigh(wider),) if c > 0]
                rate, targets, wider_value, wider_cost = max(rated, default=(0.0, (), 0.0, 0.0))
                if rate <= value / cost * (1 + LEAST) or targets in worth:
                    break
                worth[targets] = value, cost = wider_value, wider_cost
                yield self.bundle(targets, value, cost)

    def raised(self, targets: Targets, question: Question, look: int) -> Targets:
        """Return the targets with a claim's rows raised to a look as well."""
        levels = dict(targets)
        levels |= {row: max(look, levels.get(row, 0)) for row in question.rows if self.now[row] < look}
        return tuple(sorted(levels.items()))

    def near(self, targets: Targets) -> list[Question]:
        """The claims on any of the rows."""
        return list({q.claim: q for row, _ in targets for q in self.touching[row]}.values())

    def weigh(self, targets: Targets) -> tuple[float, float]:
        """Return value and seconds of raising rows to their looks."""
        after = {**self.now, **dict(targets)}
        gains = [q.gain(_level(q, self.now), _level(q, after)) for q in self.near(targets)]
        return sum(gains), sum([self.price[target] for target in targets])

    def bundle(self, targets: Targets, value: float, cost: float) -> Bundle:
        runs = [(row, seed) for row, look in targets for seed in self.missing(row, look)]
        runs.sort(key=lambda run: (looks.looks_of(run[1]), -self.seconds[run[0]], run))
        after = {**self.now, **dict(targets)}
        reached = {q.claim: _level(q, after) for q in self.near(targets) if _level(q, after) > _level(q, self.now)}
        return Bundle(tuple(runs), reached, value, cost)


def _level(question: Question, levels: Mapping[str, int]) -> int:
    return min([levels[row] for row in question.rows])


def _downwards() -> list[tuple[int, int]]:
    """Looks with their seeds, the last look first."""
    return [(k, looks.LOOKS[k - 1]) for k in range(len(looks.LOOKS), 0, -1)]


def _looks(rows: Iterable[str], done: frozenset[Run]) -> int:
    """Return the number of complete looks of the rows."""
    return next((k for k, size in _downwards() if all((row, s) in done for row in rows for s in range(size))), 0)
