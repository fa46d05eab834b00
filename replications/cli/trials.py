"""``trials``: set-ups that were tried, side by side, by their validation values."""

import argparse
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from replications.cli.options import NAMES, add_folders, add_tier, command
from replications.errors import UserError
from replications.looks import LOOKS
from replications.planning.knobs import parse_methods
from replications.records import RunRecord, read_run

Values = dict[str, list[float]]
WIDEST = 40  # of the set-ups' column


def add(commands: argparse._SubParsersAction) -> None:
    parser = command(
        commands,
        "trials",
        trials,
        "compare changed set-ups (--set) by their validation values",
        "trials arcface/softmax --tier mini",
        f"Shown are finished runs of the work store with a changed set-up, or with seeds from {LOOKS[-1]} on. Values\n"
        "are each stage's last ones on validation data: mean and standard deviation over seeds, never of test data.\n",
    )
    parser.add_argument("methods", nargs="+", metavar="NAME", help=NAMES)
    add_tier(parser)
    add_folders(parser, "work")


def trials(args: argparse.Namespace) -> None:
    """Print a table per method; raises UserError where nothing was tried."""
    from tabulate import tabulate

    wanted = parse_methods(args.methods, args.tier)
    found = defaultdict(list)
    for record in tried(args.work, args.tier):
        if record.spec.address in wanted:
            found[record.spec.address].append(record)
    if not found:
        raise UserError(
            f"nothing was tried in tier {args.tier}: no such run in {args.work} (run with --set or --seeds)"
        )
    for address in sorted(found):
        shared, rows = set_ups(found[address])
        keys = sorted({key for values in rows.values() for key in values})
        cells = [[name, *(spread(values.get(key, [])) for key in keys)] for name, values in rows.items()]
        widths = [WIDEST, *(None for _ in keys)]
        table = tabulate(cells, ["set-up", *keys], disable_numparse=True, maxcolwidths=widths)
        print(f"\n{address}{' with ' if shared else ''}{', '.join(shared)}\n\n{table}")


def tried(work: Path, tier: str) -> Iterator[RunRecord]:
    """Yield finished runs of trials; a damaged record is named on stderr and left out."""
    for path in sorted(work.glob("runs/*/run.json")):
        try:
            record = read_run(path)
        except UserError as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        spec = record.spec
        if record.status == "finished" and spec.tier == tier and (spec.changes or spec.seed >= LOOKS[-1]):
            yield record


def set_ups(records: Iterable[RunRecord]) -> tuple[list[str], dict[str, Values]]:
    """Return the changes that all runs of a method share, and values by what else tells a set-up apart, and its seeds.

    Runs of other code are apart, and then named by its fingerprint.
    """
    groups: dict[tuple[tuple[str, ...], str], list[RunRecord]] = defaultdict(list)
    for record in records:
        groups[tuple(record.spec.changes), record.code_fingerprint].append(record)
    several = len({code for _, code in groups}) > 1
    shared = [change for change in next(iter(groups))[0] if all(change in changes for changes, _ in groups)]
    found = {}
    for (changes, code), runs in sorted(groups.items()):
        runs.sort(key=lambda record: record.spec.seed)
        own = [change for change in changes if change not in shared]
        name = f"{', '.join(own) or 'as it is'}; seeds {','.join(str(record.spec.seed) for record in runs)}"
        values: Values = defaultdict(list)
        for record in runs:
            for key, value in last_values(record).items():
                values[key].append(value)
        found[name + f"; code {code[:8]}" * several] = values
    return shared, found


def last_values(record: RunRecord) -> dict[str, float]:
    """Return the last validation values by ``stage key``, or by key where the run has one such stage."""
    found = {}
    for point in record.history:
        if point.split == "validation":
            found |= {(point.stage, key): value for key, value in point.values.items()}
    one = len({stage for stage, _ in found}) == 1
    return {key if one else f"{stage} {key}": value for (stage, key), value in found.items()}


def spread(values: list[float]) -> str:
    """Return ``mean``, or ``mean ± sd`` of two values and more; ``-`` without any."""
    if not values:
        return "-"
    mean = statistics.fmean(values)
    return f"{mean:.4g} ± {statistics.stdev(values):.2g}" if len(values) > 1 else f"{mean:.4g}"
