"""The speed of methods, each measured alone on the device in a fresh process. `protocol` says how.

The processes are forked from one in which torch, and what methods share, is imported and nothing has run (`fresh`): a
start costs hundredths of a second where a new interpreter takes seconds. This module does not import torch.
"""

import os
import signal
import statistics
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from replications import catalogue
from replications.errors import RunFailure, UserError
from replications.measurement.fresh import Host, ProcessEnded
from replications.measurement.hardware import cpu_count, cpu_model, gpu_name, peak_flops, visible_gpus
from replications.measurement.lease import CUDA_CHOICE, reserve_device
from replications.measurement.load import gpu_load
from replications.measurement.protocol import EFFORTS, Effort, Measurement, throughput_fingerprint
from replications.progress import progress
from replications.records import Provenance, ThroughputRecord, read_throughput, without_nonfinite, write_record
from replications.spec import RunSpec

if TYPE_CHECKING:
    import torch

    from replications.training.stage import Workload

PRELOAD = ("torch", "replications.measurement.timing")
PROBE = Effort(1, 1, 0.0)  # of a batch size that may not fit
LARGEST_BATCH = 2**17
BUSY = 0.1  # load by other programs (share of the machine) above which a measurement reports it

# Makes a method's workload in the fresh process: a function of a module, given spec, data root and device.
MakeWorkload = Callable[[RunSpec, Path, "torch.device"], "Workload"]


@dataclass(frozen=True)
class Request:
    """A method to measure, the fingerprint of its code, and where its record goes.

    Methods with equal `imports`, names of modules, share what importing these costs. The modules count into the memory
    that is measured on the CPU, so they must not depend on which other methods are asked for. `synthetic`: on random
    data. `largest`: with the largest batch that fits, by doublings of the recipe's.
    """

    spec: RunSpec
    code_fingerprint: str
    record: Path
    imports: tuple[str, ...] = ()
    synthetic: bool = False
    largest: bool = False

    def fingerprint(self, device: str) -> str:
        """Hash what the measurement depends on, see `throughput_fingerprint`."""
        marks = ["synthetic"] * self.synthetic + ["largest batch"] * self.largest
        return throughput_fingerprint(self.spec, " ".join([self.code_fingerprint, *marks]), device_name(device))


def measure_many(
    requests: Sequence[Request], make_workload: MakeWorkload, data_root: Path, device: str, *, again: bool = False
) -> list[ThroughputRecord]:
    """Measure methods one after the other, alone on the device; returns their records in order.

    Those with the same imports come one after the other. A method whose finished record has the same fingerprint is not
    measured again (unless `again`); each record is written as soon as it is made. A method that fails leaves a record
    with ``status: failed``, and the next one is measured. Waits until the device is free of runs (in a tier whose
    numbers are no result it does not). Raises UserError for what a person must fix first, such as missing data.
    """
    records = [None if again else _finished(request, device) for request in requests]
    if None not in records:
        return records
    alone = any(catalogue.tier_config(request.spec.tier).result for request in requests)
    with reserve_device(device, alone=alone) as reserved, progress("throughput", len(requests), "methods") as counter:
        for imports in dict.fromkeys(request.imports for request in requests):
            with Host(imports, (*PRELOAD, make_workload.__module__)) as host:
                for index, request in enumerate(requests):
                    if request.imports != imports:
                        continue
                    counter.describe(request.spec.address)
                    if records[index] is None:
                        spec = request.spec
                        if request.largest:
                            spec = largest_batch(spec, make_workload, data_root, reserved, host)
                        found = measure_method(spec, make_workload, data_root, reserved, host)
                        marks = {"synthetic": request.synthetic, "fingerprint": request.fingerprint(reserved)}
                        records[index] = found.model_copy(update=marks)
                        write_record(records[index], request.record)
                    counter.advance()
    return records


def _finished(request: Request, device: str) -> ThroughputRecord | None:
    if not request.record.exists():
        return None
    try:
        record = read_throughput(request.record)
    except UserError:  # of an older schema, or damaged: it is made again
        return None
    return record if record.status == "finished" and record.fingerprint == request.fingerprint(device) else None


def device_name(device: str) -> str:
    """Name what a choice of device (``auto``, ``cpu``, ``cuda``, ``cuda:1``) means here, without importing torch."""
    gpus = visible_gpus()
    if device == "cpu" or (device == "auto" and not gpus):
        return f"{cpu_model()} x{cpu_count()}"
    index = int(device.partition(":")[2] or 0)
    return (gpu_name(gpus[index]) if index < len(gpus) else None) or device


def measure_method(
    spec: RunSpec,
    make_workload: MakeWorkload,
    data_root: Path,
    device: str,
    host: Host,
    *,
    code_fingerprint: str = "",
    effort: Effort | None = None,
) -> ThroughputRecord:
    """Measure one method in a fresh process; where memory does not suffice, in another one with half the batch.

    `device` is one that the caller has reserved; `effort` is the tier's unless given. Any failure but a UserError makes
    a failed record.
    """
    effort = effort or EFFORTS[spec.tier]
    halvings = 0
    while True:
        batch_size = max(1, spec.recipe.batch_size >> halvings)
        try:
            answer = _in_fresh_process(host, spec, make_workload, Path(data_root), device, effort, halvings)
        except RunFailure as failure:
            if failure.reason == "out of memory" and batch_size // 2 >= spec.recipe.accumulate:
                halvings += 1
                print(f"{spec.address}: {failure}; trying half the batch", file=sys.stderr, flush=True)
                continue
            fields = {"status": "failed", "reason": failure.reason, "message": str(failure), "batch_size": batch_size}
        else:
            fields = {"status": "finished", **_fields(spec, *answer)}
            broken = [name for name, value in fields.items() if without_nonfinite(value) != value]
            if broken:
                message = f"{', '.join(broken)}: not finite"
                fields = {"status": "failed", "reason": "error", "message": message, "batch_size": batch_size}
        return ThroughputRecord(
            fingerprint=throughput_fingerprint(spec, code_fingerprint, device_name(device)),
            paper=spec.paper,
            method=spec.method,
            tier=spec.tier,
            task=spec.task,
            precision=spec.recipe.precision,
            compiled=spec.recipe.compile,
            requested_batch_size=spec.recipe.batch_size,
            **fields,
        )


