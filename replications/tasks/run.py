"""What a run needs of a task and a task of a run: the context it is given, the evaluation it returns."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from replications.errors import RunFailure
from replications.parsing import merged, parse
from replications.records import Curve, without_nonfinite
from replications.spec import Recipe, RunSpec

if TYPE_CHECKING:
    import torch
    from torch import nn

    from replications.training.stage import Stage, StageResult


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

    def count(self, module: "nn.Module", infer: Callable[[], Any]) -> None:
        """Add the parameters of `module` and the FLOPs of ``infer()``, its inference on one sample."""
        from replications.measurement.flops import forward_flops

        self.model_parameters = sum(parameter.numel() for parameter in module.parameters())
        self.flops_per_sample = forward_flops(infer)


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


class Context(Protocol):
    """What the runner hands to a task. `build(**info)` makes the method's untrained module, seeded."""

    spec: RunSpec
    device: "torch.device"
    data_root: Path
    work: Path
    options: Any  # the typed task options

    def build(self, name: str, **info: Any) -> "nn.Module":
        """Build the method's module for stage `name`: the paper's callable gets `info` and ``spec.options``."""
        ...

    def load(self, name: str, **info: Any) -> "nn.Module":
        """Build the module and fill it from the file that ``evaluate --weights`` names, by the paper's own reader."""
        ...

    def train(self, stage: "Stage") -> "StageResult":
        """Train a stage, or continue it, or load it where it is finished; counts its cost into the record."""
        ...

    def sample(self, name: str, count: int, draw: "Callable[[int], torch.Tensor]", batch: int) -> "torch.Tensor":
        """Draw `count` samples by ``draw(n)`` in chunks of `batch`, resumably, or load them; their time is recorded."""
        ...


BuildFunction = Callable[..., "nn.Module"]
Rows = TypeVar("Rows")  # anything with a length that can be sliced


def chunks(rows: Rows, size: int) -> Iterator[Rows]:
    """Yield `rows` in order in batches of at most `size`, for prediction."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def number_name(value: float) -> str:
    """Write a number as in a metric's name: 4 as "4", 0.5 as "0p5"."""
    return f"{value:g}".replace(".", "p")


def changed_recipe(recipe: Recipe, changes: Mapping[str, Any], where: str) -> Recipe:
    """Return a stage's recipe: `changes` merged into the run's, options of the optimiser too.

    A change of ``steps`` or ``epochs`` takes the place of both. Raises UserError that starts with `where` and names an
    unknown key or the first wrong value.
    """
    base = recipe.model_dump()
    if "steps" in changes or "epochs" in changes:
        base |= {"steps": None, "epochs": None}
    return parse(Recipe, merged(base, changes), f"{where}: recipe")
