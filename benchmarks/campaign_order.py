"""Decided claims by minute: the campaign's order of runs against that of the catalogue, simulated or replayed.

    python -m benchmarks.campaign_order --minutes 30 --cores 2 --begin 3
    python -m benchmarks.campaign_order --minutes 30 --cores 2 --begin 5 --replay results

Seconds of a run and the effects of each claim are those of the published records of the tier. A world is drawn from
them: each claim's mean and spread within what three seeds leave open (--truth measured: exactly as measured), and its
effects at seeds 0 to 11; with `--begin 3` the first three are the published ones. Both orders meet the same worlds, and
neither begins a run that would not end in time. The catalogue's order goes row by row, three seeds of each; then
row by row to the next look, of claims that are still undecided. The campaign knows what it has run, and in a third
column (--begin 0) the published effects from the start. Verdicts: all claims of a paper that the tier can test are one
family.

With `--replay` nothing is drawn: RESULTS/TIER has finished records, of which both orders first know the seeds below
`--begin`. Each further run takes the time of its record, which is read when the run ends, and the claims are judged as
in the report. The catalogue's order takes the rows that the suite's own next look takes (`reporting.need`). Where an
order asks for a run without a record, its count ends, and the minute is told; beyond it the run is taken to need the
row's usual time, and the counts are bounds: claims on rows that lack a run count as undecided in the one and as decided
in the other.
"""

import argparse
import heapq
from pathlib import Path
from typing import NamedTuple

import numpy as np

from replications import catalogue, looks
from replications.planning.campaign import Board, Job, Question, Run, Slots, next_job
from replications.planning.estimate import START_SECONDS
from replications.planning.knobs import Knobs
from replications.planning.plan import Plan
from replications.planning.spend import open_board
from replications.planning.undecided import State, Study
from replications.records import RunRecord
from replications.reporting import statistics
from replications.reporting.need import next_seeds
from replications.reporting.predictive import power, sequential
from replications.reporting.results import Records
from replications.reporting.verdicts import judge

SEEDS = looks.LOOKS[-1]


class World:
    """Claims with drawn effects, rows with published seconds."""

    def __init__(self, study: Study, random: np.random.Generator, truth: str, begin: int):
        self.claims, self.published, self.effects = {}, {}, {}
        self.seconds = study.look().seconds
        for name, claim in study.claims.items():
            known = study.published_effects(name)
            if len(known) < 2 or claim.evidence == "exact":
                continue
            n, mean, sd = len(known), np.mean(known), np.std(known, ddof=1)
            if truth == "drawn":
                sd = sd * np.sqrt((n - 1) / random.chisquare(n - 1))
                mean = random.normal(mean, sd / np.sqrt(n))
            effects = random.normal(mean, sd, SEEDS)
            effects[:begin] = known[:begin]
            rows = tuple(dict.fromkeys(side.method for side in claim.sides().values()))
            self.claims[name] = (rows, claim.direction, claim.delta)
            self.published[name], self.effects[name] = known, effects
        self.rows = sorted({row for rows, _, _ in self.claims.values() for row in rows})

    def took(self, job: Job) -> float:
        return job.seconds

    def unrecorded(self, job: Job) -> frozenset[Run]:
        return frozenset()

    def wanted(self, decided: dict[str, str]) -> dict[str, int]:
        """The rows of undecided claims, with the seeds that each may take."""
        return {row: SEEDS for name, (rows, _, _) in self.claims.items() if name not in decided for row in rows}

    def judge(self, done: frozenset) -> dict[str, str]:
        """The decided claims."""
        decided = {}
        for paper in {name.partition("/")[0] for name in self.claims}:
            names = [name for name in self.claims if name.startswith(f"{paper}/")]
            pairs = np.array([self._p(name, done) for name in names])
            equal = np.zeros(len(names), bool)  # `sequential` has doubled theirs
            p, p_against = statistics.adjust_family(pairs[:, 0], pairs[:, 1], equal)
            for name, one, other in zip(names, p, p_against, strict=True):
                if min(one, other) <= statistics.ALPHA:
                    decided[name] = "contradicted" if other <= statistics.ALPHA else "reproduced"
        return decided

    def level(self, name: str, done: frozenset) -> int:
        rows = self.claims[name][0]
        return sum(all((row, s) in done for row in rows for s in range(size)) for size in looks.LOOKS)

    def _p(self, name: str, done: frozenset) -> tuple[float, float]:
        level = self.level(name, done)
        if not level:
            return 1.0, 1.0
        return sequential(self.effects[name][: looks.LOOKS[level - 1]], *self.claims[name][1:])

    def board(self, done: frozenset, decided: dict[str, str], told: bool) -> Board:
        """The undecided claims, with chances by the effects that have been seen; `told`: else by the published."""
        questions = []
        for name, (rows, direction, margin) in self.claims.items():
            level = self.level(name, done)
            if name in decided or level == len(looks.LOOKS):
                continue
            known = tuple(self.effects[name][: looks.LOOKS[level - 1]]) if level else ()
            known = known or (self.published[name] if told else ())
            family = [other for other in self.claims if other.partition("/")[0] == name.partition("/")[0]]
            words = [decided.get(other) for other in family]
            alphas = [statistics.ALPHA / (len(family) - words.count(w)) for w in ("reproduced", "contradicted")]
            chance = power(known, direction, margin, *alphas, elsewhere=not level)
            past = chance[level - 1] if level else 0.0
            questions.append(Question(name, rows, tuple(value - past for value in chance)))
        return Board(questions, self.seconds)


