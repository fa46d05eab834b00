"""Options shared by several commands."""

import argparse
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from replications import catalogue, request
from replications.errors import UserError
from replications.planning.folders import as_written, folder_name
from replications.planning.knobs import MOST_RUNS_PER_GPU, check_device
from replications.spec import TIERS

NAMES = (
    "a method (paper/method, as `list methods` shows it), a paper, a task or 'all'; a paper or a task means its "
    "methods in the tier and those that their claims compare with"
)
Act = Callable[[argparse.Namespace], int | None]


def command(
    commands: argparse._SubParsersAction, name: str, act: Act | None, summary: str, example: str, more: str = ""
):
    """Add a command; its ``--help`` ends with `more` and an example. `act` is None if it has subcommands."""
    parser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=f"{more.lstrip()}\nexample:\n  python -m replications {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(act=act)
    return parser


def add_tier(parser: argparse.ArgumentParser) -> None:
    about = f"{', '.join(TIERS)} (default: %(default)s)"
    parser.add_argument("--tier", type=tier_name, default=default("tier"), help=about)


def tier_name(text: str) -> str:
    """Return a tier's name; raises UserError with the closest match for an unknown tier."""
    return catalogue.tier_config(text).name


def folder_type(name: str) -> Callable[[str], Path]:
    """Return a parser for a folder argument; it raises UserError, naming the argument, for an invalid folder."""
    return lambda text: Path(folder_name(name, text, there="mirror" in name))


def file_type(text: str) -> Path:
    """Parse a file name; ``~`` is expanded."""
    return Path(os.path.expanduser(text))


def add_set(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="changes",
        metavar="PART.NAME=VALUE",
        help="change the recipe, options, task or data, or threads=N; such records go to DIR/tried, not to the tier's",
    )


def add_tried(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tried", action="store_true", help="of the changed set-up (--set) in DIR/tried")


def add_folders(parser: argparse.ArgumentParser, *names: str) -> None:
    """Add the folders named: 'data_root', 'data_mirror', 'work', 'results'."""
    about = {
        "data_mirror": "a folder that is searched before any download",
        "data_root": "downloads and prepared arrays",
        "work": "checkpoints and finished runs",
        "results": "records and tables, one folder a tier below it",
    }
    defaults = as_written([catalogue.CONFIG / "config.yaml"])
    for name in names:
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(
            option,
            type=folder_type(option),
            default=defaults.get(name) or (None if name == "data_mirror" else ""),  # "" is rejected later
            metavar="DIR",
            help=f"{about[name]} (default: %(default)s)",
        )


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device",
        type=check_device,
        default=default("device"),
        help="auto, cpu, cuda or cuda:N; auto takes a GPU in the tiers that want one (default: %(default)s)",
    )


def add_portable(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--portable",
        action="store_true",
        help="hold CPU kernels to those of every x86-64 processor with AVX2 (slower); records go to DIR/portable",
    )


def add_runs_per_gpu(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--runs-per-gpu",
        type=_runs_per_gpu,
        metavar="K",
        default=default("runs_per_gpu"),
        help="number of runs that may share a GPU; their times are not judged (default: %(default)s)",
    )


def _runs_per_gpu(text: str) -> int:
    if not (text.isdecimal() and 1 <= int(text) <= MOST_RUNS_PER_GPU):
        raise UserError(f"--runs-per-gpu {text}: give a number from 1 to {MOST_RUNS_PER_GPU}")
    return int(text)


def default(knob: str) -> Any:
    """Return the contents of config/config.yaml."""
    return catalogue.read_yaml(catalogue.CONFIG / "config.yaml")[knob]


def of_these(args: argparse.Namespace) -> str:
    """Return the options by which ``report``, ``verify`` or ``run`` find the records of a request; "" for the defaults.

    Shown in messages that name the next command.
    """
    tried = getattr(args, "tried", False) or bool(getattr(args, "changes", ()))
    words = request.options(args.tier, tried, getattr(args, "portable", False))
    results = str(args.results)
    words += [f"--results {shlex.quote(results)}"] * (results != default("results"))
    return "".join(f" {word}" for word in words)


def chosen_device(choice: str, tier: str) -> str:
    """Resolve the device option in a tier: 'auto' is a GPU only in tiers that want one."""
    return "cpu" if choice == "auto" and not catalogue.tier_config(tier).accelerator else choice
