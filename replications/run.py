"""One run: from a spec to a record.

A run works in ``<work>/<fingerprint>``: checkpoints, finished stages and, at the end, its record. The record is then
copied to where the tables look for it. A finished record with the same fingerprint is never made twice.
"""

import hashlib
import importlib
import inspect
import sys
import time
import traceback
import zipfile
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from replications import catalogue
from replications.datasets import checksum, registry
from replications.errors import RunFailure, UserError, naming_changes, nearest, on_disk
from replications.fingerprint import code_fingerprint
from replications.records import Cost, HistoryPoint, RunRecord, read_run, run_path, write_atomic, write_record
from replications.spec import RunSpec
from replications.tasks.base import Evaluation, find_task

if TYPE_CHECKING:
    import torch
    from torch import nn

    from replications.training.distribution import Distribution
    from replications.training.stage import Stage, StageResult, Workload

PACKAGE = Path(__file__).parent
PICTURES = "pictures.py"
TALK = ("replications.progress", "replications.errors", "replications.parsing")
PASSING_FAILURES = ("interrupted", "out of memory", "error")


@dataclass(frozen=True)
class Fingerprints:
    """What a run depends on. `run` covers the resolved spec, the data and the code; it names the work folder too."""

    run: str
    code: str
    data: str

    def with_seed_of(self, spec: RunSpec) -> "Fingerprints":
        """Return those of a run that differs from this one in nothing but its seed, without looking at code again."""
        return replace(self, run=_digest(spec.canonical_json(), self.code, self.data))


def fingerprints(spec: RunSpec) -> Fingerprints:
    """Compute a run's fingerprints without its data and without importing torch.

    Code is every module of the package that the paper's model, the task and the training loop import, but for those
    that only talk to a person or draw for one. Data is the fingerprints of the prepared sets by role. Raises UserError
    for a wrong task option: everything that runs, plans or restores comes by here.
    """
    find_task(spec.task).check_options(spec.task_options)
    module = spec.build.partition(":")[0]
    model = PACKAGE / "papers" / spec.paper / f"{module}.py"
    if not model.exists():
        raise UserError(f"{spec.address}: build names {module}.py, which papers/{spec.paper}/ does not have")
    code = code_fingerprint([model, PACKAGE / "training" / "loop.py", *_task_files(spec.task)], leave_out=TALK)
    data = _digest(*(f"{role}={registry.data_fingerprint(key)}" for role, key in sorted(spec.data.items())))
    return Fingerprints(run=_digest(spec.canonical_json(), code, data), code=code, data=data)


def task_modules(task: str) -> tuple[str, ...]:
    """Name the modules that a task's code consists of: importing them is importing what its methods share."""
    return tuple(f"replications.tasks.{task}.{path.stem}" for path in _task_files(task) if path.stem != "__init__")


