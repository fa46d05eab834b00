"""``run`` and ``evaluate``: the commands that train and score."""

import argparse
import contextlib
import os
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from replications import catalogue, request
from replications.cli.data import prepare_own, sets_of
from replications.cli.options import (
    NAMES,
    add_device,
    add_folders,
    add_portable,
    add_runs_per_gpu,
    add_set,
    add_tier,
    chosen_device,
    command,
    file_type,
    of_these,
)
from replications.errors import UserError, nearest, one_line
from replications.looks import LOOKS
from replications.planning import judging
from replications.planning.knobs import parse_methods, seeds_or_looks
from replications.records import RunRecord, run_path, tier_folder
from replications.spec import RunSpec

if TYPE_CHECKING:
    import torch

    from replications.training.distribution import Distribution

IN_THE_TABLE = ("diverged", "out of memory")


def add(commands: argparse._SubParsersAction) -> None:
    parser = command(
        commands,
        "run",
        run,
        "train and score methods, one record per seed",
        "run arcface/softmax --tier smoke --seeds 0,1 --set recipe.lr=0.05",
    )
    _add_method(parser)
    about = "run in looks of 3, 5, 8 and 12 seeds; after the first look only rows that an undecided claim needs"
    parser.add_argument("--looks", metavar="1-4", help=f"{about}; instead of --seeds")
    add_set(parser)
    parser = command(
        commands,
        "evaluate",
        evaluate,
        "score the finished weights of a run again",
        "evaluate arcface/softmax --tier smoke --seeds 0",
    )
    _add_method(parser)
    parser.add_argument(
        "--weights",
        type=file_type,
        metavar="FILE",
        help="score this file instead, untrained here (official layouts; see the paper's README); "
        "PAPER alone will do; the record goes to DIR/tried",
    )


