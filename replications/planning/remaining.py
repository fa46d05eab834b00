"""How long a running workflow still takes: the estimates of its open runs, at the pace of those that have finished."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from replications.planning.estimate import later
from replications.planning.job import Job, duration
from replications.planning.plan import Plan

PRIOR = 60.0  # seconds at the estimated pace that count beside the finished runs: the first few say little
UNKNOWN_RUN = 60.0  # seconds of a run of which nothing is known, where nothing is known of any other


class Left(NamedTuple):
    """Seconds: without a further look, and with every look that may still follow."""

    least: float
    most: float

    def after(self, seconds: float) -> "Left":
        """What is left `seconds` later, at least a second."""
        return Left(*(max(1.0, value - seconds) for value in self))

    def __str__(self) -> str:
        """``41 s``, ``62 to 108 min``, ``55 min to 1.6 h``."""
        least, most = duration(self.least), duration(self.most)
        if least == most:
            return least
        value, unit = least.split()
        return f"{value} to {most}" if most.endswith(f" {unit}") else f"{least} to {most}"


class Remaining:
    """The time left of a workflow on `cores` processors and `slots` of GPUs (None: not known, as on a cluster).

    `jobs` returns all jobs of the workflow, as Snakemake has them, with whether each has finished; it grows when a
    judging asks for a further look.
    """

    def __init__(self, plan: Plan, cores: int, slots: int | None, jobs: Callable[[], Iterable[tuple[Any, bool]]]):
        self.plan, self.cores, self.slots, self.jobs = plan, cores, slots, jobs
        self._estimated = self._spent = PRIOR

    def note(self, job: Job, seconds: float) -> None:
        """Take the pace of a finished job into account."""
        if (estimated := job.resources.get("seconds", 0)) > 0:
            self._estimated, self._spent = self._estimated + estimated, self._spent + seconds

    def left(self, running: Sequence[Job] = ()) -> Left | None:
        """Return the time left, of which `running` jobs have had a part; None if no run is left or nothing known."""
        jobs = [(_as_job(job), finished) for job, finished in self.jobs()]
        waiting = [job for job, finished in jobs if not finished and job.rule.startswith("train")]
        if not waiting or not self.cores or (self.slots is None and any(job.resources.get("gpu") for job in waiting)):
            return None
        pace, known = self._spent / self._estimated, [s for job in waiting if (s := job.resources["seconds"]) >= 0]
        usual = sum(known) / len(known) if known else UNKNOWN_RUN
        of_cpu = of_gpu = 0.0
        for job in waiting:
            seconds = job.resources["seconds"] if job.resources["seconds"] >= 0 else usual
            gpu = job.resources.get("gpu", 0)
            of_cpu, of_gpu = of_cpu + seconds * job.threads * (not gpu), of_gpu + seconds * gpu
        now = time.monotonic()
        for job in running:
            had = min((now - job.started) / pace, max(job.resources.get("seconds", 0), 0))
            gpu = job.resources.get("gpu", 0)
            of_cpu, of_gpu = of_cpu - had * job.threads * (not gpu), of_gpu - had * gpu
        least = max(of_cpu / self.cores, of_gpu / (self.slots or 1))
        more = self._later(jobs)
        return Left(pace * least, pace * (least + more))

    def _later(self, jobs: Sequence[tuple[Job, bool]]) -> float:
        """Return the seconds that looks not yet planned may add at most."""
        open_jobs = [job for job, finished in jobs if not (finished and job.rule == "judge")]
        found = later(self.plan, open_jobs)
        if not found or found[1] < 0:
            return 0.0
        return found[1] / ((self.slots or 1) if found[2] else self.cores)


def _as_job(job: Any) -> Job:
    """A job of Snakemake's graph as the plan's functions take it."""
    wildcards = job.wildcards_dict
    return Job(
        title=job.rule.name,
        rule=job.rule.name,
        paper=wildcards.get("paper"),
        output=[str(path) for path in job.output],
        reason="",
        log=None,
        threads=job.threads,
        look=int(wildcards.get("look", 0)),
        resources=dict(job.resources.items()),
    )
