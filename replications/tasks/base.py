"""What a task offers to the runner, and what the runner offers to a task.

``replications.tasks.<name>`` has a module-level ``TASK`` that satisfies `Task`, and a ``tiers.yaml`` beside it
(``tasks/<name>/tiers.yaml``) with one `TaskTier` for each tier. Importing ``replications.tasks.<name>`` must not
import torch: the planner and the report read the metric table without it.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from replications.errors import UserError, nearest
from replications.records import Curve
from replications.spec import RunSpec

if TYPE_CHECKING:
    import torch
    from torch import nn

    from replications.training.stage import Stage, StageResult, Workload


@dataclass(frozen=True)
class Metric:
    """A row of a task's metric table. `unit` is what a reader sees ('%', 'degrees', 'AUC')."""

    title: str
    unit: str
    higher_is_better: bool
    description: str
    decimals: int = 2


@dataclass
class Evaluation:
    """The single, final test evaluation of a run: goes into the record as it is."""

    metrics: dict[str, float]
    groups: dict[str, list[float]] = field(default_factory=dict)
    curves: dict[str, Curve] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    category: str | None = None
    data: dict[str, Any] = field(default_factory=dict)
    model_parameters: int | None = None
    flops_per_sample: float | None = None
    arrays: dict[str, Any] = field(default_factory=dict)  # written beside the record as arrays.npz


class Context(Protocol):
    """What the runner hands to a task. `build(**info)` makes the method's untrained module, seeded."""

    spec: RunSpec
    device: "torch.device"
    data_root: Path
    work: Path

    def build(self, name: str, **info: Any) -> "nn.Module":
        """Build the method's module for stage `name`: the paper's callable gets `info` and ``spec.options``."""
        ...

    def train(self, stage: "Stage") -> "StageResult":
        """Train a stage, or continue it, or load it where it is finished; counts its cost into the record."""
        ...


class Task(Protocol):
    """One module a task: what a method must offer is in its docstring, how it is judged in `execute`."""

    name: str
    title: str
    primary_metric: str
    metrics: Mapping[str, Metric]

    def execute(self, context: Context) -> Evaluation:
        """Train the stages of a run and score the test data once."""
        ...

    def workload(self, context: Context) -> "Workload":
        """Return one training step and one inference on the run's own data."""
        ...

    def rescore(self, arrays: Mapping[str, Any]) -> dict[str, float]:
        """Return metrics derived anew from a run's ``arrays.npz``, for `verify`. A task may leave this method out."""
        ...

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Raise UserError for an unknown or wrong task option. Cheap; no torch."""
        ...


def find_task(name: str) -> Task:
    """Import a task by name; raises UserError with the nearest name where there is none."""
    known = [p.parent.name for p in Path(__file__).parent.glob("*/tiers.yaml")]
    if name not in known:
        raise UserError(f"unknown task '{name}'{nearest(name, known)}")
    return importlib.import_module(f"replications.tasks.{name}").TASK


BuildFunction = Callable[..., "nn.Module"]
