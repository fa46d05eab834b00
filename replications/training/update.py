"""One update of the weights: batch, forward, backward, clip, optimiser, average. The inside of the loop."""

import time
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from replications.training.distribution import Distribution
from replications.training.ema import AveragedModule
from replications.training.meter import Meter
from replications.training.optim import (
    create_optimizer,
    learning_rate_factor,
    set_learning_rate,
    step_optimizer,
)
from replications.training.stage import Batch, Stage


class Updater:
    """Takes the steps of a stage whose module is on `device`; the losses go to `meter`."""

    def __init__(self, stage: Stage, device: torch.device, distribution: Distribution, total_steps: int, meter: Meter):
        recipe = stage.recipe
        self.recipe, self.batches, self.module, self.meter = recipe, stage.batches, stage.module, meter
        self.total_steps = total_steps
        self.own_parts, self.parts = distribution.own_parts(recipe.accumulate)
        self.learning_rate = 0.0
        self.data_wait_seconds = 0.0
        self.optimizer = create_optimizer(stage.module, recipe, stage.parameter_groups)
        self.parameters = [parameter for parameter in stage.module.parameters() if parameter.requires_grad]
        self.averaged = AveragedModule(stage.module, recipe.ema) if recipe.ema else None
        self._on_step = getattr(stage.module, "on_step", None)
        self._model = distribution.wrap(stage.module, device)
        self._no_sync = getattr(self._model, "no_sync", nullcontext)
        if recipe.compile:
            torch.use_deterministic_algorithms(torch.are_deterministic_algorithms_enabled())  # tells the compiler
            self._model = torch.compile(self._model)
        self._autocast = torch.autocast(device.type, torch.bfloat16) if recipe.precision == "bf16" else nullcontext()

    @property
    def evaluated(self) -> nn.Module:
        """The module to validate: with averaged weights where the recipe asks for them."""
        return self.module if self.averaged is None else self.averaged.module

    def take(self, step: int) -> None:
        """Take step `step` (from 0). Gradients are those of the mean loss of the whole batch, however it is split."""
        factor = learning_rate_factor(self.recipe, step, self.total_steps)
        set_learning_rate(self.optimizer, factor)
        self.learning_rate = self.recipe.lr * factor
        if self._on_step is not None:
            self._on_step(step, self.total_steps)
        for parameter in self.parameters:
            parameter.grad = None
        count = len(self.own_parts)
        for index, part in enumerate(self.own_parts):
            batch = self._next_batch(step, part)
            with nullcontext() if index == count - 1 else self._no_sync():
                with self._autocast:
                    values = self._model(batch)
                self.meter.add(values, index, count)
                loss: Tensor = values["loss"]
                (loss / count if count > 1 else loss).backward()
        if self.recipe.clip_norm:
            self.meter.end_step(nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip_norm))
        else:
            self.meter.end_step()
        step_optimizer(self.optimizer)
        if self.averaged is not None:
            self.averaged.update()

    def _next_batch(self, step: int, part: int) -> Batch:
        asked = time.perf_counter()
        batch = self.batches.batch(step, part, self.parts)
        self.data_wait_seconds += time.perf_counter() - asked
        if not self.recipe.channels_last:
            return batch
        return {
            name: tensor.contiguous(memory_format=torch.channels_last)
            if tensor.ndim == 4 and tensor.is_floating_point()
            else tensor
            for name, tensor in batch.items()
        }

    def state_dict(self) -> dict[str, Any]:
        """Return what the next step depends on, but for the random generators."""
        return {
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "averaged": None if self.averaged is None else self.averaged.module.state_dict(),
            "meter": self.meter.state_dict(),
            "data_wait_seconds": self.data_wait_seconds,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.averaged is not None:
            self.averaged.module.load_state_dict(state["averaged"])
        self.meter.load_state_dict(state["meter"])
        self.data_wait_seconds = state["data_wait_seconds"]
