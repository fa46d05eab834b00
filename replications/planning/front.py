"""Functions for the Snakefile: any error ends the process with a one-line message."""

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from logging import Logger
from pathlib import Path
from typing import Any

from replications import catalogue
from replications.errors import UserError, one_line
from replications.planning.check import refuse
from replications.planning.folders import as_written
from replications.planning.knobs import read_knobs
from replications.planning.lock import hold_folder
from replications.planning.plan import Plan
from replications.planning.remaining import Remaining
from replications.planning.terminal import Terminal, attach
from replications.progress import take_any_letter

PARENT = "REPLICATIONS_PARENT"  # environment variable: process id of the snakemake whose job this is


@contextlib.contextmanager
def _one_line() -> Iterator[None]:
    try:
        yield
    except (UserError, OSError) as error:
        sys.exit(f"error: {one_line(error)}")
    except SyntaxError as error:  # in a module that some run imports
        sys.exit(f"error: {error.filename}:{error.lineno}: {error.msg}")


def check_file(path: str) -> None:
    """End with one line if a configuration file cannot be read, where Snakemake would print a traceback."""
    with _one_line():
        catalogue.read_yaml(Path(path))


def make_plan(config: Mapping[str, Any], workflow: Any) -> Plan:
    """Check the knobs and make the plan; set the environment by which jobs find this Python, package and process."""
    take_any_letter()
    with _one_line():
        if workflow.cores is not None and workflow.cores < 1:
            raise UserError(f"--cores {workflow.cores}: give 1 or more, or 'all'")
        given = workflow.config_settings
        files = [*workflow.configfiles, *given.configfiles]
        written = as_written(files, given.config_args or ())
        plan = Plan(read_knobs({**config, **written}))
        refuse(catalogue.papers())
        plan.selection_meaning("all")  # parse every paper, recipe and data set of the request, so that errors come now
        if plan.gpu and plan.knobs.runs_per_gpu > 1:
            _count_slots(workflow, plan.knobs.runs_per_gpu)
    _prepend("PATH", str(Path(sys.executable).parent))
    _prepend("PYTHONPATH", str(workflow.basedir))
    os.environ[PARENT] = str(os.getpid())
    return plan


def _count_slots(workflow: Any, runs_per_gpu: int) -> None:
    """Convert the limit on GPUs to one on slots. Cluster jobs run separately and see no limit."""
    if workflow.is_main_process:
        if "gpu" not in workflow.global_resources:
            raise UserError(
                "runs_per_gpu shares the GPUs of one machine: on a cluster each run has its own; leave it at 1"
            )
        workflow.register_resource("gpu", runs_per_gpu * workflow.global_resources["gpu"].value)


def _prepend(variable: str, folder: str) -> None:
    old = os.environ.get(variable)
    os.environ[variable] = f"{folder}{os.pathsep}{old}" if old else folder


def attach_terminal(plan: Plan, logger: Logger, workflow: Any) -> Terminal:
    """Replace Snakemake's messages by the suite's; a snakemake that runs a single job of another prints nothing."""
    terminal = Terminal(plan, workflow.output_settings.dryrun, workflow.cores, _remaining(plan, workflow))
    if workflow.is_main_process:
        attach(logger, terminal)
    return terminal


def _remaining(plan: Plan, workflow: Any) -> Remaining:
    """The time left of a workflow, by its graph of jobs; on a cluster the number of GPUs is not known."""
    slots = workflow.global_resources.get("gpu")

    def jobs() -> list[tuple[Any, bool]]:
        graph = workflow.dag
        return [(job, graph.finished(job)) for job in graph.needrun_jobs(exclude_finished=False)]

    return Remaining(plan, workflow.cores or 0, slots and slots.value, jobs)


def begin(plan: Plan, workflow: Any) -> None:
    """Lock the working folder against a second snakemake until this one ends, and create the folders of the knobs.

    On this machine jobs start without Snakemake's limit of 100 a second: to keep it, Snakemake 9 looks for new jobs
    every second, once for each job that has finished, which takes more of a core with each.
    """
    if workflow.local_exec:
        workflow.scheduler.job_rate_limiter = None
    with _one_line():
        for folder in (plan.knobs.results, plan.knobs.data_root, plan.knobs.work):
            Path(folder).mkdir(parents=True, exist_ok=True)  # Snakemake does not create folders behind a link
        _HELD.append(hold_folder(Path.cwd() / ".snakemake"))


_HELD: list[Any] = []
