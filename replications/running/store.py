"""The work store: a run's folder, its finished record, and copying that into the results folder.

A run works in ``<work>/runs/<fingerprint>``: checkpoints, finished stages and, at the end, its record, which is then
copied. A run with the same fingerprint is never repeated.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from replications.datasets import checksum
from replications.errors import on_disk
from replications.records import RunRecord, read_run, run_path, write_atomic, write_record
from replications.running.fingerprints import Fingerprints, fingerprints
from replications.spec import RunSpec

if TYPE_CHECKING:
    pass


PASSING_FAILURES = ("interrupted", "out of memory", "error")


def finished_record(spec: RunSpec, prints: Fingerprints, work_root: Path) -> RunRecord | None:
    """Return the record of an equal finished run in the work store, if any."""
    path = work_folder(work_root, prints) / "run.json"
    if not path.exists():
        return None
    if not checksum.is_whole(path.with_name("arrays.npz")):
        print(f"{path.with_name('arrays.npz')} is damaged: the run is scored again", file=sys.stderr, flush=True)
        return None
    record = read_run(path)
    record.spec = spec  # equal but for how it was requested
    return record if record.fingerprint == prints.run and record.reason not in PASSING_FAILURES else None


def restore(spec: RunSpec, *, work_root: Path, results: Path) -> RunRecord | None:
    """Copy an equal finished run's record to the results folder, without importing torch; None if there is none."""
    prints = fingerprints(spec)
    record = finished_record(spec, prints, work_root)
    if record is not None:
        work = work_folder(work_root, prints)
        publish(record, work, run_path(results, spec.paper, spec.method, spec.seed))
    return record


def work_folder(work_root: Path, prints: Fingerprints) -> Path:
    """Where a run keeps its checkpoints."""
    return Path(work_root) / "runs" / prints.run[:16]


def write_arrays(arrays: Mapping[str, Any], path: Path) -> None:
    import io

    import numpy as np

    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomic(path, buffer.getvalue())


def publish(record: RunRecord, work: Path, target: Path) -> None:
    """Copy the record to the results folder; arrays first, so that a record never lacks them."""
    arrays = work / "arrays.npz"
    if record.status == "finished" and arrays.exists():
        with on_disk("read", arrays):
            content = arrays.read_bytes()
        write_atomic(target.parent / "arrays.npz", content)
    write_record(record, target)
