"""What the Snakefile calls: anything wrong ends the process with one line."""

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from logging import Logger
from pathlib import Path
from typing import Any

from replications import catalogue
from replications.errors import UserError
from replications.planning.check import refuse
from replications.planning.knobs import read_knobs
from replications.planning.lock import hold_folder
from replications.planning.plan import Plan
from replications.planning.terminal import Terminal, attach

PARENT = "REPLICATIONS_PARENT"  # environment variable: process id of the snakemake whose job this is


@contextlib.contextmanager
def _one_line() -> Iterator[None]:
    try:
        yield
    except UserError as error:
        sys.exit(f"error: {error}")
    except SyntaxError as error:  # of a module that some run reaches by imports
        sys.exit(f"error: {error.filename}:{error.lineno}: {error.msg}")


def make_plan(config: Mapping[str, Any], repository: str) -> Plan:
    """Check the knobs and make the plan; jobs find this Python and this package, and know whose jobs they are."""
    with _one_line():
        plan = Plan(read_knobs(config))
        refuse(catalogue.papers())
        plan.selection_meaning("all")  # reads every paper, recipe and set that the request needs: errors come now
    _prepend("PATH", str(Path(sys.executable).parent))
    _prepend("PYTHONPATH", repository)
    os.environ[PARENT] = str(os.getpid())
    return plan


def _prepend(variable: str, folder: str) -> None:
    old = os.environ.get(variable)
    os.environ[variable] = f"{folder}{os.pathsep}{old}" if old else folder


def attach_terminal(plan: Plan, logger: Logger, workflow: Any) -> Terminal:
    """Say what snakemake does in our own words; a snakemake that only carries out one job of another says nothing."""
    terminal = Terminal(plan, dryrun=workflow.output_settings.dryrun, cores=workflow.cores)
    if workflow.is_main_process:
        attach(logger, terminal)
    return terminal


def hold_this_folder() -> None:
    """Keep a second snakemake out of the working folder for the life of this one."""
    with _one_line():
        _HELD.append(hold_folder(Path.cwd() / ".snakemake"))


_HELD: list[Any] = []
