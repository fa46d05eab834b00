"""The command line: ``python -m replications <command>``. Workflow steps and inspection."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from replications import portable
from replications.cli import campaign, data, doctor, listing, new, reports, runs, show, throughput, trials
from replications.errors import UserError, one_line
from replications.planning.front import PARENT
from replications.progress import take_any_letter

EPILOG = "all papers: snakemake --cores all (estimated cost: snakemake -n)"


class Parser(argparse.ArgumentParser):
    """Reports option errors in one line, like all other errors."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see {self.prog} --help)")


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m replications",
        description="Tests what papers claim, and gives verdicts with their evidence and cost.",
        epilog=EPILOG,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (listing, show, data, runs, throughput, trials, campaign, doctor, reports, new):
        module.add(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0, 2 for a user error, 130 if it was interrupted."""
    take_any_letter()
    try:
        args = build_parser().parse_args(argv)
        _follow_snakemake()
        if getattr(args, "portable", False):
            portable.hold()  # before anything imports torch
        return args.act(args) or 0
    except KeyboardInterrupt:
        print("stopped; run the same command again to resume", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (UserError, OSError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2


def _follow_snakemake() -> None:
    """End a job when its snakemake process ends, for any reason. A command started by hand may outlive its shell."""
    parent = os.environ.pop(PARENT, None)
    if parent is not None:
        import signal

        from replications.measurement.process import die_with_parent

        die_with_parent(signal.SIGKILL, parent=int(parent))  # SIGKILL, because a long step would delay other signals
