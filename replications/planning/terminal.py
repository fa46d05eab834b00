"""The terminal output of the workflow: the plan with its cost before, one line per job during it, paths after.

A handler for Snakemake's log events, attached by the Snakefile, so that a plain ``snakemake`` uses it. Snakemake's own
messages still go to the log files below .snakemake/log, and to the terminal with ``snakemake --verbose``.
"""

import logging
import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

from replications.errors import UserError, nearest, one_line
from replications.planning.job import Job, duration
from replications.planning.plan import Plan
from replications.planning.remaining import Left, Remaining
from replications.planning.targets import KINDS, unknown_target

STOPPING = "Will exit after finishing currently running jobs"
NOISE = (
    "Assuming unrestricted shared filesystem usage.",
    "Building DAG of jobs...",
    "DAG of jobs will be updated after completion.",
    "Updating checkpoint dependencies.",
    "The run involves checkpoint jobs",
    "Using shell:",
    "Select jobs to execute...",
    "Execute ",
    "Shutting down, this might take some time.",
    "Exiting because a job execution failed.",
    "Removing output files of failed job",
    "RuleException:\nCalledProcessError",  # replaced by "failed: <job>: <its last line>"
    "Config file ",
    "Complete log(s):",
    "Elapsed time:",
    "Reasons:",
    "Some jobs were triggered by provenance information",
    "Rules with provenance triggered jobs:",
    "This was a dry-run",
)
REASONS = {
    "Missing output files": "missing",
    "Params have changed": "its configuration, data or code changed",
    "Input files updated by another job": "its inputs will change",
    "Set of input files has changed": "its inputs changed",
    "Forced execution": "forced",
    "Incomplete": "was interrupted",
}
REPLACED = ("workflow_started", "run_info", "resources_info", "job_info", "job_finished", "job_error", "progress")
TICK_SECONDS = 0.5
WAITING = "waiting for "  # prefix of a job's message that it waits for a lock


