"""Training batches that threads read ahead: from memory-mapped arrays that do not fit on the device, or from files."""

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from replications.errors import UserError
from replications.training.augment import Augment
from replications.training.batches import DeviceBatches, SampleOrder, StepDraws, check_arrays
from replications.training.stage import Batch, Batches

Request = tuple[int, int, int]  # step, part, parts
RESIDENT_FRACTION = 0.5  # of the memory that is free where training data would be kept


class ReadAhead:
    """Batches of which `workers` threads keep `ahead` parts ready, once `begin` has said what will be asked for.

    A subclass says in `_job` what a part consists of, reads that in `_read`, which alone runs in a thread, and makes
    the batch of it in `_made`. Any step can be asked for; reading ahead restarts where the request is not the expected
    next one.
    """

    def __init__(self, workers: int, ahead: int):
        if workers < 1 or ahead < 1:
            raise UserError(f"workers and ahead must be at least 1, not {workers} and {ahead}")
        self._workers, self._ahead = workers, ahead
        self._own, self._stop = range(1), None
        self._pool: ThreadPoolExecutor | None = None
        self._upcoming: Iterator[Request] = iter(())
        self._pending: deque[tuple[Request, Future[Any]]] = deque()

    def begin(self, stop: int, own: range) -> None:
        """Say what will be asked for: the parts `own` of each step before `stop`, in order."""
        self._own, self._stop = own, stop

    def end(self) -> None:
        """Stop the threads; the next `batch` starts them again."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None
        self._pending.clear()

    def batch(self, step: int, part: int = 0, parts: int = 1) -> Batch:
        request = (step, part, parts)
        if self._stop is None:
            return self._made(self._read(self._job(request)), request)
        if not self._pending or self._pending[0][0] != request:
            self._restart(request)
        _, future = self._pending.popleft()
        self._submit_next()
        return self._made(future.result(), request)

    def _job(self, request: Request) -> Any:
        raise NotImplementedError

    def _read(self, job: Any) -> Any:
        raise NotImplementedError

    def _made(self, read: Any, request: Request) -> Batch:
        raise NotImplementedError

    def _enter_thread(self) -> None:
        """Runs at the start of each thread."""

    def _restart(self, request: Request) -> None:
        self.end()
        self._pool = ThreadPoolExecutor(self._workers, initializer=self._enter_thread)
        self._upcoming = self._requests(request)
        for _ in range(self._ahead):
            self._submit_next()

    def _requests(self, first: Request) -> Iterator[Request]:
        step, part, parts = first
        own = self._own if part in self._own else range(part, part + 1)
        yield from ((step, other, parts) for other in own if other >= part)
        while step + 1 < self._stop:
            step += 1
            yield from ((step, other, parts) for other in own)

    def _submit_next(self) -> None:
        request = next(self._upcoming, None)
        if request is not None:
            self._pending.append((request, self._pool.submit(self._read, self._job(request))))


class WorkerBatches(ReadAhead):
    """The batches of `DeviceBatches`, read ahead from memory-mapped arrays by worker threads.

    Same order, same augmentation, so the two give equal batches. `rows` picks the samples to train on, as indices
    into the arrays. numpy lets go of the interpreter lock while it copies and while a page comes from the disk; on CUDA
    rows are read into pinned memory, copied while the device computes.
    """

    def __init__(
        self,
        arrays: Mapping[str, np.ndarray],
        batch_size: int,
        seed: int,
        augment: Augment | None = None,
        *,
        rows: np.ndarray | None = None,
        device: torch.device | str = "cpu",
        workers: int = 4,
        ahead: int = 8,
    ):
        super().__init__(workers, ahead)
        length = check_arrays(arrays)
        self._rows = np.arange(length) if rows is None else np.asarray(rows)
        if len(self._rows) and (self._rows.min() < 0 or self._rows.max() >= length):
            raise UserError(f"training rows reach from {self._rows.min()} to {self._rows.max()}, of {length} samples")
        self.arrays, self.device = dict(arrays), torch.device(device)
        self.samples, self.batch_size = len(self._rows), batch_size
        self._order = SampleOrder(self.samples, batch_size, seed)
        self._draws = StepDraws(augment, batch_size, seed)

    def _made(self, read: dict[str, Tensor], request: Request) -> Batch:
        batch = {name: tensor.to(self.device, non_blocking=True) for name, tensor in read.items()}
        return self._draws.apply(batch, *request)

    def _enter_thread(self) -> None:
        if self._pinned:  # pinned memory belongs to a device, and a new thread is on the first one
            torch.cuda.set_device(self.device)

    def _job(self, request: Request) -> np.ndarray:
        return self._rows[self._order.rows(*request).numpy()]

    def _read(self, rows: np.ndarray) -> dict[str, Tensor]:
        read = {}
        for name, array in self.arrays.items():
            like = torch.from_numpy(np.empty(0, array.dtype))
            target = torch.empty((len(rows), *array.shape[1:]), dtype=like.dtype, pin_memory=self._pinned)
            # mode="clip" lets numpy write straight into the target; the rows were checked in the constructor.
            np.take(array, rows, axis=0, out=target.numpy(), mode="clip")
            read[name] = target
        return read

    @property
    def _pinned(self) -> bool:
        return self.device.type == "cuda"


def resident_or_read(
    arrays: Mapping[str, np.ndarray],
    batch_size: int,
    seed: int,
    augment: Augment,
    *,
    rows: np.ndarray,
    device: torch.device,
) -> Batches:
    """Return the batches of `rows`: on the device where they fit in half of what is free there, else read ahead."""
    needed = sum(len(rows) * array[:1].nbytes for array in arrays.values())
    kind = DeviceBatches if needed < RESIDENT_FRACTION * free_bytes(device) else WorkerBatches
    return kind(arrays, batch_size, seed, augment, rows=rows, device=device)


def free_bytes(device: torch.device) -> int:
    """Return the memory that is free where training data would be kept."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    import psutil

    return psutil.virtual_memory().available
