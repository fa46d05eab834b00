"""Filling large array files row by row on all cores, so that a killed process resumes where it stopped.

The rows are cut into jobs; a job is done when its rows are in the files and a line with their CRC is in the journal.
Started again, jobs whose rows still have that CRC are not done again.
"""

import json
import multiprocessing
import os
import signal
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from replications.errors import UserError
from replications.progress import progress

JOURNAL = "rows.journal"
JOBS_WAITING = 3  # for each worker; bounds the memory that waiting payloads take

Rows = Mapping[str, np.ndarray]


class Job(NamedTuple):
    """Rows ``start .. start+count-1``, and what the worker function needs to make them."""

    start: int
    count: int
    payload: Any


def cut(items: Sequence[Any], rows_a_job: int) -> Iterator[Job]:
    """Cut one item a row into jobs whose payloads are slices of `items`."""
    for start in range(0, len(items), rows_a_job):
        part = items[start : start + rows_a_job]
        yield Job(start, len(part), part)


def fill_rows(
    target: Path,
    arrays: Mapping[str, tuple[tuple[int, ...], str]],
    jobs: Iterable[Job],
    function: Callable[[Any], Rows],
    workers: int,
    label: str,
) -> None:
    """Write ``<target>/<name>.npy`` of (shape, dtype) for each of `arrays`, all with the same number of rows.

    ``function(payload)`` returns the rows of a job by array name; it runs in `workers` processes, so it must be
    importable by name (a `functools.partial` of such a function is). `jobs` may be a generator that reads an
    archive: it is drawn from as workers get free. Raises what `function` and `jobs` raise, and UserError where a
    worker process dies; finished jobs are kept then.
    """
    total = next(iter(arrays.values()))[0][0]
    offsets = {name: _create(target / f"{name}.npy", *form) for name, form in arrays.items()}
    journal = target / JOURNAL
    done = _done(journal, target, arrays, offsets)
    work = _Work(function, target, arrays, offsets)
    finished = sum(count for _, count in done)
    with progress(label, total, "images", finished) as counter, journal.open("a") as lines:

        def note(job: tuple[int, int], crc: int) -> None:
            lines.write(json.dumps([*job, crc]) + "\n")
            lines.flush()
            counter.advance(job[1])

        todo = (job for job in jobs if (job.start, job.count) not in done)
        if workers == 1:
            for job in todo:
                note(job[:2], work(job))
        else:
            _in_pool(todo, work, workers, note)


def require_finite(array: np.ndarray, name: str, made_from: Sequence[Any] = (), first: int = 0) -> None:
    """Raise UserError that names the first row with NaN or infinity, and what it was made from (one item a row).

    `first` is the number of the first row. Arrays of integers pass.
    """
    if array.dtype.kind != "f":
        return
    good = np.isfinite(array).all(axis=tuple(range(1, array.ndim)))
    if not good.all():
        row = int(np.argmin(good))
        item = made_from[row] if len(made_from) == len(array) else ""
        item = item[0] if isinstance(item, tuple) else item
        source = f"{item}: " if item and isinstance(item, str | Path) else ""
        raise UserError(
            f"{source}{name}, row {first + row}: not finite (NaN, or beyond what {array.dtype} holds; "
            f"{int((~good).sum())} such rows): put it right, or leave it out"
        )


def _create(path: Path, shape: tuple[int, ...], dtype: str) -> int:
    """Make an array file of zeros unless it is there, and return where its data begins."""
    if not path.exists():
        temporary = path.with_suffix(".new")
        np.lib.format.open_memmap(temporary, "w+", np.dtype(dtype), shape).flush()
        os.replace(temporary, path)
    return np.load(path, mmap_mode="r").offset


def _done(journal: Path, target: Path, arrays: Mapping, offsets: Mapping[str, int]) -> set[tuple[int, int]]:
    """Return (start, count) of the journal's jobs whose rows are really in the files."""
    if not journal.exists():
        return set()
    rows = {name: np.load(target / f"{name}.npy", mmap_mode="r") for name in arrays}
    done = set()
    for line in journal.read_text().splitlines():
        try:
            start, count, crc = json.loads(line)
        except ValueError:  # the process was killed while it wrote this line
            continue
        if _crc(rows[name][start : start + count] for name in sorted(rows)) == crc:
            done.add((start, count))
    with journal.open("a") as lines:
        lines.write("\n")  # ends a line that was cut off
    return done


def _crc(parts: Iterable[np.ndarray]) -> int:
    crc = 0
    for part in parts:
        crc = zlib.crc32(np.ascontiguousarray(part), crc)
    return crc


class _Work:
    """Runs in a worker: makes a job's rows, writes them into the files, returns their CRC."""

    def __init__(self, function: Callable[[Any], Rows], target: Path, arrays: Mapping, offsets: Mapping[str, int]):
        self.function, self.target, self.offsets = function, target, dict(offsets)
        self.forms = {name: (tuple(shape), np.dtype(dtype)) for name, (shape, dtype) in arrays.items()}

    def __call__(self, job: Job) -> int:
        rows = self.function(job.payload)
        crc = 0
        for name, (shape, dtype) in sorted(self.forms.items()):
            part = np.ascontiguousarray(rows[name])
            if part.shape != (job.count, *shape[1:]) or part.dtype != dtype:
                raise ValueError(f"{name}: rows of shape {part.shape} and type {part.dtype} for a job of {job.count}")
            require_finite(part, f"{self.target.name.strip('.')}: {name}", job.payload, job.start)
            row_bytes = dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64))
            # written, not mapped: a full disk is then an error that can be caught, not a signal that kills
            with (self.target / f"{name}.npy").open("r+b", buffering=0) as stream:
                stream.seek(self.offsets[name] + job.start * row_bytes)
                left = memoryview(part).cast("B")
                while left:
                    left = left[stream.write(left) :]
            crc = zlib.crc32(part, crc)
        return crc


def _in_pool(jobs: Iterable[Job], work: _Work, workers: int, note: Callable[[tuple[int, int], int], None]) -> None:
    running: dict[Future, tuple[int, int]] = {}

    def collect() -> None:
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            note(running.pop(future), future.result())

    # spawn: a fork would copy the locks of the progress bar's thread in whatever state they are
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    try:
        for job in jobs:
            running[pool.submit(work, job)] = (job.start, job.count)
            while len(running) >= JOBS_WAITING * workers:
                collect()
        while running:
            collect()
    except BrokenProcessPool as error:
        raise UserError(
            f"a worker process died while it prepared {work.target.name.strip('.')} (out of memory?): start again, "
            "with fewer workers if it comes back; finished work is kept"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    """Let the parent alone handle Ctrl-C, and end with it even where it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def follow() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
