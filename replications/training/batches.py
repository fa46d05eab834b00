"""Training batches from arrays on the training device."""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from replications.errors import UserError
from replications.training.augment import Augment
from replications.training.determinism import generator_for
from replications.training.stage import Batch

Array = Tensor | np.ndarray


class SampleOrder:
    """Which samples the batch of a global step holds.

    Epoch ``e`` (``samples // batch_size`` steps) is a permutation drawn from (seed, e) alone, so any step can be
    asked for, and all methods of a seed see the same order. The last, incomplete batch of an epoch is dropped: its
    samples come up in other epochs.
    """

    def __init__(self, samples: int, batch_size: int, seed: int, device: torch.device | str = "cpu"):
        if batch_size > samples:
            raise UserError(f"batch_size {batch_size} is larger than the training set of {samples} samples")
        self.samples, self.batch_size, self.seed, self.device = samples, batch_size, seed, device
        self.steps_per_epoch = samples // batch_size
        self._epoch: int | None = None
        self._permutation: Tensor | None = None

    def permutation(self, epoch: int) -> Tensor:
        """Return the order of all samples in an epoch, int64 ``[samples]``."""
        if epoch != self._epoch:
            drawn = torch.randperm(self.samples, generator=generator_for(self.seed, "order", epoch))
            self._epoch, self._permutation = epoch, drawn.to(self.device)
        return self._permutation

    def rows(self, step: int, part: int, parts: int) -> Tensor:
        """Return the samples of part `part` of step `step`, int64 ``[batch_size / parts]``."""
        epoch, position = divmod(step, self.steps_per_epoch)
        own = part_of(self.batch_size, part, parts)
        start = position * self.batch_size
        return self.permutation(epoch)[start + own.start : start + own.stop]


def part_of(batch_size: int, part: int, parts: int) -> slice:
    """Return the slice of a batch that is part `part` of `parts` equal ones."""
    if batch_size % parts:
        raise UserError(f"batch_size {batch_size} does not divide into {parts} equal parts (processes x accumulate)")
    size = batch_size // parts
    return slice(part * size, (part + 1) * size)


def split_batch(batch: Batch, size: int) -> Iterator[Batch]:
    """Yield a batch in parts of at most `size` samples, in order."""
    for start in range(0, check_arrays(batch), size):
        yield {name: value[start : start + size] for name, value in batch.items()}


class StepDraws:
    """The augmentation's random numbers of a step: drawn for the whole batch from (seed, step), then sliced.

    For any device and any split of a batch over processes and micro-batches, a sample gets the same
    numbers.
    """

    def __init__(self, augment: Augment | None, batch_size: int, seed: int):
        self.augment, self.batch_size, self.seed = augment, batch_size, seed
        self._step: int | None = None
        self._draws: dict[str, Tensor] = {}

    def apply(self, batch: Batch, step: int, part: int, parts: int) -> Batch:
        """Return part `part` of the batch, augmented on its device."""
        if self.augment is None:
            return batch
        if step != self._step:
            generator = generator_for(self.seed, "augment", step)
            self._step, self._draws = step, self.augment.draw(self.batch_size, generator)
        own = part_of(self.batch_size, part, parts)
        device = next(iter(batch.values())).device
        return self.augment.apply(batch, {name: draw[own].to(device) for name, draw in self._draws.items()})


def check_arrays(arrays: Mapping[str, Array]) -> int:
    """Return the common length of the arrays; raises UserError where they differ or there is none."""
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) != 1:
        raise UserError(f"training arrays must have one common length, not {lengths}")
    return next(iter(lengths.values()))


class DeviceBatches:
    """Batches from arrays that are on the device as they are stored (uint8 images stay uint8 until their batch).

    `arrays` have one row a sample. `rows` picks the samples to train on (default: all); only those are moved to the
    device. Satisfies `Batches`: see there for `batch`, `SampleOrder` for the order, `Augment` for `augment`.
    """

    def __init__(
        self,
        arrays: Mapping[str, Array],
        batch_size: int,
        seed: int,
        augment: Augment | None = None,
        *,
        rows: Array | None = None,
        device: torch.device | str = "cpu",
    ):
        check_arrays(arrays)
        self.arrays = {name: _to_device(array, rows, device) for name, array in arrays.items()}
        self.samples, self.batch_size = check_arrays(self.arrays), batch_size
        self._order = SampleOrder(self.samples, batch_size, seed, device)
        self._draws = StepDraws(augment, batch_size, seed)

    def batch(self, step: int, part: int = 0, parts: int = 1) -> Batch:
        rows = self._order.rows(step, part, parts)
        batch = {name: array.index_select(0, rows) for name, array in self.arrays.items()}
        return self._draws.apply(batch, step, part, parts)


def _to_device(array: Array, rows: Array | None, device: torch.device | str) -> Tensor:
    if isinstance(array, np.ndarray):
        picked = array[np.asarray(rows)] if rows is not None else array
        # A copy: a memory-mapped array is read-only, which torch cannot represent, and is read once here.
        return torch.from_numpy(np.array(picked)).to(device)
    if rows is not None:
        array = array[torch.as_tensor(rows, device=array.device)]
    return array.to(device)