class Recorded(Study):
    """The claims by records that are there, of which only some are seen so far."""

    def __init__(self, plan: Plan, papers: tuple[str, ...]):
        super().__init__(plan, papers)
        self._seen: frozenset[Run] = frozenset((row, seed) for row in self.rows for seed in range(SEEDS))
        self.all = self.look().took
        self._states: dict[frozenset, State] = {}

    def _record(self, row: str, seed: int) -> RunRecord | None:
        return super()._record(row, seed) if (row, seed) in self._seen else None

    def state(self, done: frozenset[Run]) -> State:
        if done not in self._states:
            self._seen = done
            self._states = {done: self.look()}
        return self._states[done]

    @property
    def seconds(self) -> dict[str, float]:
        (state,) = self._states.values()
        return state.seconds

    def took(self, job: Job) -> float:
        """Seconds of a job by its records; a run without one takes what runs of its row usually take."""
        usual = self.seconds[job.address]
        return START_SECONDS + sum(self.all.get(run, usual) for run in job.runs)

    def unrecorded(self, job: Job) -> frozenset[Run]:
        return job.runs - self.all.keys()

    def judge(self, done: frozenset[Run]) -> dict[str, str]:
        return self.state(done).decided

    def board(self, done: frozenset[Run], decided: dict[str, str], told: bool) -> Board:
        return open_board(self.state(done))

    def wanted(self, decided: dict[str, str]) -> dict[str, int]:
        """The rows that the suite's next look takes, with its seeds."""
        runs = {row: {seed: r for seed in range(SEEDS) if (r := self._record(row, seed))} for row in self.rows}
        records = Records(self.plan.knobs.tier, runs={row: found for row, found in runs.items() if found})
        return next_seeds(judge(records, self.known, self.tasks, True, self.selected), len(looks.LOOKS))

    def open_on(self, rows: set[str], decided: dict[str, str]) -> int:
        """How many undecided claims are on any of the rows."""
        of = {name: {side.method for side in claim.sides().values()} for name, claim in self.claims.items()}
        return sum(bool(rows & of[name]) for name in of.keys() - decided.keys())


def in_catalogue_order(
    world: World | Recorded, paid: frozenset[Run], decided: dict, left: float, slots: Slots
) -> Job | None:
    """The next job of the plain order, or None."""
    wanted = world.wanted(decided)
    for before, size in zip((0, *looks.LOOKS), looks.LOOKS, strict=False):
        for row in world.rows:
            end = min(size, wanted.get(row, 0))
            seeds = tuple(seed for seed in range(before, end) if (row, seed) not in paid)[: slots.per_process]
            took = slots.start + len(seeds) * world.seconds[row]
            if seeds and took <= left:
                return Job(row, seeds, took, {})
    return None


class Story(NamedTuple):
    """Decided claims by minute: at least, and claims that runs without a record leave open. And where that begins."""

    points: list[tuple[float, int, int]]
    followed: float
    missing: Run | None

    def at(self, mark: float) -> tuple[int, int]:
        """The decided claims at a minute: at least and at most."""
        _, least, open_ = [point for point in self.points if point[0] <= mark][-1]
        return least, least + open_