def largest_batch(spec: RunSpec, make_workload: MakeWorkload, data_root: Path, device: str, host: Host) -> RunSpec:
    """Return the spec with the largest batch of which a step runs: the recipe's, doubled until memory is out.

    Each is tried in a fresh process and not compiled, which takes less time and more memory.
    """
    while (twice := 2 * spec.recipe.batch_size) <= LARGEST_BATCH:
        larger = spec.model_copy(update={"recipe": spec.recipe.model_copy(update={"batch_size": twice})})
        tried = larger.model_copy(update={"recipe": larger.recipe.model_copy(update={"compile": False})})
        try:
            _in_fresh_process(host, tried, make_workload, Path(data_root), device, PROBE, 0)
        except RunFailure as failure:
            if failure.reason != "out of memory":
                raise UserError(f"{spec.address} with batch size {twice}: {failure}") from failure
            break
        spec = larger
    return spec


def _fields(spec: RunSpec, found: Measurement, provenance: Provenance) -> dict[str, Any]:
    """Turn a measurement into fields of the record; rates are from median steps."""
    train_rate = found.batch_size / statistics.median(found.train_step_seconds)
    peak = peak_flops(provenance.device, spec.recipe.precision)
    if found.background_load is not None and found.background_load > BUSY:
        busy = f"{found.background_load:.0%} of the machine was in use by others while it was measured"
        print(f"{spec.address}: {busy}; its speed is a lower bound", file=sys.stderr, flush=True)
    return {
        "batch_size": found.batch_size,
        "inference_batch_size": found.inference_batch_size,
        "train_step_seconds": found.train_step_seconds,
        "inference_step_seconds": found.inference_step_seconds,
        "train_samples_per_second": train_rate,
        "inference_samples_per_second": found.inference_batch_size / statistics.median(found.inference_step_seconds),
        "peak_memory_bytes": found.train_memory,
        "inference_peak_memory_bytes": found.inference_memory,
        "train_flops_per_sample": found.train_flops,
        "inference_flops_per_sample": found.inference_flops,
        "uncounted_operations": list(found.uncounted),
        "mfu": train_rate * found.train_flops / peak if peak else None,
        "train_joules_per_sample": found.train_joules,
        "background_load": found.background_load,
        "provenance": provenance,
    }


def _in_fresh_process(
    host: Host, spec: RunSpec, make_workload: MakeWorkload, data_root: Path, device: str, effort: Effort, halvings: int
) -> tuple[Measurement, Provenance]:
    # The fork server may have started before the lease: it does not know the choice of GPU.
    gpus = {name: os.environ[name] for name in CUDA_CHOICE if name in os.environ}
    try:
        kind, *answer = host.call(_work, gpus, spec, make_workload, data_root, device, effort, halvings)
    except ProcessEnded as end:
        kind, answer = "failure", _death(end.exit_code)
    if kind == "user error":
        raise UserError(*answer)
    if kind == "failure":
        raise RunFailure(*answer)
    return tuple(answer)


def _death(exit_code: int | None) -> tuple[str, str]:
    if exit_code == -signal.SIGKILL:
        return "out of memory", "the system ended the process with SIGKILL, as it does when memory runs out"
    return "error", f"the process ended with exit code {exit_code}"


def _work(gpus, spec, make_workload, data_root, device_choice, effort, halvings) -> tuple[Any, ...]:
    """Run in the fresh process: measure, and return the result or the failure. Exceptions are passed as text."""
    os.environ.update(gpus)
    try:
        from replications.measurement.hardware import resolve_device
        from replications.measurement.memory import is_out_of_memory, keep_freed_memory
        from replications.measurement.provenance import provenance
        from replications.measurement.timing import measure
        from replications.training.determinism import set_threads

        set_threads(spec.threads)
        device = resolve_device(device_choice)
        busy = gpu_load(visible_gpus()[device.index]) if device.type == "cuda" else None  # before we are on it
        keep_freed_memory(device)
        workload = make_workload(spec, data_root, device)
        if not any(parameter.requires_grad for parameter in workload.stage.module.parameters()):
            raise RunFailure("not trained", "the method has no training step to measure")
        found = measure(workload, effort, halvings, gpu_load=busy)
        deterministic = not workload.stage.nondeterministic
        return "found", found, provenance(device, spec.threads, deterministic=deterministic)
    except UserError as error:
        return "user error", str(error)
    except RunFailure as failure:
        return "failure", failure.reason, str(failure)
    except Exception as error:
        if is_out_of_memory(error):
            return "failure", "out of memory", str(error).partition("\n")[0]
        traceback.print_exc()
        return "failure", "error", "".join(traceback.format_exception_only(error)).strip()