def _task_files(task: str) -> list[Path]:
    return sorted(path for path in (PACKAGE / "tasks" / task).glob("*.py") if path.name != PICTURES)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def derived_seed(seed: int, name: str) -> int:
    """A 63-bit seed for the part `name` of a run: equal for all methods of one seed, so that they are paired."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "big") >> 1


@dataclass
class RunContext:
    """What a task is given while it runs (`replications.tasks.base.Context`)."""

    spec: RunSpec
    device: "torch.device"
    data_root: Path
    work: Path
    distribution: "Distribution | None" = None
    weights: Path | None = None
    stages: list["StageResult"] = field(default_factory=list)
    history: list[HistoryPoint] = field(default_factory=list)
    parameters: int = 0

    def build(self, name: str, **info: Any) -> "nn.Module":
        """Build the method's module for stage `name` with freshly seeded weights.

        The paper's callable gets `info` and the spec's options; of the options that the task gives to every method it
        gets those it takes. Raises UserError for an option of the method's own that the callable does not take.
        """
        from replications.training.determinism import seed_everything

        build = find_function(self.spec, self.spec.build)
        accepted = inspect.signature(build).parameters
        shared = catalogue.task_tiers(self.spec.task)[self.spec.tier].options
        for option in self.spec.options:
            if option not in accepted and option not in shared:
                raise UserError(f"{self.spec.address} has no option '{option}'{nearest(option, accepted)}")
        options = {name: value for name, value in self.spec.options.items() if name in accepted}
        seed_everything(derived_seed(self.spec.seed, f"weights/{name}"))
        return build(**{k: v for k, v in info.items() if k in accepted}, **options)

    def load(self, name: str, **info: Any) -> "nn.Module":
        """Build the method's module and let the paper's reader (`weights` in paper.yaml) fill it from the file.

        The reader is called as ``reader(module, path)``; it raises UserError where the file has another layout.
        """
        method = catalogue.find_method(self.spec.address)[1]
        if method.weights is None:
            raise UserError(f"{self.spec.address} reads no weights files: paper.yaml names no reader under 'weights'")
        module = self.build(name, **info)
        find_function(self.spec, method.weights)(module, self.weights)
        return module.to(self.device)

    def train(self, stage: "Stage") -> "StageResult":
        """Train a stage, continue it, or load it where it is finished; its cost counts into the record."""
        from replications.training.loop import train

        seed = derived_seed(self.spec.seed, f"stage/{stage.name}")
        result = train(stage, work=self.work, seed=seed, device=self.device, distribution=self.distribution)
        self.stages.append(result)
        self.history.extend(result.history)
        own = sum(p.numel() for p in stage.module.parameters() if p.requires_grad)
        self.parameters = max(self.parameters, own)
        return result


def make_workload(spec: RunSpec, data_root: Path, device: "torch.device") -> "Workload":
    """Return one training step and one inference of a method, for throughput and the conformance tests."""
    return find_task(spec.task).workload(RunContext(spec, device, Path(data_root), Path()))


def find_function(spec: RunSpec, name: str) -> Callable[..., Any]:
    """Import the callable ``module:function`` of a paper's folder; raises UserError where it is not there."""
    module_name, _, function = name.partition(":")
    module = importlib.import_module(f"replications.papers.{spec.paper}.{module_name}")
    if not hasattr(module, function):
        raise UserError(f"{spec.address}: papers/{spec.paper}/{module_name}.py has no function '{function}'")
    return getattr(module, function)


def finished_record(spec: RunSpec, prints: Fingerprints, work_root: Path) -> RunRecord | None:
    """Return the record that an equal run has left in the work store, if there is one."""
    path = work_folder(work_root, prints) / "run.json"
    if not path.exists():
        return None
    if not checksum.is_whole(path.with_name("arrays.npz")):
        print(f"{path.with_name('arrays.npz')} is damaged: the run is scored again", file=sys.stderr, flush=True)
        return None
    record = read_run(path)
    record.spec = spec  # equal but for the words in which it was asked for
    return record if record.fingerprint == prints.run and record.reason not in PASSING_FAILURES else None


def restore(spec: RunSpec, *, work_root: Path, results: Path) -> RunRecord | None:
    """Put the record of an equal finished run where the tables look, without importing torch; None: there is none."""
    prints = fingerprints(spec)
    record = finished_record(spec, prints, work_root)
    if record is not None:
        work = work_folder(work_root, prints)
        _publish(record, work, run_path(results, spec.paper, spec.method, spec.seed))
    return record


def work_folder(work_root: Path, prints: Fingerprints) -> Path:
    """Where a run keeps its checkpoints."""
    return Path(work_root) / "runs" / prints.run[:16]


def execute(
    spec: RunSpec,
    *,
    data_root: Path,
    work_root: Path,
    results: Path,
    device: "torch.device",
    distribution: "Distribution | None" = None,
    again: bool = False,
) -> RunRecord:
    """Train and judge one run and write its record; an equal finished run is taken from the work store.

    `again` scores the finished weights anew (they are not trained again). A failure that belongs in the table
    (diverged, out of memory, interrupted) becomes a record with ``status: failed``; any other exception leaves a
    failed record too and is raised. Two processes on the same run take turns. The processes of one run under
    torchrun all call this with their `distribution`; the first one writes.
    """
    from replications.datasets.disk import alone
    from replications.training.distribution import Distribution

    prints = fingerprints(spec)
    work = work_folder(work_root, prints)
    distribution = distribution or Distribution()
    with alone(work / "run", f"runs {spec.address} seed {spec.seed}") if distribution.is_first else nullcontext():
        finished = None if again or not distribution.is_first else finished_record(spec, prints, work_root)
        record = distribution.from_first(finished)
        if record is None:
            with on_disk("write in", results):  # known before hours of training
                run_path(results, spec.paper, spec.method, spec.seed).parent.mkdir(parents=True, exist_ok=True)
            with naming_changes(spec.address, spec.changes):
                record = _run(spec, prints, Path(data_root), work, device, distribution)
        if distribution.is_first:
            _publish(record, work, run_path(results, spec.paper, spec.method, spec.seed))
    return record


