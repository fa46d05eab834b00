"""Executing a run: train and evaluate, or score a weights file, and write a record."""

import time
import traceback
import zipfile
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from replications import portable
from replications.datasets import checksum, registry
from replications.errors import RunFailure, UserError, naming_changes, on_disk
from replications.records import Cost, RunRecord, run_path, write_record
from replications.running.context import RunContext
from replications.running.fingerprints import Fingerprints, digest, fingerprints
from replications.running.store import finished_record, publish, work_folder, write_arrays
from replications.spec import RunSpec
from replications.tasks.base import find_task
from replications.tasks.run import Evaluation, finite

if TYPE_CHECKING:
    import torch

    from replications.training.distribution import Distribution


def execute(
    spec: RunSpec,
    *,
    data_root: Path,
    work_root: Path,
    results: Path,
    device: "torch.device",
    distribution: "Distribution | None" = None,
    again: bool = False,
    runs_per_gpu: int = 1,
) -> RunRecord:
    """Train and score one run and write its record; an equal finished run is taken from the work store.

    `runs_per_gpu` is the number of runs that may share the GPU, and is recorded. `again` scores the finished weights
    again without training. An expected failure (diverged, out of memory, interrupted) becomes a record with
    ``status: failed``; any other exception also leaves a failed record and is raised. Two processes on the same run
    take turns. Under torchrun all processes of a run call this with their `distribution`; the first one writes.
    """
    from replications.datasets.disk import alone
    from replications.training.distribution import Distribution

    portable.check(spec.portable)
    prints = fingerprints(spec)
    work = work_folder(work_root, prints)
    distribution = distribution or Distribution()
    with alone(work / "run", f"runs {spec.address} seed {spec.seed}") if distribution.is_first else nullcontext():
        finished = None if again or not distribution.is_first else finished_record(spec, prints, work_root)
        record = distribution.from_first(finished)
        if record is None:
            with on_disk("write in", results):  # fail before hours of training
                run_path(results, spec.paper, spec.method, spec.seed).parent.mkdir(parents=True, exist_ok=True)
            with naming_changes(spec.address, spec.changes):
                record = _run(spec, prints, Path(data_root), work, device, distribution, runs_per_gpu)
        if distribution.is_first:
            publish(record, work, run_path(results, spec.paper, spec.method, spec.seed))
    return record


def score_weights(
    spec: RunSpec, weights: Path, *, data_root: Path, work_root: Path, results: Path, device: "torch.device"
) -> RunRecord:
    """Score a weights file on the tier's test data, without training, and write its record below `results`.

    The record's ``extra["weights"]`` names the file and its sha256. Raises UserError if the file is missing or has
    another layout, or the method's task scores no files.
    """
    import torch

    from replications.measurement import memory
    from replications.training.determinism import deterministic, float32_precision

    task = find_task(spec.task)
    if not task.scores_weights:
        raise UserError(f"{spec.address}: the task {spec.task} scores no weights files")
    if not Path(weights).is_file():
        raise UserError(f"no weights file at {weights}")
    torch.set_num_threads(spec.threads)
    prints = fingerprints(spec)
    contents = checksum.digest(Path(weights))
    if zipfile.is_zipfile(weights) and not checksum.is_whole(Path(weights)):
        raise UserError(f"{weights} is damaged (a part of it has another checksum): fetch it again")
    work = Path(work_root) / "weights" / digest(prints.run, contents)[:16]
    with on_disk("write in", work):
        work.mkdir(parents=True, exist_ok=True)
    context = RunContext(spec, device, Path(data_root), work, weights=Path(weights))
    started = time.monotonic()
    memory.reset_peak_memory(device)
    evaluation, failure = Evaluation({}), None
    with deterministic(), float32_precision("float32"):
        try:
            evaluation = finite(task.score_weights(context))
        except RunFailure as error:
            failure = error
    record = _record(context, prints, evaluation, failure, time.monotonic() - started, memory.peak_memory(device), None)
    record.extra["weights"] = {"file": Path(weights).name, "sha256": contents}
    write_record(record, run_path(results, spec.paper, spec.method, spec.seed))
    return record


