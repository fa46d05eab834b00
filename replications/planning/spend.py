"""Run a campaign: start the jobs that replications.planning.campaign chooses, and stop them in time."""

import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol

from replications import catalogue
from replications.planning.campaign import Board, Job, Run, Slots, next_job
from replications.planning.front import PARENT
from replications.planning.job import duration
from replications.planning.plan import Plan
from replications.planning.undecided import State
from replications.reporting import labels

POLL_SECONDS = 0.2
STOP_SECONDS = 15.0  # before the end: time to write a checkpoint


class Process(Protocol):
    """What a job runs in."""

    def poll(self) -> int | None: ...

    def terminate(self) -> None: ...

    def kill(self) -> None: ...


class Looks(Protocol):
    """Where the records are."""

    def look(self) -> State: ...


@dataclass
class Spent:
    """The outcome of a campaign: state before and after, wall seconds, stopped jobs and failed runs.

    `late` is the actual over the expected run time of the stopped jobs, at least 1.
    """

    before: State
    after: State
    seconds: float
    slots: Slots
    stopped: list[Job] = field(default_factory=list)
    failed: frozenset[Run] = frozenset()
    late: float = 1.0

    @property
    def runs(self) -> frozenset[Run]:
        return self.after.done - self.before.done

    @property
    def decided(self) -> dict[str, str]:
        return {name: word for name, word in self.after.decided.items() if name not in self.before.decided}


class Stopwatch:
    """Seconds since creation by the wall clock. Backward jumps are ignored and forward jumps count, so that a machine
    that was suspended is not used beyond its time.
    """

    def __init__(self, clock: Callable[[], float]):
        self._clock, self._last, self._passed = clock, clock(), 0.0

    def __call__(self) -> float:
        now = self._clock()
        self._passed += max(0.0, now - self._last)
        self._last = now
        return self._passed


def stop_seconds(budget: float) -> float:
    """How long before the end of a budget the jobs are stopped."""
    return min(STOP_SECONDS, budget / 10)


def open_board(state: State, failed: frozenset[Run] = frozenset(), late: float = 1.0) -> Board:
    """The claims that can still be decided: those without a run that failed in this campaign.

    Expected run times are multiplied by `late`, the factor seen in overdue runs.
    """
    rows = {row for row, _ in failed}
    seconds = {row: late * took for row, took in state.seconds.items()}
    return Board([q for q in state.questions if not rows & set(q.rows)], seconds)


def spend(
    study: Looks,
    budget: float,
    slots: Slots,
    launch: Callable[[Job], Process],
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    say: Callable[[str], None] = print,
) -> Spent:
    """Run jobs for `budget` seconds; records are written as runs end.

    A job that would not finish in time is not started. One that overruns is asked to stop, which leaves a checkpoint,
    and is killed at the limit. Any exception, also KeyboardInterrupt, stops the jobs in the same way. A run that ends
    without a record is not retried.
    """
    watch = Stopwatch(clock)
    state = study.look()
    spent = Spent(state, state, 0.0, slots)
    stop_at = budget - stop_seconds(budget)
    starts: list[float] = []
    with _running() as running:
        board = open_board(state)
        late = 1.0
        while (now := watch()) < stop_at:
            ended = [job for job, (process, _) in running.items() if process.poll() is not None]
            if ended:
                state = study.look()
                for job in ended:
                    _, begun = running.pop(job)
                    spent.failed |= job.runs - state.done
                    if job.runs <= state.done:
                        starts.append(max(0.0, now - begun - sum(state.took[run] for run in job.runs)))
                        spent.slots = replace(slots, start=statistics.median(starts))
                _print_ended(ended, spent, state, now, say)
                spent.after = state
            overdue = max([1.0, *((now - begun) / job.seconds for job, (_, begun) in running.items())])
            if ended or (overdue > 1.1 * late and len(running) < slots.count):
                board, late = open_board(state, spent.failed, overdue), overdue
            while len(running) < slots.count:
                left = {job: max(1.0, begun + job.seconds - now) for job, (_, begun) in running.items()}
                job = next_job(board, state.done, left, stop_at - now, spent.slots)
                if job is None:
                    break
                say(f"{now / 60:5.1f} min  {_name(job)} begins, about {duration(job.seconds)}")
                running[job] = launch(job), now
            if not running:
                break
            sleep(POLL_SECONDS)
        spent.stopped = [job for job, (process, _) in running.items() if process.poll() is None]
        spent.late = max([1.0, *((now - running[job][1]) / job.seconds for job in spent.stopped)])
        _stop([process for process, _ in running.values()], budget, watch, sleep)
    spent.after, spent.seconds = study.look(), watch()
    spent.stopped = [job for job in spent.stopped if not job.runs <= spent.after.done]
    _print_ended([], spent, spent.after, spent.seconds, say, state)
    return spent


@contextlib.contextmanager
def _running() -> Iterator[dict[Job, tuple[Process, float]]]:
    """The running jobs; all of them are stopped at the end of the block."""
    running: dict[Job, tuple[Process, float]] = {}
    try:
        yield running
    except BaseException:
        _stop([process for process, _ in running.values()], STOP_SECONDS, Stopwatch(time.monotonic), time.sleep)
        raise


def _stop(processes: list[Process], limit: float, watch: Callable[[], float], sleep: Callable[[float], None]) -> None:
    """Ask processes to end, and kill those that have not by `limit` of the watch."""
    for process in processes:
        if process.poll() is None:
            process.terminate()
    while any(process.poll() is None for process in processes):
        if watch() >= limit:
            for process in processes:
                if process.poll() is None:
                    process.kill()
            return
        sleep(POLL_SECONDS)


def _print_ended(
    ended: list[Job], spent: Spent, state: State, now: float, say: Callable[[str], None], before: State | None = None
) -> None:
    """Print runs without a record, and claims that are newly decided."""
    for job in ended:
        if left := job.runs - state.done:
            say(f"{now / 60:5.1f} min  {job.address} {labels.seeds([s for _, s in left])} left no record: see its log")
    known = (before or spent.after).decided
    for claim, word in state.decided.items():
        if claim not in known:
            say(f"{now / 60:5.1f} min  {claim} is {word}")


def _name(job: Job) -> str:
    return f"{job.address} {labels.seeds(job.seeds)}"


def launcher(plan: Plan) -> Callable[[Job], Process]:
    """Return a function that starts a job as ``replications run``, with its log beside those of snakemake's jobs.

    The process is killed when this one ends for any reason; its last checkpoint remains.
    """
    folder = plan.folder / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    path = os.environ.get("PYTHONPATH")
    package = str(catalogue.PACKAGE.parent)
    environment = {
        **os.environ,
        PARENT: str(os.getpid()),
        "PYTHONPATH": f"{package}{os.pathsep}{path}" if path else package,
    }

    def launch(job: Job) -> subprocess.Popen:
        seeds = ",".join(map(str, job.seeds))
        words = plan.options("tier", "device", "runs_per_gpu", "data_root", "work", "results")
        log = folder / f"{job.address.replace('/', '-')}-{seeds}.log"
        with log.open("wb") as stream:
            return subprocess.Popen(
                [sys.executable, "-m", "replications", "run", job.address, f"--seeds={seeds},", *words],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # this process forwards Ctrl-C once
            )

    return launch
