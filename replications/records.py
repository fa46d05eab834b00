"""The records: what a run or a throughput measurement leaves behind. Everything reported is derived from these.

A record is JSON, versioned by `schema_version`, written to a temporary name in the same folder, synced and
renamed: a reader sees a whole record or none.
"""

import contextlib
import json
import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from replications.errors import UserError, disk_error
from replications.spec import RunSpec

SCHEMA_VERSION = 1


class RecordModel(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Provenance(RecordModel):
    """Where, when and with what a record was made. No host name, user name or path."""

    created: str = Field(description="UTC, ISO 8601")
    suite_version: str
    commit: str | None
    dirty: bool | None
    python: str
    packages: dict[str, str]
    platform: str
    device: str = Field(description="'cpu' or the accelerator's name")
    device_kind: Literal["cpu", "cuda", "mps"]
    cpu: str
    cpu_count: int
    memory_gib: float
    threads: int
    deterministic: bool
    cpu_capability: str | None = Field(None, description="instruction set of torch's kernels on the CPU: AVX2, AVX512")


class Cost(RecordModel):
    """The cost of a run. Seconds are wall seconds, sizes bytes; None where the device does not report it."""

    train_seconds: float | None = None
    total_seconds: float | None = None
    data_wait_seconds: float | None = None
    sample_seconds: float | None = Field(None, description="of drawing samples from the trained model")
    steps: int | None = None
    samples: int | None = None
    samples_per_second: float | None = None
    peak_memory_bytes: int | None = Field(None, description="peak resident set on CPU, peak allocated on CUDA")
    parameters: int | None = Field(None, description="trainable parameters of the whole method, heads included")
    model_parameters: int | None = Field(None, description="parameters kept at test time")
    flops_per_sample: float | None = Field(None, description="forward pass at test time; one multiply-add is two")
    energy_joules: float | None = None
    processes: int = 1
    runs_per_gpu: int = Field(
        1, description="runs that might share the GPU; what is timed on a shared one is not judged"
    )
    resumed: int = Field(0, description="how many times the run was started again from a checkpoint")
    background_load: float | None = Field(
        None, description="share of the machine that others used meanwhile, 0 to 1; None: several processes"
    )

    @property
    def load_by_others(self) -> float | None:
        """`background_load`; on a shared GPU at least what the other runs may have had of it."""
        if self.runs_per_gpu == 1:
            return self.background_load
        return max(self.background_load or 0.0, 1 - 1 / self.runs_per_gpu)


class HistoryPoint(RecordModel):
    """One logged point of a stage. `values` are means since the last point, or validation metrics."""

    stage: str
    step: int
    epoch: float
    split: Literal["train", "validation"]
    values: dict[str, float]


class Curve(RecordModel):
    """A curve for plots: equal-length x and y."""

    x_label: str
    y_label: str
    x: list[float]
    y: list[float]


class RunRecord(RecordModel):
    """One method x tier x seed.

    `metrics` are the numbers of the final, single test evaluation, in the units of the task's metric table.
    `groups` holds per-fold or per-class values by metric name. `data` describes the data behind the numbers.
    """

    kind: Literal["run"] = "run"
    schema_version: int = SCHEMA_VERSION
    status: Literal["finished", "failed"]
    reason: str | None = Field(None, description="of a failure: diverged, out of memory, interrupted, error")
    message: str | None = None
    fingerprint: str
    code_fingerprint: str
    data_fingerprint: str
    modules: dict[str, str] = Field({}, description="short hash of each module that the run's code consists of")
    sets: dict[str, str] = Field({}, description="short fingerprint of each prepared set that the run used, by key")
    spec: RunSpec
    data: dict[str, Any] = {}
    category: str | None = Field(None, description="protocol category named in every table, where the task has one")
    metrics: dict[str, float] = {}
    groups: dict[str, list[float]] = {}
    curves: dict[str, Curve] = {}
    extra: dict[str, Any] = {}
    history: list[HistoryPoint] = []
    cost: Cost = Cost()
    provenance: Provenance | None = None


class ThroughputRecord(RecordModel):
    """A method's speed, measured alone on the device (training step and inference)."""

    kind: Literal["throughput"] = "throughput"
    schema_version: int = SCHEMA_VERSION
    status: Literal["finished", "failed"]
    reason: str | None = None
    message: str | None = None
    fingerprint: str
    paper: str
    method: str
    tier: str
    task: str
    synthetic: bool = Field(False, description="on random data: says nothing of quality, and is kept apart")
    compiled: bool | None = None
    batch_size: int
    requested_batch_size: int | None = Field(None, description="the recipe's; larger where memory was short")
    inference_batch_size: int | None = None
    precision: str
    train_step_seconds: list[float] = Field([], description="raw; short steps are stamped in groups, as their mean")
    inference_step_seconds: list[float] = []
    train_samples_per_second: float | None = Field(None, description="from the median step")
    inference_samples_per_second: float | None = None
    peak_memory_bytes: int | None = Field(None, description="of training: peak resident set, or allocated on CUDA")
    inference_peak_memory_bytes: int | None = None
    train_flops_per_sample: float | None = Field(None, description="forward and backward; one multiply-add is two")
    inference_flops_per_sample: float | None = None
    uncounted_operations: list[str] = Field([], description="heavy kernels that the FLOPs leave out")
    mfu: float | None = Field(None, description="model FLOPs utilisation of the training step; None: unknown peak")
    train_joules_per_sample: float | None = None
    background_load: float | None = Field(None, description="share of the machine that others used meanwhile, 0 to 1")
    provenance: Provenance | None = None


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that a reader sees the old file or the whole new one.

    Raises UserError, naming the path, where the disk is full or the folder cannot be written; the temporary file,
    whose name no other process has, is removed and an older file at `path` stays.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".new-", delete=False) as stream:
            temporary = stream.name
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        # Of a rename the error names the temporary file: a person knows the other.
        told = OSError(error.errno, error.strerror) if error.filename in (None, temporary) else error
        raise disk_error(told, "write", path, "finished work is kept") from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def without_nonfinite(value: Any) -> Any:
    """Return plain data with None in the place of each number that is not finite."""
    if isinstance(value, Mapping):
        return {key: without_nonfinite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_nonfinite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_record(record: RecordModel, path: Path) -> None:
    """Write a record atomically. NaN and infinity are refused: JSON has none, and neither has a table."""
    text = json.dumps(record.model_dump(mode="json"), indent=1, sort_keys=True, allow_nan=False)
    write_atomic(Path(path), text.encode() + b"\n")


def read_bytes(path: Path) -> bytes:
    """Return the bytes of a record's file; raises UserError where it is missing or cannot be read."""
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise UserError(f"no record at {path}: make it with 'snakemake --cores all' or 'replications run'") from None
    except OSError as error:
        raise disk_error(error, "read", path) from error


def parse(text: bytes, model: type[RecordModel], name: object):
    """Return the record that a JSON text holds; raises UserError, which names `name`, where it is damaged."""
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "file"
        raise UserError(
            f"{name} is not a {model.__name__}: {where}: {first['msg']} (delete it and run again)"
        ) from None


def read_run(path: Path) -> RunRecord:
    """Read a run record; raises UserError where it is missing or damaged."""
    return parse(read_bytes(path), RunRecord, path)


def read_throughput(path: Path) -> ThroughputRecord:
    """Read a throughput record; raises UserError where it is missing or damaged."""
    return parse(read_bytes(path), ThroughputRecord, path)


def tier_folder(results: Path, tier: str, tried: bool, portable: bool = False) -> Path:
    """Return the folder of a tier's records and tables; a changed set-up or portable kernels have separate folders."""
    results = Path(results) / "portable" if portable else Path(results)
    return results / "tried" / tier if tried else results / tier


def run_path(results: Path, paper: str, method: str, seed: int) -> Path:
    """Path of a run's record below ``results/<tier>``."""
    return Path(results) / "runs" / paper / method / f"seed{seed}" / "run.json"


def throughput_path(results: Path, paper: str, method: str) -> Path:
    """Path of a throughput record below ``results/<tier>``."""
    return Path(results) / "throughput" / paper / f"{method}.json"


def synthetic_path(results: Path, paper: str, method: str, variant: str = "") -> Path:
    """Path of a speed record on random data below ``results/<tier>``; a variant has batch size and compilation."""
    return Path(results) / "synthetic" / paper / f"{'-'.join(filter(None, (method, variant)))}.json"
