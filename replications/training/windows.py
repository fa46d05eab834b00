"""Training batches of windows at random places of a long text."""

import numpy as np
import torch
from torch import Tensor

from replications.errors import UserError
from replications.training.batches import part_of
from replications.training.determinism import generator_for
from replications.training.stage import Batch

RESIDENT_BYTES = 1 << 31  # a longer training text stays on the disk, and its windows are read from there


class WindowBatches:
    """Random windows of a text, drawn from (seed, step) alone: the same for every method and however often resumed.

    Gives ``tokens`` uint8 ``[batch, length]`` and ``target``, the byte after each (`Batches`). `samples`, the measure
    of an epoch, is how many windows the text holds side by side. A text of up to `RESIDENT_BYTES` stays on the
    device; of a longer one, only the windows of a step are read from its memory-mapped file.
    """

    def __init__(self, text: np.ndarray, length: int, batch_size: int, seed: int, device: torch.device | str):
        if len(text) <= length:
            raise UserError(f"the training text has {len(text)} bytes, too few for a window of {length}")
        resident = len(text) <= RESIDENT_BYTES
        self.text = torch.from_numpy(np.array(text)).to(device) if resident else text
        self.length, self.batch_size, self.seed, self.device = length, batch_size, seed, device
        self.samples = max(batch_size, len(text) // length)
        self._offsets = torch.arange(length + 1, device=device)

    def batch(self, step: int, part: int = 0, parts: int = 1) -> Batch:
        windows = self.windows(step, part, parts)
        return {"tokens": windows[:, :-1], "target": windows[:, 1:].long()}

    def windows(self, step: int, part: int = 0, parts: int = 1) -> Tensor:
        """Return the windows of a step with one byte more at their end: uint8 ``[batch, length + 1]``."""
        generator = generator_for(self.seed, "windows", step)
        start = torch.randint(len(self.text) - self.length, (self.batch_size,), generator=generator)
        start = start[part_of(self.batch_size, part, parts)]
        if isinstance(self.text, Tensor):
            return self.text[start.to(self.device)[:, None] + self._offsets]
        windows = [self.text[first : first + self.length + 1] for first in start.tolist()]
        return torch.from_numpy(np.stack(windows)).to(self.device)
