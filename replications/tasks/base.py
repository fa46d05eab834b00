"""The form of a task, as planning and reports read it. Importing it does not import torch.

A task is a folder ``replications/tasks/<name>``:

* ``__init__.py`` declares it: ``TASK = Task(...)``. It must not import torch.
* ``tiers.yaml`` has one `replications.spec.TaskTier` for each tier.
* ``execute.py`` has ``execute(context) -> Evaluation`` and, where training can be timed, ``workload(context)``.
* ``rescore.py`` (optional): ``rescore(arrays)`` derives metrics again from a run's ``arrays.npz``, for `verify`.
* ``score_weights.py`` (optional): ``score_weights(context)`` scores a weights file without training.
* ``pictures.py`` (optional): ``draw(album)`` yields `Picture`s of an `Album`.
* ``synthetic.py`` (optional): ``synthetic_sets(spec, samples)`` gives random sets in the form of those that a run
  opens, by key (`replications.datasets.synthetic`): speed is measured without data.

What a run needs of a task, its `Context` and its `Evaluation`, is in ``replications.tasks.run``, how sets are opened in
``replications.tasks.data``. Networks and what else papers share of a domain are in ``replications.layers.<domain>``.
"""

import functools
import importlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pydantic import BaseModel

from replications.errors import UserError, nearest
from replications.parsing import parse
from replications.records import RunRecord
from replications.spec import RunSpec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from replications.datasets.synthetic import SyntheticSet
    from replications.tasks.run import Context, Evaluation
    from replications.training.stage import Workload

TASKS = Path(__file__).parent


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


@dataclass(frozen=True)
class Metrics(Mapping[str, Metric]):
    """A task's metric table.

    Iteration gives `named`. `further` have a fixed name too but belong to some methods or tiers only; `patterns` maps
    a regular expression, which a whole name must match, to the function that makes the metric of such a name.
    """

    named: Mapping[str, Metric]
    patterns: Mapping[str, Callable[[re.Match[str]], Metric]] = field(default_factory=dict)
    further: Mapping[str, Metric] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Metric:
        for table in (self.named, self.further):
            if name in table:
                return table[name]
        for pattern, make in self.patterns.items():
            if match := re.fullmatch(pattern, name):
                return make(match)
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.named)

    def __len__(self) -> int:
        return len(self.named)


@dataclass(frozen=True)
class Picture:
    """A figure of a task for the report's page, drawn when first needed: one that fails does not stop it.

    `draw` returns None if there is nothing to show. `alt` describes the figure in words. `publish` is true
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
    """What the report shows a task that draws its own pictures. `width` is a page's, in inches.

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
        """Return a prepared set's arrays; None, and a note in the report, where it is not on this machine."""
        ...


@dataclass(frozen=True)
class Task:
    """The declaration of a task.

    `options` is the pydantic model of its task options. `build` has the meaning of each argument that a paper's
    ``build`` may take (beside its options), `returns` names what it must return: ``layers.faces.model:FaceModel``.
    """

    name: str
    title: str
    primary_metric: str
    metrics: Mapping[str, Metric]
    options: type[BaseModel]
    build: Mapping[str, str] = field(default_factory=dict)
    returns: str = ""

    def parse_options(self, options: Mapping[str, Any]) -> Any:
        """Return the typed task options; raises UserError that names the first wrong one."""
        return parse(self.options, dict(options), f"{self.name}: task options")

    def execute(self, context: "Context") -> "Evaluation":
        """Train the stages of a run and score the test data once."""
        return self._function("execute", "execute")(context)

    def workload(self, context: "Context") -> "Workload | None":
        """Return one training step and one inference on the run's own data; None where nothing is timed."""
        make = self._function("execute", "workload")
        return make and make(context)

    def synthetic_sets(self, spec: RunSpec, samples: int) -> "dict[str, SyntheticSet] | None":
        """Return random sets by key that hold a batch of `samples`; None where the task has none."""
        make = self._function("synthetic", "synthetic_sets")
        return make and make(spec, samples)

    def rescore(self, arrays: Mapping[str, Any]) -> dict[str, float]:
        """Return the metrics that ``rescore.py`` derives from a run's arrays; none where the task has no such file."""
        derive = self._function("rescore", "rescore")
        return derive(arrays) if derive else {}

    @property
    def scores_weights(self) -> bool:
        return (TASKS / self.name / "score_weights.py").exists()

    def score_weights(self, context: "Context") -> "Evaluation":
        """Score weights from a file on the test data without training, where `scores_weights`."""
        return self._function("score_weights", "score_weights")(context)

    def _function(self, module: str, name: str) -> Callable[..., Any] | None:
        if not (TASKS / self.name / f"{module}.py").exists():
            return None
        return getattr(importlib.import_module(f"replications.tasks.{self.name}.{module}"), name, None)


def find_task(name: str) -> Task:
    """Import a task by name; raises UserError with the nearest name where there is none."""
    known = [path.parent.name for path in TASKS.glob("*/tiers.yaml")]
    if name not in known:
        raise UserError(f"unknown task '{name}'{nearest(name, known)}")
    return importlib.import_module(f"replications.tasks.{name}").TASK
