"""``run``, ``evaluate`` and ``throughput``: what needs a device."""

import argparse
import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from replications import catalogue
from replications.cli.options import add_device, add_folders, add_runs_per_gpu, add_set, add_tier, command, file_type
from replications.errors import UserError, nearest
from replications.planning.knobs import parse_papers, parse_seeds, tier_folder
from replications.records import (
    RunRecord,
    ThroughputRecord,
    run_path,
    synthetic_path,
    throughput_path,
    write_atomic,
)
from replications.spec import LARGEST_COUNT, RunSpec

if TYPE_CHECKING:
    import torch

    from replications.training.distribution import Distribution

IN_THE_TABLE = ("diverged", "out of memory")


def add(commands: argparse._SubParsersAction) -> None:
    parser = command(
        commands,
        "run",
        run,
        "train and judge a method, one record a seed",
        "run arcface/softmax --tier smoke --seeds 0,1 --set recipe.lr=0.05",
    )
    _add_method(parser)
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
    parser = command(
        commands,
        "throughput",
        throughput,
        "measure the speed of methods, alone on the device",
        "throughput arcface/softmax,arcface/arcface --tier mini",
    )
    parser.add_argument("methods", metavar="PAPER/METHOD,...", help="addresses joined by commas, or 'all'")
    add_tier(parser)
    add_set(parser)
    add_device(parser)
    add_folders(parser, "data_root", "work", "results")
    about = (
        "on random data in the form of the tier's own: needs no data, is no result; records go to DIR/TIER/synthetic"
    )
    parser.add_argument("--synthetic", action="store_true", help=about)
    about = "with --synthetic: samples a training step, or 'max', doubled until memory is out; default: the recipe's"
    parser.add_argument("--batch", type=_batch, metavar="N|max", help=about)
    about = "with --synthetic: compile the step, or not; default: as the recipe says"
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, help=about)
    parser.add_argument("--done", type=file_type, metavar="FILE", help="list here what was measured, when all is")


