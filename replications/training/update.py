"""One update of the weights: batch, forward, backward, clip, optimiser, average. The inside of the loop."""

import time
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from replications.training import capture
from replications.training.distribution import Distribution
from replications.training.ema import AveragedModule
from replications.training.meter import Meter
from replications.training.moves import Move, Trainable, first_loss, moves_of
from replications.training.stage import Batch, Stage


class Updater:
    """Takes the steps of a stage whose module is on `device`; the losses go to `meter`."""

    def __init__(self, stage: Stage, device: torch.device, distribution: Distribution, total_steps: int, meter: Meter):
        recipe = stage.recipe
        if recipe.capture:
            capture.check_capture(stage, device, distribution)
        self.recipe, self.batches, self.module, self.meter = recipe, stage.batches, stage.module, meter
        self.total_steps = total_steps
        self.own_parts, self.parts = distribution.own_parts(recipe.accumulate)
        self.learning_rate = 0.0
        self.data_wait_seconds = 0.0
        self.moves = moves_of(stage)
        self.batches_per_step = max(move.times for move in self.moves)
        self.averaged = AveragedModule(stage.module, recipe.ema) if recipe.ema else None
        self._trainable = Trainable(self.moves)
        self._parameters = [parameter for parameter in stage.module.parameters() if parameter.requires_grad]
        self._on_step = getattr(stage.module, "on_step", None)
        self._model = distribution.wrap(stage.module, device, some_unused=bool(stage.turns))
        self._no_sync = getattr(self._model, "no_sync", nullcontext)
        if recipe.compile:
            torch.use_deterministic_algorithms(torch.are_deterministic_algorithms_enabled())  # tells the compiler
            self._model = torch.compile(self._model)
        self._captured = None
        if recipe.capture:
            graph = capture.CudaGraph(device)
            self._captured = capture.CapturedStep(self._forward_and_backward, self._parameters, graph)
        self._autocast = torch.autocast(device.type, torch.bfloat16) if recipe.precision == "bf16" else nullcontext()

    @property
    def evaluated(self) -> nn.Module:
        """The module to validate: with averaged weights where the recipe asks for them."""
        return self.module if self.averaged is None else self.averaged.module

    def take(self, step: int) -> None:
        """Take step `step` (from 0). Gradients are those of the mean loss of the whole batch, however it is split."""
        if self._on_step is not None:
            self._on_step(step, self.total_steps)
        batches: dict[tuple[int, int], Batch] = {}
        values: list[dict[str, Tensor]] = [{} for _ in self.own_parts]
        norms = []
        for number, move in enumerate(self.moves):
            rate = move.set_rate(step, self.total_steps)
            if number == 0:
                self.learning_rate = rate
            for time_ in range(move.times):
                self._backward(move, step * self.batches_per_step + time_, batches, values)
                norm = move.step()
            norms += [norm] if norm is not None else []
        self._trainable.all()
        for index, own in enumerate(values):
            if own:
                self.meter.add(first_loss(own), index, len(values))
        self.meter.end_step(*norms)
        if self.averaged is not None:
            self.averaged.update()

    def losses(self, batch: Batch, move: Move) -> dict[str, Tensor]:
        """Return what the module returns for a batch in one move, in the recipe's precision.

        Only the move's own parameters ask for gradients, until the next call or step.
        """
        self._trainable.only(move)
        with self._autocast:
            return self._model(batch, **move.call)

    def release(self) -> None:
        """Drop the gradients, and let every trainable parameter ask for them again."""
        self._trainable.all()
        for parameter in self._parameters:
            parameter.grad = None

    def _backward(
        self, move: Move, number: int, batches: dict[tuple[int, int], Batch], values: list[dict[str, Tensor]]
    ) -> None:
        """Leave the gradients of a move on batch `number`; `values` gets, by part, what a turn returned."""
        if self._captured is not None:
            self.meter.add(self._captured(self._next_batch(number, self.own_parts[0])), 0, 1)
            return
        for parameter in self._parameters:
            parameter.grad = None
        count = len(self.own_parts)
        for index, part in enumerate(self.own_parts):
            key = number, part
            batch = batches.pop(key) if key in batches else self._next_batch(number, part)
            if len(self.moves) > 1:
                batches[key] = batch
            with nullcontext() if index == count - 1 else self._no_sync():
                found = self.losses(batch, move)
                if move.name:
                    values[index] |= {f"{move.name}_{name}": value.detach() for name, value in found.items()}
                else:
                    self.meter.add(found, index, count)
                loss: Tensor = found["loss"]
                (loss / count if count > 1 else loss).backward()

    def _forward_and_backward(self, batch: Batch) -> dict[str, Tensor]:
        """Add the gradients of a batch in the only move; returns what the module returned."""
        found = self.losses(batch, self.moves[0])
        found["loss"].backward()
        return {name: value.detach() for name, value in found.items()}

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
            "optimizers": [move.optimizer.state_dict() for move in self.moves],
            "averaged": None if self.averaged is None else self.averaged.module.state_dict(),
            "meter": self.meter.state_dict(),
            "data_wait_seconds": self.data_wait_seconds,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.module.load_state_dict(state["module"])
        for move, own in zip(self.moves, state["optimizers"], strict=True):
            move.optimizer.load_state_dict(own)
        if self.averaged is not None:
            self.averaged.module.load_state_dict(state["averaged"])
        self.meter.load_state_dict(state["meter"])
        self.data_wait_seconds = state["data_wait_seconds"]