def _run(
    spec: RunSpec,
    prints: Fingerprints,
    data_root: Path,
    work: Path,
    device: "torch.device",
    distribution: "Distribution",
    runs_per_gpu: int,
) -> RunRecord:
    import torch

    from replications.measurement import energy, memory
    from replications.measurement.load import BackgroundLoad
    from replications.training.determinism import deterministic, float32_precision

    torch.set_num_threads(spec.threads)
    context = RunContext(spec, device, data_root, work, distribution)
    started = time.monotonic()
    evaluation, failure = Evaluation({}), None
    memory.keep_freed_memory(device)
    memory.reset_peak_memory(device)
    precision = spec.recipe.precision if spec.recipe else "float32"  # for scoring as for training
    with (
        energy.EnergyMeter(device) as meter,
        BackgroundLoad() as load,
        deterministic(),
        float32_precision(precision),
    ):
        try:
            evaluation = finite(find_task(spec.task).execute(context))
        except RunFailure as error:
            failure = error
        except UserError:
            raise
        except Exception as error:
            reason = "out of memory" if memory.is_out_of_memory(error) else "error"
            failure = RunFailure(reason, "".join(traceback.format_exception_only(error)).strip().partition("\n")[0])
            failure.__cause__ = error
    record = _record(
        context, prints, evaluation, failure, time.monotonic() - started, memory.peak_memory(device), meter.joules
    )
    record.cost.processes = distribution.world_size
    if device.type == "cuda" and runs_per_gpu > 1:
        record.cost.runs_per_gpu, record.cost.energy_joules = runs_per_gpu, None  # the energy is that of the whole GPU
    record.cost.background_load = load.share if distribution.world_size == 1 else None
    if distribution.is_first:
        if evaluation.arrays:
            write_arrays(evaluation.arrays, work / "arrays.npz")
        write_record(record, work / "run.json")
    if failure and failure.reason == "error":
        raise failure.__cause__
    return record


def _record(
    context: RunContext,
    prints: Fingerprints,
    evaluation: Evaluation,
    failure: RunFailure | None,
    seconds: float,
    peak: int | None,
    joules: float | None,
) -> RunRecord:
    from replications.measurement import provenance

    spec = context.spec
    return RunRecord(
        status="failed" if failure else "finished",
        reason=failure.reason if failure else None,
        message=str(failure) if failure else None,
        fingerprint=prints.run,
        code_fingerprint=prints.code,
        data_fingerprint=prints.data,
        modules=dict(prints.modules),
        sets=dict(prints.sets),
        spec=spec,
        data={"sets": dict(spec.data), **_described(spec), **evaluation.data},
        category=evaluation.category,
        metrics=evaluation.metrics,
        groups=evaluation.groups,
        curves=evaluation.curves,
        extra=evaluation.extra,
        history=context.history,
        cost=_cost(context, evaluation, seconds, peak, joules),
        provenance=provenance.provenance(context.device, spec.threads, deterministic=context.nondeterministic is None),
    )


def _described(spec: RunSpec) -> dict[str, Any]:
    kinds = {role: registry.describe_set(key) for role, key in spec.data.items()}
    return {
        "title": ", ".join(dict.fromkeys(kind["title"] for kind in kinds.values())),
        "kind": ", ".join(dict.fromkeys(kind["kind"] for kind in kinds.values())),
    }


def _cost(context: RunContext, evaluation: Evaluation, seconds: float, peak: int | None, joules: float | None) -> Cost:
    stages, cuda = context.stages, context.device.type == "cuda"
    train_seconds = sum(stage.seconds for stage in stages)
    samples = sum(stage.samples for stage in stages)
    return Cost(
        train_seconds=train_seconds if context.spec.recipe else None,
        sample_seconds=context.sample_seconds,
        total_seconds=seconds,
        data_wait_seconds=sum(stage.data_wait_seconds for stage in stages),
        steps=sum(stage.steps for stage in stages),
        samples=samples,
        samples_per_second=samples / train_seconds if train_seconds > 0 else None,
        # The loop resets CUDA's peak for each stage; on the CPU the peak is the whole process's.
        peak_memory_bytes=max(peak, *(s.peak_memory_bytes or 0 for s in stages)) if cuda and stages else peak,
        parameters=context.parameters,
        model_parameters=evaluation.model_parameters,
        flops_per_sample=evaluation.flops_per_sample,
        energy_joules=joules,
        resumed=sum(stage.resumed for stage in stages),
    )