def _add_method(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("methods", nargs="+", metavar="NAME", help=NAMES)
    add_tier(parser)
    parser.add_argument("--seeds", help="a count (3) or a list (0,1,2); default: those of the first look")
    add_device(parser)
    add_runs_per_gpu(parser)
    add_portable(parser)
    add_folders(parser, "data_root", "work", "results")


def run(args: argparse.Namespace) -> int:
    """Run each method and seed in sequence; embedded and procedural data are prepared.

    A run that fails (diverged, out of memory) is a record and does not change the exit code. After any other error the
    other methods still run, and the exit code is 1. With several looks, the rows' claims are judged after each.
    """
    tier = catalogue.tier_config(args.tier)
    addresses = parse_methods(args.methods, args.tier)
    if args.looks is None:
        return _execute(args, dict.fromkeys(addresses, _seeds(args)), args.changes, again=False)
    _, looks = seeds_or_looks(args.seeds, args.looks, tier)
    if looks > 1 and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(f"--looks {looks} in several processes: give each look's seeds by --seeds")
    folder = tier_folder(args.results, args.tier, tried=bool(args.changes), portable=args.portable)
    have: dict[str, int] = {}
    rows = {address: range(LOOKS[0]) for address in addresses}
    for look in range(1, looks + 1):
        code = _execute(args, rows, args.changes, again=False)
        have |= {address: seeds.stop for address, seeds in rows.items()}
        if code or look == looks:
            return code
        rows = {a: range(have[a], LOOKS[look]) for a in judging.going_on(folder, args.tier, have, look, looks)}
    return 0


def _seeds(args: argparse.Namespace) -> tuple[int, ...]:
    """Return the given seeds, else those of the first look, or the tier's seeds if it has no looks."""
    tier = catalogue.tier_config(args.tier)
    looks = 1 if args.seeds is None and tier.looks else None
    return seeds_or_looks(args.seeds, looks, tier)[0]


def evaluate(args: argparse.Namespace) -> int:
    """Score finished runs again, or a weights file; raises UserError for a run that has not finished."""
    if args.weights:
        return _score_file(args)
    return _execute(args, dict.fromkeys(parse_methods(args.methods, args.tier), _seeds(args)), [], again=True)


def _score_file(args: argparse.Namespace) -> int:
    from replications.running import score_weights
    from replications.tasks.base import find_task

    if len(args.methods) > 1:
        raise UserError(f"--weights scores one method, not {len(args.methods)}: name the one whose layout the file has")
    name = args.methods[0]
    address = name if "/" in name else _reader_of(name)
    spec = catalogue.resolve(address, args.tier, 0)
    with _device(chosen_device(args.device, args.tier)) as (_, device):
        record = score_weights(
            spec,
            args.weights,
            data_root=args.data_root,
            work_root=args.work,
            results=tier_folder(args.results, args.tier, tried=True),
            device=device,
        )
    if record.status == "failed":
        print(_line(record))
        return 1
    metrics = find_task(spec.task).metrics
    for name, value in sorted(record.metrics.items()):
        print(f"{metrics[name].title:32} {value:.{metrics[name].decimals}f} {metrics[name].unit}".rstrip())
    return 0


def _reader_of(paper: str) -> str:
    """The paper's first method that reads weights files; raises UserError if there is none."""
    known = catalogue.papers()
    if paper not in known:
        raise UserError(f"unknown paper '{paper}'{nearest(paper, known)}")
    methods = [name for name, method in known[paper].methods.items() if method.weights]
    if not methods:
        raise UserError(f"no method of {paper} reads weights files")
    return f"{paper}/{methods[0]}"


def _execute(args: argparse.Namespace, rows: Mapping[str, Sequence[int]], changes: list[str], again: bool) -> int:
    """Run or score the seeds of each row; return the exit code."""
    from replications.measurement.process import sigterm_as_interrupt
    from replications.running import fingerprints, finished_record, restore

    addresses = list(rows)
    specs = {
        address: [request.resolve(address, args.tier, seed, changes, args.portable) for seed in seeds]
        for address, seeds in rows.items()
    }
    results = tier_folder(args.results, args.tier, tried=bool(changes), portable=args.portable)
    for spec in chain(*specs.values()) if again else ():
        if finished_record(spec, fingerprints(spec), args.work) is None:
            raise UserError(
                f"{spec.address} seed {spec.seed} has not been run in tier {args.tier} with the present code: "
                f"'python -m replications run {spec.address} --seeds {spec.seed},{of_these(args)}' does it"
            )
    alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
    if not again and alone:
        # Finished runs need neither a device nor torch, whose import takes seconds.
        for address in addresses:
            restored = [restore(spec, work_root=args.work, results=results) for spec in specs[address]]
            if all(restored):
                _print_records(restored)
                del specs[address]
    if not specs:
        _print_end(args, addresses, [])
        return 0
    prepare_own(sets_of(chain(*specs.values())), args.data_root)
    failed = []
    with (
        sigterm_as_interrupt(),
        _device(chosen_device(args.device, args.tier), args.runs_per_gpu) as (distribution, device),
    ):
        for address, of_method in specs.items():
            try:
                records = _run_seeds(args, of_method, results, device, distribution, again)
            except Exception as error:
                if len(addresses) == 1 or not alone:
                    raise
                if not isinstance(error, UserError):
                    traceback.print_exc()
                print(f"error: {address}: {one_line(error)}", file=sys.stderr, flush=True)
                failed.append(address)
                continue
            if records[-1].status == "failed" and records[-1].reason not in IN_THE_TABLE:
                failed.append(address)
                if records[-1].reason == "interrupted":
                    return 1
    if distribution.is_first:
        _print_end(args, addresses, failed)
    return int(bool(failed))


def _run_seeds(
    args: argparse.Namespace,
    specs: list[RunSpec],
    results: Path,
    device: "torch.device",
    distribution: "Distribution",
    again: bool,
) -> list[RunRecord]:
    """Run a method's seeds until one ends without a record for the table."""
    from replications.running import execute

    say = print if distribution.is_first else _print_nothing
    records: list[RunRecord] = []
    for spec in specs:
        records.append(
            execute(
                spec,
                data_root=args.data_root,
                work_root=args.work,
                results=results,
                device=device,
                distribution=distribution,
                again=again,
                runs_per_gpu=args.runs_per_gpu,
            )
        )
        say(_line(records[-1]), flush=True)
        if records[-1].status == "failed" and records[-1].reason not in IN_THE_TABLE:
            # Remove the record: snakemake would take it for a finished run.
            run_path(results, spec.paper, spec.method, spec.seed).unlink(missing_ok=True)
            return records
    if len(records) > 1:
        say(_summary(records), flush=True)
    return records


def _print_end(args: argparse.Namespace, addresses: list[str], failed: list[str]) -> None:
    if failed and len(addresses) > 1:
        print(
            f"{len(failed)} of {len(addresses)} methods failed ({', '.join(failed)}): run the command again to resume"
        )
    elif len(addresses) > 1:
        print(f"{len(addresses)} methods have run: 'python -m replications report{of_these(args)}' makes their tables")


def _print_records(records: list[RunRecord]) -> None:
    print("\n".join(_line(record) for record in records))
    if len(records) > 1:
        print(_summary(records))


def _print_nothing(*_, **__) -> None:
    """The output of all processes of a run but the first."""


@contextlib.contextmanager
def _device(choice: str, runs_per_gpu: int = 1) -> Iterator[tuple["Distribution", "torch.device"]]:
    """Lease a device and join the run's process group; under torchrun the devices are chosen already."""
    from replications.measurement.hardware import count_gpus, resolve_device
    from replications.measurement.lease import reserve_device
    from replications.training.distribution import join, leave

    with contextlib.ExitStack() as stack:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            name = "cuda" if choice.startswith("cuda") or (choice == "auto" and count_gpus()) else "cpu"
        else:
            name = str(resolve_device(stack.enter_context(reserve_device(choice, runs_per_gpu=runs_per_gpu))))
        stack.callback(leave)
        yield join(name)


def _line(record: RunRecord) -> str:
    """One run as a line."""
    from replications.tasks.base import find_task

    name = f"{record.spec.address} seed {record.spec.seed}"
    if record.status == "failed":
        return f"{name}: failed, {record.reason}: {record.message}"
    task = find_task(record.spec.task)
    metric = task.metrics[task.primary_metric]
    return f"{name}: {metric.title} {record.metrics[task.primary_metric]:.{metric.decimals}f} {metric.unit}"


def _summary(records: list[RunRecord]) -> str:
    """Return the results of several seeds as one line."""
    from statistics import mean

    from replications.tasks.base import find_task

    finished = [record for record in records if record.status == "finished"]
    failed = len(records) - len(finished)
    words = [f"{failed} of {len(records)} failed ({records[-1].reason})"] if failed else []
    if finished:
        task = find_task(records[0].spec.task)
        metric = task.metrics[task.primary_metric]
        values = [record.metrics[task.primary_metric] for record in finished]
        spread = f" ({', '.join(f'{value:.{metric.decimals}f}' for value in values)})"
        words.append(f"{metric.title} {mean(values):.{metric.decimals}f} {metric.unit}{spread}")
    return f"{records[0].spec.address}: {'; '.join(words)}"
