"""The command line: ``python -m replications <command>``. Each step of the workflow by hand, and ways to look at it."""

import argparse
import os
import sys
from collections.abc import Sequence

from replications.cli import data, reports, runs, show
from replications.errors import UserError, disk_error
from replications.planning.front import PARENT

EPILOG = "the whole of it: snakemake --cores all (what it would cost: snakemake -n)"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m replications",
        description="Paper claims in; verdicts with their evidence and their cost out.",
        epilog=EPILOG,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (show, data, runs, reports):
        module.add(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0, 2 for what a person can put right, 130 where it was stopped."""
    args = build_parser().parse_args(argv)
    _follow_snakemake()
    try:
        return args.act(args) or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on where this one was", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of the output has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # of the disk, where no closer place knew what to say
        print(f"error: {disk_error(error, 'read or write', error.filename or 'a file')}", file=sys.stderr)
        return 2


def _follow_snakemake() -> None:
    """A job of snakemake ends with it, however that ends; what a person starts by hand may outlive the shell."""
    parent = os.environ.pop(PARENT, None)
    if parent is not None:
        import signal

        from replications.measurement.process import die_with_parent

        die_with_parent(signal.SIGKILL, parent=int(parent))  # at once: a long step would hold up a gentler signal