def _add_method(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("method", metavar="PAPER/METHOD", help="as `list methods` shows it")
    add_tier(parser)
    parser.add_argument("--seeds", help="a count (3) or a list (0,1,2); default: the tier's")
    add_device(parser)
    add_runs_per_gpu(parser)
    add_folders(parser, "data_root", "work", "results")


def run(args: argparse.Namespace) -> int:
    """Run each seed, one after the other. A failure that belongs in the table is a record, not an exit code."""
    return _execute(args, args.changes, again=False)


def evaluate(args: argparse.Namespace) -> int:
    """Score finished runs again, or a weights file; raises UserError for a run that has not finished."""
    return _score_file(args) if args.weights else _execute(args, [], again=True)


def _score_file(args: argparse.Namespace) -> int:
    from replications.running import score_weights
    from replications.tasks.base import find_task

    address = args.method if "/" in args.method else _reader_of(args.method)
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
    """The paper's first method that reads weights files; raises UserError where it has none."""
    known = catalogue.papers()
    if paper not in known:
        raise UserError(f"unknown paper '{paper}'{nearest(paper, known)}")
    methods = [name for name, method in known[paper].methods.items() if method.weights]
    if not methods:
        raise UserError(f"no method of {paper} reads weights files")
    return f"{paper}/{methods[0]}"


def _execute(args: argparse.Namespace, changes: list[str], again: bool) -> int:
    from replications.measurement.process import sigterm_as_interrupt
    from replications.running import execute, fingerprints, finished_record, restore

    seeds = parse_seeds(args.seeds, catalogue.tier_config(args.tier).seeds)
    specs = [catalogue.resolve(args.method, args.tier, seed, changes) for seed in seeds]
    results = tier_folder(args.results, args.tier, tried=bool(changes))
    for spec in specs if again else ():
        if finished_record(spec, fingerprints(spec), args.work) is None:
            raise UserError(
                f"{spec.address} seed {spec.seed} has not been run in tier {args.tier} with the present code: "
                f"'python -m replications run {spec.address} --tier {args.tier} --seeds {spec.seed},' does it"
            )
    if not again and int(os.environ.get("WORLD_SIZE", "1")) == 1:
        # What is finished needs neither a device nor the seconds that importing torch takes.
        restored = [restore(spec, work_root=args.work, results=results) for spec in specs]
        if all(restored):
            print("\n".join(_line(record) for record in restored))
            if len(restored) > 1:
                print(_summary(restored))
            return 0
    records: list[RunRecord] = []
    with (
        sigterm_as_interrupt(),
        _device(chosen_device(args.device, args.tier), args.runs_per_gpu) as (
            distribution,
            device,
        ),
    ):
        say = print if distribution.is_first else _say_nothing
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
                # Not a row of the table: snakemake takes a record that lies there as done.
                run_path(results, spec.paper, spec.method, spec.seed).unlink(missing_ok=True)
                return 1
    if len(records) > 1:
        say(_summary(records), flush=True)
    return 0


def _say_nothing(*_, **__) -> None:
    """What the processes of one run other than the first say."""


@contextlib.contextmanager
def _device(choice: str, runs_per_gpu: int = 1) -> Iterator[tuple["Distribution", "torch.device"]]:
    """Reserve a device and take this process's place in its run; torchrun has chosen the devices of its own."""
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


def chosen_device(choice: str, tier: str) -> str:
    """What a choice of device means in a tier: 'auto' is a GPU only in the tiers that want one."""
    return "cpu" if choice == "auto" and not catalogue.tier_config(tier).accelerator else choice


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
    """Several seeds as a line."""
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


def _batch(text: str) -> int | str:
    if text != "max" and not (text.isdecimal() and 0 < int(text) <= LARGEST_COUNT):
        raise UserError(f"--batch {text}: give a number of samples from 1 on, or 'max'")
    return text if text == "max" else int(text)


def throughput(args: argparse.Namespace) -> None:
    """Measure each method in a process of its own; one that was measured on this device before is not again."""
    from replications.measurement.hardware import count_gpus
    from replications.measurement.throughput import Request, measure_many
    from replications.running import fingerprints, make_synthetic_workload, make_workload, task_modules

    device = chosen_device(args.device, args.tier)
    if not args.synthetic and (args.batch or args.compile is not None):
        raise UserError("--batch and --compile go with --synthetic; elsewhere say --set recipe.batch_size=N")
    if args.batch == "max" and (device == "cpu" or not count_gpus()):
        raise UserError("--batch max needs a GPU: on a CPU it would take the whole machine's memory; give a number")
    changes, variant = list(args.changes), []
    if args.batch:
        variant.append(f"batch{args.batch}")
        changes += [f"recipe.batch_size={args.batch}"] * (args.batch != "max")
    if args.compile is not None:
        variant.append("compiled" if args.compile else "eager")
        changes.append(f"recipe.compile={str(args.compile).lower()}")
    addresses = args.methods.split(",")
    if addresses == ["all"]:
        addresses = catalogue.methods_of(parse_papers("all", args.tier), args.tier)
    specs = [catalogue.resolve(address, args.tier, 0, changes) for address in addresses]
    folder = tier_folder(args.results, args.tier, tried=bool(args.changes))

    def path(spec: RunSpec) -> Path:
        place = spec.paper, spec.method
        return synthetic_path(folder, *place, "-".join(variant)) if args.synthetic else throughput_path(folder, *place)

    requests = [
        Request(s, fingerprints(s).code, path(s), task_modules(s.task), args.synthetic, args.batch == "max")
        for s in specs
        if s.recipe is not None
    ]
    for spec in specs:
        if spec.recipe is None:
            print(f"{spec.address}: throughput does not apply, nothing is trained")
    make = make_synthetic_workload if args.synthetic else make_workload
    records = measure_many(requests, make, args.data_root, device)
    for record in records:
        print(f"{record.paper}/{record.method}: {_speed(record)}")
    if args.done:
        measured = {f"{record.paper}/{record.method}": record.fingerprint for record in records}
        write_atomic(args.done, json.dumps(measured, indent=1).encode() + b"\n")
    print("1 method measured" if len(records) == 1 else f"{len(records)} methods measured")


def _speed(record: ThroughputRecord) -> str:
    """A speed as a line; of random data with all that was measured."""
    from statistics import median

    rate = record.train_samples_per_second
    if not rate:
        return f"{record.reason}: {record.message}"
    if not record.synthetic:
        return f"{rate:.0f} samples/s in training"
    words = [
        f"{rate:.4g} samples/s in training, {record.inference_samples_per_second:.4g} in inference",
        f"step {1000 * median(record.train_step_seconds):.4g} ms",
        f"batch {record.batch_size}, {record.precision}, {'compiled' if record.compiled else 'eager'}",
        f"{(record.peak_memory_bytes or 0) / 2**20:.0f} MiB",
    ]
    words += [f"MFU {record.mfu:.1%}"] if record.mfu is not None else []
    words += [f"{record.train_joules_per_sample:.3g} J/sample"] if record.train_joules_per_sample else []
    return f"{'; '.join(words)} (random data: no result)"
