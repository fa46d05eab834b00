"""Decided claims by minute: the campaign's order of runs against that of the catalogue, simulated.

    python -m benchmarks.campaign_order --minutes 30 --cores 2 --begin 3

Seconds of a run and the effects of each claim are those of the published records of the tier. A world is drawn from
them: each claim's mean and spread within what three seeds leave open (--truth measured: exactly as measured), and its
effects at seeds 0 to 11; with `--begin 3` the first three are the published ones. Both orders meet the same worlds, and
neither begins a run that would not end in time. The catalogue's order goes row by row, three seeds of each; then
row by row to the next look, of claims that are still undecided. The campaign knows what it has run, and in a third
column (--begin 0) the published effects from the start. Verdicts: all claims of a paper that the tier can test are one
family.
"""

import argparse
import heapq
from pathlib import Path

import numpy as np

from replications import catalogue, looks
from replications.planning.campaign import Board, Job, Question, Slots, next_job
from replications.planning.knobs import Knobs
from replications.planning.plan import Plan
from replications.planning.undecided import Study
from replications.reporting import statistics
from replications.reporting.predictive import power, sequential

SEEDS = looks.LOOKS[-1]
START_SECONDS = 6.0


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
            margin = float(np.log1p(claim.smallest_effect)) if claim.effect == "ratio" else claim.smallest_effect
            rows = tuple(dict.fromkeys(side.method for side in claim.sides().values()))
            self.claims[name] = (rows, claim.direction, margin)
            self.published[name], self.effects[name] = known, effects
        self.rows = sorted({row for rows, _, _ in self.claims.values() for row in rows})

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
            chance = power(known, direction, margin, *alphas)
            past = chance[level - 1] if level else 0.0
            questions.append(Question(name, rows, tuple(value - past for value in chance)))
        return Board(questions, self.seconds)


def in_catalogue_order(world: World, done: frozenset, paid: frozenset, decided: dict, left: float, slots: Slots):
    """The next job of the plain order, or None."""
    for before, size in zip((0, *looks.LOOKS), looks.LOOKS, strict=False):
        for row in world.rows:
            open_ = any(row in rows and name not in decided for name, (rows, _, _) in world.claims.items())
            seeds = tuple(seed for seed in range(before, size) if (row, seed) not in paid)[: slots.per_process]
            took = slots.start + len(seeds) * world.seconds[row]
            if seeds and open_ and took <= left:
                return Job(row, seeds, took, {})
    return None


def play(world: World, minutes: float, slots: Slots, begin: int, how: str) -> list[tuple[float, int]]:
    """Return minutes with the decided claims, from the begin to the end of the budget."""
    done = frozenset((row, seed) for row in world.rows for seed in range(begin))
    decided = world.judge(done)
    board = world.board(done, decided, how == "told")
    now, ends, story = 0.0, [], [(0.0, len(decided))]
    while True:
        while len(ends) < slots.count:
            running = {job: end - now for end, _, job in ends}
            left = 60 * minutes - now
            if how == "catalogue":
                paid = done.union(*(job.runs for job in running))
                job = in_catalogue_order(world, done, paid, decided, left, slots)
            else:
                job = next_job(board, done, running, left, slots)
            if job is None:
                break
            heapq.heappush(ends, (now + job.seconds, job.address + str(job.seeds), job))
        if not ends:
            return story
        now, _, job = heapq.heappop(ends)
        done |= job.runs
        found = world.judge(done)
        if how != "catalogue":
            board = world.board(done, found, how == "told")
        decided = found
        story.append((now / 60, len(decided)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tier", default="mini")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--begin", type=int, default=3, choices=(0, 3), help="seeds that have been run")
    parser.add_argument("--truth", default="drawn", choices=("drawn", "measured"))
    parser.add_argument("--worlds", type=int, default=10)
    parser.add_argument("--results", type=Path, default=Path("results"))
    args = parser.parse_args()
    papers = tuple(key for key in catalogue.papers() if catalogue.methods_of([key], args.tier))
    # A folder of its own: records of one's own must not be taken for the published ones.
    knobs = Knobs(args.tier, papers, tuple(range(SEEDS)), device="cpu", results=str(args.results), work="/nonexistent")
    study = Study(Plan(knobs), papers)
    config = catalogue.tier_config(args.tier)
    slots = Slots(max(1, args.cores // config.threads), config.seeds_per_process, START_SECONDS)
    orders = ("catalogue", "campaign", *(("told",) if args.begin == 0 else ()))
    marks = np.linspace(0, args.minutes, 7)
    curves = {how: [] for how in orders}
    for number in range(args.worlds):
        world = World(study, np.random.default_rng(number), args.truth, args.begin)
        for how in orders:
            story = play(world, args.minutes, slots, args.begin, how)
            curves[how].append([max((n for at, n in story if at <= mark), default=0) for mark in marks])
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
