"""The input of the training loop (a stage) and its result."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from replications.records import HistoryPoint
from replications.spec import Recipe

Batch = dict[str, Tensor]


class Batches(Protocol):
    """Random access to training batches: the same step always gives the same samples with the same augmentation.

    That makes resuming exact (the position is the step number) and distribution simple: `parts` processes or
    micro-batches share one step's samples, and part `part` gets its slice of them. A source that reads ahead may
    also have ``begin(stop, own)`` (the loop will ask for the parts `own` of each step before `stop`) and ``end()``.
    """

    samples: int
    batch_size: int

    def batch(self, step: int, part: int = 0, parts: int = 1) -> Batch:
        """Return part `part` of `parts` of the batch of global step `step`, on the training device."""
        ...


@dataclass(frozen=True)
class Turn:
    """One optimiser's move within a step, where several take turns: adversaries, an inner and an outer problem.

    The module is called as ``module(batch, turn=name)``, and ``loss`` is minimised over the parameters of its submodule
    `part` alone. `recipe` is what differs from the stage's recipe in optimiser, rate, schedule or clipping. A turn is
    repeated `times` a step, each time on another batch; the first ones of all turns share the step's batch.
    """

    name: str
    part: str
    recipe: Mapping[str, Any] = field(default_factory=dict)
    times: int = 1


@dataclass
class Stage:
    """A part of a run that the loop trains.

    `module(batch)` returns scalar tensors by name, means over the batch; ``loss`` is minimised, the rest is logged.
    A module that has ``on_step(step, total_steps)`` gets the step number before each one (annealed margins).
    `validate` gets the module (averaged weights where the recipe asks for them) in eval mode.
    `nondeterministic` names an operation that has no deterministic CUDA version, where the stage needs one.
    `turns` are the moves of a step, in order; without any, one optimiser moves the whole module.
    """

    name: str
    module: nn.Module
    batches: Batches
    recipe: Recipe
    validate: Callable[[nn.Module], dict[str, float]] | None = None
    select_metric: str | None = None
    higher_is_better: bool = True
    parameter_groups: Callable[[nn.Module, Recipe], list[dict]] | None = None
    nondeterministic: str | None = None
    turns: tuple[Turn, ...] = ()


@dataclass
class StageResult:
    """Cost and history of a trained stage; the trained weights are in the stage's module.

    `seconds` are wall seconds of the training steps, without validation and checkpoints, over all starts;
    `data_wait_seconds` the part of them in which the loop waited for its batch.
    """

    steps: int
    samples: int
    seconds: float
    data_wait_seconds: float
    peak_memory_bytes: int | None
    resumed: int
    history: list[HistoryPoint] = field(default_factory=list)


@dataclass
class Workload:
    """One training step and one inference of a method on fixed data, for throughput, FLOPs and the conformance tests.

    `stage` is the stage that dominates the run, `batch` one of its batches; ``forward(module, inputs)`` runs inference
    on some samples and returns its output, `inputs` are as many as are inferred on at once.
    """

    stage: Stage
    batch: Batch
    forward: Callable[[nn.Module, Batch], Tensor]
    inputs: Batch
    device: torch.device

    @property
    def inference_batch_size(self) -> int:
        return len(next(iter(self.inputs.values())))

    def infer(self, module: nn.Module, n: int) -> Tensor:
        """Run inference on the first `n` samples; raises ValueError where there are fewer."""
        if n > self.inference_batch_size:
            raise ValueError(f"inference on at most {self.inference_batch_size} samples, not {n}")
        return self.forward(module, {name: value[:n] for name, value in self.inputs.items()})
