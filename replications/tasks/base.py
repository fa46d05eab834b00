"""What a task offers to the runner, and what the runner offers to a task.

``replications.tasks.<name>`` has a module-level ``TASK`` that satisfies `Task`, and a ``tiers.yaml`` beside it
(``tasks/<name>/tiers.yaml``) with one `TaskTier` for each tier. Importing ``replications.tasks.<name>`` must not
import torch: the planner and the report read the metric table without it.

A task may have pictures of its own: ``replications.tasks.<name>.pictures`` with a function ``draw(album)`` that yields
`Picture`s from what an `Album` shows it. That module is no part of a run: changing it trains nothing again.
"""

import functools
import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from replications.errors import RunFailure, UserError, nearest
from replications.records import Curve, RunRecord, without_nonfinite
from replications.spec import RunSpec

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure
    from torch import nn

    from replications.training.stage import Stage, StageResult, Workload


@dataclass(frozen=True)
class Metric:
    """A row of a task's metric table. `unit` is what a reader sees ('%', 'degrees', 'AUC').

    `scale` is ``log`` for times, memory, speed-ups and other positive sizes whose noise is a factor: claims compare
    them as ratios. `timed` says that a clock gave the value, so another machine, or others on the same one, move it.
    """

    title: str
    unit: str
    higher_is_better: bool
    description: str
    decimals: int = 2
    scale: Literal["linear", "log"] = "linear"
    timed: bool = False


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


def finite(evaluation: Evaluation) -> Evaluation:
    """Return what a record can hold; raises RunFailure ``diverged`` where a metric is not finite, naming it.

    So for the values of groups, which verdicts may rest on. A point of a curve that is not finite is left out; in
    `extra` and `data` such a value becomes None.
    """
    for name, value in evaluation.metrics.items():
        if not math.isfinite(value):
            raise RunFailure("diverged", f"the metric {name} is {value}")
    for name, values in evaluation.groups.items():
        if not all(map(math.isfinite, values)):
            raise RunFailure("diverged", f"the metric {name} is not finite in one of its groups")
    for curve in evaluation.curves.values():
        kept = [(x, y) for x, y in zip(curve.x, curve.y, strict=True) if math.isfinite(x) and math.isfinite(y)]
        curve.x, curve.y = [x for x, _ in kept], [y for _, y in kept]
    evaluation.extra, evaluation.data = (without_nonfinite(plain) for plain in (evaluation.extra, evaluation.data))
    return evaluation


@dataclass(frozen=True)
class Picture:
    """A figure of a task for the report's page, drawn where it is first asked for: a report outlives one that fails.

    `draw` returns None where there is nothing to show. `alt` says in words what the figure shows. `publish` is true
    where no sample of a data set is to be seen: only such figures are copied to a publication.
    """

    name: str
    draw: Callable[[], "Figure | None"]
    alt: str
    caption: str
    publish: bool = False

    @functools.cached_property
    def figure(self) -> "Figure | None":
        return self.draw()


@dataclass(frozen=True)
class Look:
    """How a method is drawn, the same in every plot: matplotlib's colour, marker and dash pattern."""

    colour: str
    marker: str
    dash: Any


class Album(Protocol):
    """What the report shows a task that draws pictures of its own. `width` is a page's, in inches.

    `addresses` are the leaderboard's rows in its order. matplotlib is set up; figures are made by
    ``matplotlib.figure.Figure``, not by pyplot.
    """

    tier: str
    width: float
    addresses: Sequence[str]

    def role(self, address: str) -> str:
        """Return ``method``, ``baseline`` or ``ablation``."""
        ...

    def look(self, address: str) -> Look: ...

    def runs(self, address: str) -> Mapping[int, RunRecord]:
        """Return a method's finished runs by seed; empty where there is none."""
        ...

    def arrays(self, address: str, seed: int) -> Mapping[str, Any]:
        """Return the arrays that a run left beside its record (`Evaluation.arrays`); empty where there are none."""
        ...

    def kind(self, key: str) -> str:
        """Return a prepared set's kind: ``procedural``, ``embedded``, ``public`` or ``gated``."""
        ...

    def open_set(self, key: str) -> Mapping[str, Any] | None:
        """Return a prepared set's arrays; None, and a sentence in the report, where it is not on this machine."""
        ...


class Context(Protocol):
    """What the runner hands to a task. `build(**info)` makes the method's untrained module, seeded."""

    spec: RunSpec
    device: "torch.device"
    data_root: Path
    work: Path

    def build(self, name: str, **info: Any) -> "nn.Module":
        """Build the method's module for stage `name`: the paper's callable gets `info` and ``spec.options``."""
        ...

    def load(self, name: str, **info: Any) -> "nn.Module":
        """Build the module and fill it from the file that ``evaluate --weights`` names, by the paper's own reader."""
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

    def score_weights(self, context: Context) -> Evaluation:
        """Score weights from a file (``evaluate --weights``) on the test data, by ``context.load`` and without any
        training. A task may leave this method out.
        """
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