def play(world: World | Recorded, minutes: float, slots: Slots, done: frozenset[Run], how: str) -> Story:
    """Return the decided claims by minute, from the state `done` to the end of the budget."""
    decided = world.judge(done)
    board = world.board(done, decided, how == "told")
    now, ends, points = 0.0, [], [(0.0, len(decided), 0)]
    lost, followed, missing = frozenset(), minutes, None
    while True:
        while len(ends) < slots.count:
            running = {job: max(1.0, begun + job.seconds - now) for _, _, begun, job in ends}
            left = 60 * minutes - now
            if how == "catalogue":
                paid = done.union(lost, *(job.runs for job in running))
                job = in_catalogue_order(world, paid, decided, left, slots)
            else:
                job = next_job(board, done | lost, running, left, slots)
            if job is None:
                break
            if world.unrecorded(job) and missing is None:
                followed, missing = now / 60, min(world.unrecorded(job))
            heapq.heappush(ends, (now + world.took(job), job.address + str(job.seeds), now, job))
        if not ends or ends[0][0] > 60 * minutes:
            return Story(points, followed, missing)
        now, _, _, job = heapq.heappop(ends)
        lost |= world.unrecorded(job)
        done |= job.runs - lost
        decided = world.judge(done)
        if how != "catalogue":
            board = world.board(done, decided, how == "told")
        points.append((now / 60, len(decided), world.open_on({row for row, _ in lost}, decided) if lost else 0))


def replay(study: Recorded, minutes: float, slots: Slots, begin: int) -> list[str]:
    """Return a table of both orders on the same records, and how far each could be followed."""
    done = frozenset(run for run in study.all if run[1] < begin)
    told = {how: play(study, minutes, slots, done, how) for how in ("catalogue", "campaign")}
    lines = [
        f"decided of {len(study.claims)} claims by {len(study.all)} records, {len(done)} of them there at the "
        f"beginning (seeds below {begin}), {slots.count} runs at once",
        "minute  catalogue  campaign",
    ]
    for mark in sorted({mark for mark in (0, 5, 10, 20, 30, 45, 60, minutes) if mark <= minutes}):
        counts = [
            f"{least}-{most}" if most > least else str(least) for least, most in (s.at(mark) for s in told.values())
        ]
        lines.append(f"{mark:6g}  {counts[0]:>9}  {counts[1]:>8}")
    for how, story in told.items():
        why = "" if story.missing is None else " (there {} seed {} begins, which has no record)".format(*story.missing)
        lines.append(f"{how}: followed to minute {story.followed:.1f}{why}, {story.at(story.followed)[0]} decided")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tier", default="mini")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--begin", type=int, default=3, choices=(0, 3, 5, 8), help="seeds that have been run")
    parser.add_argument("--truth", default="drawn", choices=("drawn", "measured"))
    parser.add_argument("--worlds", type=int, default=10)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--replay", type=Path, metavar="RESULTS", help="folder of records to replay, by tier")
    args = parser.parse_args()
    papers = tuple(key for key in catalogue.papers() if catalogue.methods_of([key], args.tier))
    # A folder of its own: records of one's own must not be taken for the published ones.
    results = str(args.replay or args.results)
    plan = Plan(Knobs(args.tier, papers, tuple(range(SEEDS)), device="cpu", results=results, work="/nonexistent"))
    config = catalogue.tier_config(args.tier)
    slots = Slots(max(1, args.cores // config.threads), config.seeds_per_process, START_SECONDS)
    if args.replay:
        print("\n".join(replay(Recorded(plan, papers), args.minutes, slots, args.begin)))
    else:
        simulate(Study(plan, papers), args, slots)


def simulate(study: Study, args: argparse.Namespace, slots: Slots) -> None:
    if args.begin > 3:
        raise SystemExit("a simulation begins at 0 or 3 seeds, of which there are published effects; or give --replay")
    orders = ("catalogue", "campaign", *(("told",) if args.begin == 0 else ()))
    marks = np.linspace(0, args.minutes, 7)
    curves = {how: [] for how in orders}
    for number in range(args.worlds):
        world = World(study, np.random.default_rng(number), args.truth, args.begin)
        begin = frozenset((row, seed) for row in world.rows for seed in range(args.begin))
        for how in orders:
            story = play(world, args.minutes, slots, begin, how)
            curves[how].append([max(n for at, n, _ in story.points if at <= mark) for mark in marks])
    print(
        f"decided of {len(world.claims)} claims, mean of {args.worlds} worlds (truth {args.truth}), {slots.count} runs "
        f"at once, {args.begin} seeds there"
    )
    names = {"catalogue": "catalogue", "campaign": "campaign", "told": "campaign, effects known"}
    print("minute  " + "  ".join(names[how] for how in orders))
    for column, mark in enumerate(marks):
        means = [np.mean(curves[how], axis=0)[column] for how in orders]
        print(f"{mark:6.0f}  " + "  ".join(f"{m:{len(names[how])}.1f}" for how, m in zip(orders, means, strict=True)))


if __name__ == "__main__":
    main()
