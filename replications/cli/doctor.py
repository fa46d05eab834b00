"""``doctor``: whether methods compute on this machine's device what they compute on a CPU."""

import argparse
import math

from replications import catalogue
from replications.cli.options import add_device, add_folders, command, file_type
from replications.errors import UserError


def add(commands: argparse._SubParsersAction) -> None:
    parser = command(
        commands,
        "doctor",
        doctor,
        "check every method on a device against the CPU: losses, gradients, repeated bits, resuming, bf16",
        "doctor --device cuda --limit 120 --out doctor.jsonl",
    )
    parser.add_argument("--methods", metavar="PAPER/METHOD,...", default="all", help="default: %(default)s")
    parser.add_argument(
        "--out", type=file_type, metavar="FILE", help="JSON lines as they are found; goes on from there"
    )
    parser.add_argument("--limit", type=seconds, metavar="SECONDS", help="no check begins after that")
    add_device(parser)
    add_folders(parser, "data_root")


def seconds(text: str) -> float:
    """Read a time; raises UserError for what is none."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise UserError(f"--limit is a number of seconds above 0, not '{text}'")
    return value


def doctor(args: argparse.Namespace) -> int:
    """Print a line a finding and then a table; the exit code says whether anything differs or failed."""
    if args.methods == "all":
        methods = catalogue.methods_of(catalogue.papers(), "smoke")
    else:
        methods = args.methods.split(",")
    for address in methods:
        catalogue.resolve(address, "smoke", 0)  # before the seconds that torch takes
    from replications.measurement.hardware import resolve_device
    from replications.measurement.lease import reserve_device
    from replications.measurement.throughput import device_name
    from replications.running.doctor import examine, healthy, table

    with reserve_device(args.device) as choice:
        outcome = examine(
            methods,
            data_root=args.data_root,
            device=resolve_device(choice),
            name=device_name(choice),
            out=args.out,
            limit=args.limit,
            say=_say,
        )
    print()
    print(table(outcome.lines))
    wrong = [line for line in outcome.lines if not healthy(line)]
    print()
    for line in wrong:
        print(f"{line['subject']}, {line['check']}: {line['verdict']}{_why(line)}")
    if outcome.left:
        goes_on = "; the same command goes on" if args.out else "; with --out FILE the same command would go on"
        print(f"{outcome.left} checks are left, {outcome.why}{goes_on}")
    print(f"{len(outcome.lines)} findings, {len(wrong)} of them differ or failed")
    return int(bool(wrong))


def _say(line: dict) -> None:
    figure = "" if line["figure"] is None else f" {line['figure']:.2e}"
    print(f"{line['verdict']:8} {line['subject']} {line['check']}{figure}", flush=True)


def _why(line: dict) -> str:
    if line["verdict"] == "failed":
        return f", {line['message']} ({line['at'][-1] if line['at'] else 'nowhere'})"
    limit = line.get("limit")
    return f" by {line['figure']:.2e}" + (f" (limit {limit:.1e})" if limit else "") if line["figure"] else ""
