"""``throughput``: the speed of methods, measured alone on the device."""

import argparse
import json
from pathlib import Path

from replications import request
from replications.cli.data import prepare_own, sets_of
from replications.cli.options import (
    NAMES,
    add_device,
    add_folders,
    add_portable,
    add_set,
    add_tier,
    chosen_device,
    command,
    file_type,
)
from replications.errors import UserError
from replications.planning.knobs import parse_methods
from replications.records import ThroughputRecord, synthetic_path, throughput_path, tier_folder, write_atomic
from replications.spec import LARGEST_COUNT, RunSpec


def add(commands: argparse._SubParsersAction) -> None:
    parser = command(
        commands,
        "throughput",
        throughput,
        "measure the speed of methods, alone on the device",
        "throughput arcface/softmax,arcface/arcface --tier mini",
    )
    parser.add_argument("methods", nargs="+", metavar="NAME", help=NAMES)
    add_tier(parser)
    add_set(parser)
    add_device(parser)
    add_portable(parser)
    add_folders(parser, "data_root", "work", "results")
    about = "use random data with the shapes of the tier's data; not a result; records go to DIR/TIER/synthetic"
    parser.add_argument("--synthetic", action="store_true", help=about)
    about = "with --synthetic: samples per training step, or 'max': doubled until out of memory; default: the recipe's"
    parser.add_argument("--batch", type=_batch, metavar="N|max", help=about)
    about = "with --synthetic: whether to compile the step; default: the recipe's"
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, help=about)
    parser.add_argument(
        "--done", type=file_type, metavar="FILE", help="file that lists the measurements when all are done"
    )


def _batch(text: str) -> int | str:
    if text != "max" and not (text.isdecimal() and 0 < int(text) <= LARGEST_COUNT):
        raise UserError(f"--batch {text}: give a number of samples from 1 on, or 'max'")
    return text if text == "max" else int(text)


def throughput(args: argparse.Namespace) -> int:
    """Measure each method in a separate process, unless measured on this device before; 1 if random data failed."""
    from replications.measurement.hardware import count_gpus
    from replications.measurement.throughput import Request, measure_many
    from replications.running import fingerprints, make_synthetic_workload, make_workload, task_modules

    device = chosen_device(args.device, args.tier)
    if not args.synthetic and (args.batch or args.compile is not None):
        raise UserError("--batch and --compile go with --synthetic; elsewhere say --set recipe.batch_size=N")
    if args.batch == "max" and (device == "cpu" or not count_gpus()):
        raise UserError("--batch max needs a GPU: on a CPU it would take the whole machine's memory; give a number")
    changes, variant = list(args.changes), [f"batch{args.batch}"] * bool(args.batch)
    if args.batch:
        changes += [f"recipe.batch_size={args.batch}"] * (args.batch != "max")
    if args.compile is not None:
        variant.append("compiled" if args.compile else "eager")
        changes.append(f"recipe.compile={str(args.compile).lower()}")
    addresses = parse_methods(args.methods, args.tier)
    specs = [request.resolve(address, args.tier, 0, changes, args.portable) for address in addresses]
    folder = tier_folder(args.results, args.tier, tried=bool(args.changes), portable=args.portable)

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
    if not args.synthetic:
        prepare_own(sets_of(specs), args.data_root)
    make = make_synthetic_workload if args.synthetic else make_workload
    for record in (records := measure_many(requests, make, args.data_root, device)):
        print(f"{record.paper}/{record.method}: {_speed(record)}")
    if args.done:
        measured = {f"{record.paper}/{record.method}": record.fingerprint for record in records}
        write_atomic(args.done, json.dumps(measured, indent=1).encode() + b"\n")
    print("1 method measured" if len(records) == 1 else f"{len(records)} methods measured")
    return int(args.synthetic and any(record.reason not in (None, "not trained") for record in records))


def _speed(record: ThroughputRecord) -> str:
    """Return a speed as one line; on random data with all measurements."""
    from statistics import median

    rate = record.train_samples_per_second
    if not rate:
        return f"{record.reason}: {record.message}"
    if not record.synthetic:
        return f"{rate:.0f} samples/s in training"
    asked = record.requested_batch_size or 0
    smaller = f" ({asked} asked for: out of memory)" * (asked > record.batch_size)
    words = [
        f"{rate:.4g} samples/s in training, {record.inference_samples_per_second:.4g} in inference",
        f"step {1000 * median(record.train_step_seconds):.4g} ms",
        f"batch {record.batch_size}{smaller}, {record.precision}, {'compiled' if record.compiled else 'eager'}",
        f"{(record.peak_memory_bytes or 0) / 2**20:.0f} MiB",
    ]
    words += [f"MFU {record.mfu:.1%}"] if record.mfu is not None else []
    words += [f"{record.train_joules_per_sample:.3g} J/sample"] if record.train_joules_per_sample else []
    return f"{'; '.join(words)} (random data: no result)"
