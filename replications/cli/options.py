"""Options that several commands share."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from replications import catalogue
from replications.spec import TIERS

Act = Callable[[argparse.Namespace], int | None]


def command(commands: argparse._SubParsersAction, name: str, act: Act, summary: str, example: str):
    """Add a command; its ``--help`` ends with an example."""
    parser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=f"example:\n  python -m replications {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(act=act)
    return parser


def add_tier(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tier", default=default("tier"), help=f"{', '.join(TIERS)} (default: %(default)s)")


def add_set(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="changes",
        metavar="PART.NAME=VALUE",
        help="change the recipe, options, task or data; such records go to DIR/tried and never mix with the tier's",
    )


def add_tried(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tried", action="store_true", help="of the changed set-up (--set) in DIR/tried")


def add_folders(parser: argparse.ArgumentParser, *names: str) -> None:
    """Add the folders named: 'data_root', 'work', 'results'."""
    about = {
        "data_root": "downloads and prepared arrays",
        "work": "checkpoints and finished runs",
        "results": "records and tables, one folder a tier below it",
    }
    for name in names:
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=Path,
            default=Path(default(name)),
            metavar="DIR",
            help=f"{about[name]} (default: %(default)s)",
        )


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device",
        default=default("device"),
        help="auto, cpu, cuda or cuda:N; auto takes a GPU in the tiers that want one (default: %(default)s)",
    )


def default(knob: str) -> Any:
    """What config/config.yaml says."""
    return catalogue.read_yaml(catalogue.CONFIG / "config.yaml")[knob]
