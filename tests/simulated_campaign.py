"""A made-up device, clock and laboratory for campaigns: runs that take stated seconds and show stated effects."""

import numpy as np

from replications import looks
from replications.planning.campaign import Question, Slots
from replications.planning.spend import spend
from replications.planning.undecided import State
from replications.reporting.predictive import power, sequential
from replications.reporting.statistics import ALPHA

START = 2.0


class Clock:
    """Seconds that pass only while somebody sleeps; `jumps` are added to what it shows, at true times."""

    def __init__(self, jumps=None, interrupt_at=None):
        self.true, self.jumps, self.interrupt_at = 0.0, jumps or {}, interrupt_at

    def __call__(self):
        return self.true + sum(by for at, by in self.jumps.items() if self.true >= at)

    def sleep(self, seconds):
        self.true += seconds
        if self.interrupt_at is not None and self.true >= self.interrupt_at:
            self.interrupt_at = None
            raise KeyboardInterrupt


class Lab:
    """Claims with their true effects by seed, rows with true and expected seconds; records appear as runs end."""

    def __init__(self, claims, seconds, expected=None, diverging=(), crashing=()):
        self.claims, self.seconds, self.expected = claims, seconds, {**seconds, **(expected or {})}
        self.crashing = set(crashing)
        self.took = {}

    def look(self):
        questions, decided = [], {}
        for name, (rows, effects) in self.claims.items():
            n = next(s for s in range(99) if not all((row, s) in self.took for row in rows))
            level = looks.looks_of(n)
            if level:
                p, p_against = sequential(np.array(effects[: looks.LOOKS[level - 1]]), "greater", 1.0)
                if min(p, p_against) <= ALPHA:
                    decided[name] = "contradicted" if p_against <= ALPHA else "reproduced"
                    continue
            if level == len(looks.LOOKS):
                continue
            known = tuple(effects[:n]) if n > 1 else ()
            chance = power(known, "greater", 1.0, ALPHA, ALPHA)
            past = chance[level - 1] if level else 0.0
            questions.append(Question(name, rows, tuple(value - past for value in chance)))
        seconds = {**self.expected, **{row: took for (row, _), took in self.took.items()}}
        return State(tuple(questions), dict(self.took), seconds, decided, {})


class Device:
    """Runs jobs on the clock; a stopped one keeps the seeds that have ended, as `replications run` does."""

    def __init__(self, lab, clock):
        self.lab, self.clock, self.jobs, self.most = lab, clock, [], 0

    def launch(self, job):
        made = Made(self, job)
        self.jobs.append(made)
        self.most = max(self.most, sum(other.poll() is None for other in self.jobs))
        return made


class Made:
    def __init__(self, device, job):
        self.device, self.job, self.begun = device, job, device.clock.true
        self.code = self.ended = None

    def poll(self):
        if self.code is not None:
            return self.code
        at = self.begun + START
        for seed in self.job.seeds:
            run = (self.job.address, seed)
            if run in self.device.lab.crashing:
                break
            at += self.device.lab.seconds[self.job.address]
            if at > self.device.clock.true:
                return None
            self.device.lab.took[run] = self.device.lab.seconds[self.job.address]
        self.code, self.ended = 0, at
        return self.code

    def terminate(self):
        if self.poll() is None:
            self.code, self.ended = 130, self.device.clock.true

    kill = terminate


def carry_out(lab, minutes, clock=None, count=1, per_process=3):
    """Spend `minutes` on a lab; returns what was spent, the device and the lines that were said."""
    clock, lines = clock or Clock(), []
    device = Device(lab, clock)
    slots = Slots(count, per_process, START)
    spent = spend(lab, 60 * minutes, slots, device.launch, clock=clock, sleep=clock.sleep, say=lines.append)
    return spent, device, lines


def random_lab(seed, groups=2, rows=5, claims=6, **changes):
    """A lab of papers whose claims share rows: costs of 5 to 60 s, effects of every size."""
    random = np.random.default_rng(seed)
    names = [[f"paper{g}/row{r}" for r in range(rows)] for g in range(groups)]
    seconds = {row: float(random.uniform(5, 60)) for group in names for row in group}
    made = {}
    for g, group in enumerate(names):
        for c in range(claims):
            pair = tuple(group[i] for i in random.choice(rows, 2, replace=False))
            made[f"paper{g}/C{c}"] = (pair, (random.normal(0, 2) + random.normal(size=12)).tolist())
    return Lab(made, seconds, **changes)
