"""``doctor``: check that methods compute the same on this machine's device as on a CPU."""

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
        "compare every method on a device with the CPU: losses, gradients, determinism, resuming, bf16",
        "doctor --device cuda --limit 120 --out doctor.jsonl",
    )
    parser.add_argument("--methods", metavar="PAPER/METHOD,...", default="all", help="default: %(default)s")
    parser.add_argument(
        "--out",
        type=file_type,
        metavar="FILE",
        help="file of JSON lines, written as checks finish; a second call resumes from it",
    )
    parser.add_argument("--limit", type=seconds, metavar="SECONDS", help="no check begins after that")
    add_device(parser)
    add_folders(parser, "data_root")


def seconds(text: str) -> float:
    """Parse a time in seconds; raises UserError for other text."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise UserError(f"--limit is a number of seconds above 0, not '{text}'")
    return value


def doctor(args: argparse.Namespace) -> int:
    """Print one line per finding and then a table; the exit code is 1 if anything differs or failed."""
    if args.methods == "all":
        methods = catalogue.methods_of(catalogue.papers(), "smoke")
    else:
        methods = args.methods.split(",")
    for address in methods:
        catalogue.resolve(address, "smoke", 0)  # before torch is imported, which takes seconds
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
            say=_print,
        )
    print()
    print(table(outcome.lines))
    wrong = [line for line in outcome.lines if not healthy(line)]
    print()
    for line in wrong:
        print(f"{line['subject']}, {line['check']}: {line['verdict']}{_why(line)}")
    left = ""
    if outcome.left:
        goes_on = "the same command goes on" if args.out else "with --out FILE the same command would go on"
        left = f"; {outcome.left} checks are left, {outcome.why}: {goes_on}"
    print(f"{len(outcome.lines)} findings, {len(wrong)} of them differ or failed{left}")
    return int(bool(wrong))


def _print(line: dict) -> None:
    figure = "" if line["figure"] is None else f" {line['figure']:.2e}"
    print(f"{line['verdict']:8} {line['subject']} {line['check']}{figure}", flush=True)


def _why(line: dict) -> str:
    if line["verdict"] == "failed":
        return f", {line['message']} ({line['at'][-1] if line['at'] else 'nowhere'})"
    limit = line.get("limit")
    return f" by {line['figure']:.2e}" + (f" (limit {limit:.1e})" if limit else "") if line["figure"] else ""