def score_weights(
    spec: RunSpec, weights: Path, *, data_root: Path, work_root: Path, results: Path, device: "torch.device"
) -> RunRecord:
    """Score a weights file on the tier's test data, without training, and write its record below `results`.

    The record's ``extra["weights"]`` names the file and its sha256. Raises UserError where the file is missing or of
    another layout, or the method's task scores no files.
    """
    import torch

    from replications.measurement import memory
    from replications.training.determinism import deterministic

    task = find_task(spec.task)
    if not hasattr(task, "score_weights"):
        raise UserError(f"{spec.address}: the task {spec.task} scores no weights files")
    if not Path(weights).is_file():
        raise UserError(f"no weights file at {weights}")
    torch.set_num_threads(spec.threads)
    prints = fingerprints(spec)
    digest = checksum.digest(Path(weights))
    if zipfile.is_zipfile(weights) and not checksum.is_whole(Path(weights)):
        raise UserError(f"{weights} is damaged (a part of it has another checksum): fetch it again")
    work = Path(work_root) / "weights" / _digest(prints.run, digest)[:16]
    with on_disk("write in", work):
        work.mkdir(parents=True, exist_ok=True)
    context = RunContext(spec, device, Path(data_root), work, weights=Path(weights))
    started = time.monotonic()
    memory.reset_peak_memory(device)
    with deterministic():
        evaluation = task.score_weights(context)
    record = _record(context, prints, evaluation, None, time.monotonic() - started, memory.peak_memory(device), None)
    record.extra["weights"] = {"file": Path(weights).name, "sha256": digest}
    write_record(record, run_path(results, spec.paper, spec.method, spec.seed))
    return record


def _run(
    spec: RunSpec,
    prints: Fingerprints,
    data_root: Path,
    work: Path,
    device: "torch.device",
    distribution: "Distribution",
) -> RunRecord:
    import torch

    from replications.measurement import energy, memory
    from replications.training.determinism import deterministic

    torch.set_num_threads(spec.threads)
    context = RunContext(spec, device, data_root, work, distribution)
    started = time.monotonic()
    evaluation, failure = Evaluation({}), None
    memory.keep_freed_memory(device)
    memory.reset_peak_memory(device)
    with energy.EnergyMeter(device) as meter, deterministic():
        try:
            evaluation = find_task(spec.task).execute(context)
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
    if distribution.is_first:
        if evaluation.arrays:
            _write_arrays(evaluation.arrays, work / "arrays.npz")
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
        spec=spec,
        data={"sets": dict(spec.data), **_described(spec), **evaluation.data},
        category=evaluation.category,
        metrics=evaluation.metrics,
        groups=evaluation.groups,
        curves=evaluation.curves,
        extra=evaluation.extra,
        history=context.history,
        cost=_cost(context, evaluation, seconds, peak, joules),
        provenance=provenance.provenance(context.device, spec.threads, deterministic=True),
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
        train_seconds=train_seconds,
        total_seconds=seconds,
        data_wait_seconds=sum(stage.data_wait_seconds for stage in stages),
        steps=sum(stage.steps for stage in stages),
        samples=samples,
        samples_per_second=samples / train_seconds if train_seconds > 0 else None,
        # The loop sets CUDA's mark back for each stage; on the CPU its own mark is the whole process's.
        peak_memory_bytes=max(peak, *(s.peak_memory_bytes or 0 for s in stages)) if cuda and stages else peak,
        parameters=context.parameters,
        model_parameters=evaluation.model_parameters,
        flops_per_sample=evaluation.flops_per_sample,
        energy_joules=joules,
        resumed=sum(stage.resumed for stage in stages),
    )


def _write_arrays(arrays: Mapping[str, Any], path: Path) -> None:
    import io

    import numpy as np

    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomic(path, buffer.getvalue())


def _publish(record: RunRecord, work: Path, target: Path) -> None:
    """Put the record where the tables look; the arrays first, so that a record never lacks its own."""
    arrays = work / "arrays.npz"
    if record.status == "finished" and arrays.exists():
        with on_disk("read", arrays):
            content = arrays.read_bytes()
        write_atomic(target.parent / "arrays.npz", content)
    write_record(record, target)
