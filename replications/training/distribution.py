"""One run on several GPUs: torchrun and DistributedDataParallel.

``torchrun --nproc-per-node=8 -m replications run ...`` starts the processes; each calls `join` and trains the same
stage. A step's batch is split over processes and micro-batches (`Batches.batch`), so the samples, their augmentation
and, up to the order of summation, the gradients are those of one process. Two things depend on the split: dropout
draws its own numbers in each process, and BatchNorm needs the whole batch's statistics. On CUDA BatchNorm layers are
replaced by SyncBatchNorm, which computes them across processes (but not across micro-batches: `accumulate` with
BatchNorm normalises each micro-batch alone, as everywhere). SyncBatchNorm has no CPU version: with gloo, a model with
BatchNorm trains on each process's own statistics.

All processes read the checkpoints, which the first one writes: the work folder must be shared between machines.
"""

import os
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

from replications.errors import UserError


@dataclass(frozen=True)
class Distribution:
    """This process's place among those that train one run together. The default is a run in one process."""

    rank: int = 0
    world_size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def own_parts(self, accumulate: int) -> tuple[range, int]:
        """Return this process's micro-batches and how many parts a batch has in all."""
        return range(self.rank * accumulate, (self.rank + 1) * accumulate), self.world_size * accumulate

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean of a tensor over the processes."""
        if self.world_size > 1:
            values = values.clone()
            torch.distributed.all_reduce(values)
            values /= self.world_size
        return values

    def any(self, *flags: bool) -> list[bool]:
        """Return, for each flag, whether it is set in any process: all processes then do the same."""
        if self.world_size == 1:
            return list(flags)
        device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
        counts = torch.tensor(flags, dtype=torch.int32, device=device)
        torch.distributed.all_reduce(counts)
        return [count > 0 for count in counts.tolist()]

    def gather(self, value: Any) -> list[Any]:
        """Return the value of every process, by rank."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        torch.distributed.all_gather_object(values, value)
        return values

    def from_first(self, value: Any) -> Any:
        """Return the first process's value."""
        if self.world_size == 1:
            return value
        values = [value]
        torch.distributed.broadcast_object_list(values, src=0)
        return values[0]

    def wrap(self, module: nn.Module, device: torch.device, some_unused: bool = False) -> nn.Module:
        """Return the module to call in training: it averages gradients over the processes in ``backward``.

        `some_unused`: a step may leave some parameters out, as turns do.
        """
        if self.world_size == 1:
            return module
        from torch.nn.parallel import DistributedDataParallel

        if device.type == "cuda":
            nn.SyncBatchNorm.convert_sync_batchnorm(module)  # replaces layers below `module`, in place
        ids = [device.index] if device.type == "cuda" else None
        return DistributedDataParallel(
            module, device_ids=ids, gradient_as_bucket_view=True, find_unused_parameters=some_unused
        )

    def share_buffers(self, module: nn.Module) -> None:
        """Give every process the first one's buffers (running statistics), as DDP does before each step."""
        if self.world_size > 1:
            for buffer in module.buffers():
                torch.distributed.broadcast(buffer, src=0)


def join(device: str) -> tuple[Distribution, torch.device]:
    """Join the processes that torchrun started, or none; return the place and this process's device.

    `device` is ``cpu``, ``cuda`` or ``cuda:<index>``; under torchrun each process of a machine takes the CUDA device
    of its local rank. Raises UserError where there are more processes than devices.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Distribution(), torch.device(device)
    chosen = torch.device(device)
    if chosen.type == "cuda":
        local_rank, devices = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local_rank >= devices:
            raise UserError(f"{os.environ['LOCAL_WORLD_SIZE']} processes on {devices} CUDA devices: start one for each")
        chosen = torch.device("cuda", local_rank)
        torch.cuda.set_device(chosen)
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    return Distribution(torch.distributed.get_rank(), torch.distributed.get_world_size()), chosen


def leave() -> None:
    """Leave the group that `join` made, once the run is written."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
