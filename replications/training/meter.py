"""The losses of the steps since the last logged point, kept on the device."""

import math
from typing import Any

import torch
from torch import Tensor

from replications.errors import RunFailure
from replications.training.distribution import Distribution


class Meter:
    """Collects what a module returns at each step, and finds the first step at which a value is not finite.

    A step writes one row of a small buffer on the device, without waiting for it. `flush` brings the rows over, one
    wait for up to `rows` steps. Means are summed on the host in float64, in the order of the steps, so they do not
    depend on when it was flushed.
    """

    def __init__(self, rows: int, device: torch.device, distribution: Distribution, extra: tuple[str, ...] = ()):
        self.rows, self.device, self.distribution, self.extra = rows, device, distribution, extra
        self.names: tuple[str, ...] | None = None
        self._buffer: Tensor | None = None
        self._filled = 0
        self._sums: dict[str, float] = {}
        self._steps = 0

    def add(self, values: dict[str, Tensor], part: int, parts: int) -> None:
        """Add the values of micro-batch `part` of `parts`; a step's value is their mean."""
        if self.names != tuple(values):
            self._start(values)
        stacked = torch.stack([value.detach().float() for value in values.values()])
        row = self._buffer[self._filled, : len(stacked)]
        if parts == 1:
            row.copy_(stacked)
        elif part == 0:
            torch.div(stacked, parts, out=row)
        else:
            row.add_(stacked, alpha=1 / parts)

    def end_step(self, *extra: Tensor) -> None:
        """Close the step's row; `extra` are its values that belong to no micro-batch."""
        for column, value in enumerate(extra, start=len(self.names)):
            self._buffer[self._filled, column] = value
        self._filled += 1

    def flush(self, step: int, where: str) -> None:
        """Bring over the rows of the steps up to `step` (of the stage named by `where`).

        Raises RunFailure ``diverged``, naming step and value, at the first one that is not finite.
        """
        if not self._filled:
            return
        rows = self.distribution.mean(self._buffer[: self._filled]).tolist()
        first = step - self._filled + 1
        self._filled = 0
        names = (*self.names, *self.extra)
        for index, row in enumerate(rows):
            for name, value in zip(names, row, strict=True):
                if not math.isfinite(value):
                    raise RunFailure(
                        "diverged",
                        f"{where}: {name} is {value} at step {first + index}; a lower lr, more warmup or a clip_norm "
                        "may keep it finite",
                    )
                self._sums[name] = self._sums.get(name, 0.0) + value
        self._steps += len(rows)

    def take_means(self) -> dict[str, float]:
        """Return the mean of each value over the flushed steps, and start again."""
        means = {name: total / self._steps for name, total in self._sums.items()}
        self._sums, self._steps = {}, 0
        return means

    def state_dict(self) -> dict[str, Any]:
        """Return what was flushed and not yet taken; call `flush` before."""
        return {"sums": dict(self._sums), "steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._sums, self._steps = dict(state["sums"]), state["steps"]

    def _start(self, values: dict[str, Tensor]) -> None:
        if self.names is not None:
            raise ValueError(f"a module must return the same values at every step: {self.names}, then {tuple(values)}")
        if "loss" not in values:
            raise ValueError(f"a module must return its training loss as 'loss', not only {tuple(values)}")
        for name, value in values.items():
            if value.ndim:
                raise ValueError(
                    f"'{name}' must be a scalar, the mean over the batch, not of shape {tuple(value.shape)}"
                )
        self.names = tuple(values)
        self._buffer = torch.zeros(self.rows, len(values) + len(self.extra), device=self.device)