class Terminal(logging.Handler):
    """Reports a workflow briefly; on a terminal with the progress of the running jobs, and the time left."""

    def __init__(self, plan: Plan, dryrun: bool, cores: int, remaining: Remaining | None = None):
        super().__init__()
        self.plan, self.dryrun, self.cores, self.remaining = plan, dryrun, cores, remaining
        self.jobs: dict[int, Job] = {}
        self.running: dict[int, Job] = {}
        self.finished: list[Job] = []
        self.failed = 0
        self.stopping = False  # at a signal
        self.total = self.asked = 0  # number of jobs, and of target rules without work
        self._left: tuple[Left | None, float] = None, 0.0  # the time left, and when it was estimated
        self.live = sys.stderr.isatty() and not dryrun
        self._drawn = self._over = False
        self._handlers = {
            "job_info": self._job_info,
            "job_finished": self._job_finished,
            "job_error": self._job_error,
            "run_info": self._run_info,
            "progress": self._progress,
        }

    def emit(self, record: logging.LogRecord) -> None:
        try:
            event = str(getattr(record, "event", None))
            if event in self._handlers:
                self._handlers[event](record)
            elif str(record.msg).startswith("Nothing to be done"):
                self._nothing_to_do()
        except BrokenPipeError:  # the reader closed the pipe
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except Exception:
            self.handleError(record)

    def _job_info(self, record: logging.LogRecord) -> None:
        if record.rule_name in self.plan.targets or record.rule_name == "all":
            return
        self.jobs[record.jobid] = self.running[record.jobid] = Job(
            title=record.rule_msg or record.rule_name,
            rule=record.rule_name,
            paper=(record.wildcards or {}).get("paper"),
            output=list(record.output),
            reason=next((short for long, short in REASONS.items() if long in record.reason), record.reason),
            log=Path(record.log[0]) if record.log else None,
            threads=record.threads,
            look=int((record.wildcards or {}).get("look", 0)),
            resources=dict(record.resources.items()),
        )

    def _job_finished(self, record: logging.LogRecord) -> None:
        job = self.running.pop(record.job_id, None)
        if job is None:
            return
        self.finished.append(job)
        seconds = time.monotonic() - job.started
        if self.remaining:
            self.remaining.note(job, seconds)
        said = f": {job.last_line}" if job.last_line and job.rule != "report" else ""
        self._print(f"[{len(self.finished)}/{self.total}] {job.title}{said} ({duration(seconds)})")

    def _job_error(self, record: logging.LogRecord) -> None:
        job = self.running.pop(record.jobid, None) or self.jobs.get(record.jobid)
        if job is None:
            return
        self.failed += 1
        self._print(f"failed: {job.title}: {job.last_line or 'its log is empty'} (log: {job.log})")

    def _run_info(self, record: logging.LogRecord) -> None:
        """Called with the number of jobs before the first; in a dry-run again after the last."""
        targets = {"all", *self.plan.targets}
        self.total = sum(n for name, n in record.stats.items() if name not in targets and name != "total")
        self.asked = record.stats.get("total", self.total) - self.total
        if self.dryrun and self.jobs:
            from replications.planning.estimate import later
            from replications.planning.table import cost_table, job_list

            jobs = list(self.jobs.values())
            print(f"{job_list(jobs)}\n\n{cost_table(jobs, self.cores, later(self.plan, jobs))}", flush=True)
        elif not self.dryrun:
            jobs = "1 job" if self.total == 1 else f"{self.total} jobs"
            left = self._estimate()
            about = f", about {left}" if left else ""
            self._print(f"{jobs}, tier {self.plan.knobs.tier}{about}; results in {self.plan.folder}/")
            threading.Thread(target=self._watch, name="status", daemon=True).start()

    def _progress(self, record: logging.LogRecord) -> None:
        """Called after each job: a further look may have added jobs."""
        self.total = record.total - self.asked
        self._estimate()

    def _estimate(self) -> Left | None:
        left = self.remaining and self.remaining.left(list(self.running.values()))
        self._left = left, time.monotonic()
        return left

    def _nothing_to_do(self) -> None:
        self._print(f"all is up to date: {self.plan.folder / 'index.html'}")

    def _print(self, line: str) -> None:
        with self.lock:
            self._wipe()
            print(line, file=sys.stderr, flush=True)

    def _wipe(self) -> None:
        if self._drawn:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._drawn = False

    def _watch(self) -> None:
        """Print which job waits for another process and, on a terminal, the progress of the running jobs."""
        while not self._over:
            time.sleep(TICK_SECONDS)
            for job in list(self.running.values()):
                said = job.last_line
                if said.startswith(WAITING) and said != job.waits_for:
                    job.waits_for = said
                    self._print(f"{job.title}: {said}")
            with self.lock:
                if self.live and self.running and not self._over:
                    print(f"\r\x1b[K{self._status()}", end="", file=sys.stderr, flush=True)
                    self._drawn = True

    def _status(self) -> str:
        done, (left, estimated) = len(self.finished), self._left
        bar = "█" * (20 * done // max(self.total, 1))
        left = f", about {left.after(time.monotonic() - estimated)} left" if left else ""
        words = " │ ".join(f"{job.name} {job.last_line}".strip() for job in list(self.running.values()))
        return f"{bar:░<20} {done}/{self.total}{left} │ {words}"[: shutil.get_terminal_size().columns - 1]

    def close(self) -> None:
        self._over = True
        with self.lock:
            self._wipe()
        super().close()

    def finish(self) -> None:
        """End of a successful run: print the tables if they were made."""
        self._over = True
        with self.lock:
            self._wipe()
        if any(job.rule == "report" for job in self.finished):
            command = [sys.executable, "-m", "replications", "report", "--show"]
            subprocess.run([*command, *self.plan.options("tier", "tried", "portable", "results")], check=False)


class Tidy(logging.Filter):
    """Filters Snakemake's own output: no routine messages, one line for an unknown target and one for a stop."""

    def __init__(self, terminal: Terminal):
        super().__init__()
        self.plan, self.terminal = terminal.plan, terminal

    def filter(self, record: logging.LogRecord) -> bool:
        message = str(record.msg)
        replaced = str(getattr(record, "event", None)) in REPLACED
        if replaced or message.startswith(NOISE) or " jobs have missing provenance/metadata" in message:
            return False
        if getattr(record, "exception", None) == "MissingRuleException":
            word = message.partition("No rule to produce ")[2].partition(" (if you use input functions")[0]
            record.msg = f"error: {one_line(UserError(unknown_target(self.plan, word)))}"
        elif "Target rules may not contain wildcards" in message:
            near = nearest("", self.plan.targets)
            record.msg = f"error: a rule that makes many files cannot be a target; {KINDS}{near}"
        elif getattr(record, "exception", None) == "InputFunctionException" and "UserError: " in message:
            record.msg = f"error: {message.partition('UserError: ')[2].partition(chr(10))[0]}"
        elif message.startswith(STOPPING):
            if self.terminal.stopping:  # Snakemake repeats it
                return False
            self.terminal.stopping = True
            record.msg = "stopping: the running jobs end first, no other one starts"
        elif message.endswith("At least one job did not complete successfully."):
            tables = f"python -m replications report {shlex.join(self.plan.options('tier', 'tried', 'results'))}"
            why = "stopped" if self.terminal.stopping and not self.terminal.failed else "error: some jobs failed"
            record.msg = f"{why}; run the same command again to resume (tables of the finished runs: {tables})"
        return True


def attach(logger: logging.Logger, terminal: Terminal) -> None:
    """Add the handler to Snakemake's logger, and the filter to Snakemake's own handler."""
    for handler in logger.handlers:
        if handler.name == "DefaultStreamHandler" and logger.level > logging.DEBUG:
            handler.addFilter(Tidy(terminal))
    logger.addHandler(terminal)
