"""The context of a task during a run: building, loading, training and sampling, seeded and with recorded cost."""

import hashlib
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from replications import catalogue
from replications.errors import RunFailure, UserError, nearest
from replications.records import HistoryPoint
from replications.spec import RunSpec
from replications.tasks.base import find_task

if TYPE_CHECKING:
    import torch
    from torch import nn

    from replications.training.distribution import Distribution
    from replications.training.stage import Stage, StageResult, Workload


def derived_seed(seed: int, name: str) -> int:
    """A 63-bit seed for the part `name` of a run: equal for all methods of one seed, so that they are paired."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "big") >> 1


@dataclass
class RunContext:
    """The context of a task during a run (implements `replications.tasks.run.Context`)."""

    spec: RunSpec
    device: "torch.device"
    data_root: Path
    work: Path
    distribution: "Distribution | None" = None
    weights: Path | None = None
    stages: list["StageResult"] = field(default_factory=list)
    history: list[HistoryPoint] = field(default_factory=list)
    parameters: int = 0
    sample_seconds: float | None = None
    nondeterministic: str | None = None  # operations without a deterministic version, as declared by stages

    @cached_property
    def options(self) -> Any:
        """The typed task options; raises UserError for the first invalid one."""
        return find_task(self.spec.task).parse_options(self.spec.task_options)

    def build(self, name: str, **info: Any) -> "nn.Module":
        """Build the method's module for stage `name` with freshly seeded weights.

        The paper's callable gets `info` and the spec's options. Options that the task gives to every method are passed
        only if it accepts them. Raises UserError for an option of the method itself that it does not accept.
        """
        from replications.training.determinism import seed_everything

        build = find_function(self.spec, self.spec.build)
        accepted = inspect.signature(build).parameters
        shared = catalogue.task_tiers(self.spec.task)[self.spec.tier].options
        for option in self.spec.options:
            if option not in accepted and option not in shared:
                raise UserError(f"{self.spec.address} has no option '{option}'{nearest(option, accepted)}")
        options = {name: value for name, value in self.spec.options.items() if name in accepted}
        seed_everything(derived_seed(self.spec.seed, f"weights/{name}"))
        return build(**{k: v for k, v in info.items() if k in accepted}, **options)

    def load(self, name: str, **info: Any) -> "nn.Module":
        """Build the method's module and let the paper's reader (`weights` in paper.yaml) fill it from the file.

        The reader is called as ``reader(module, path)``; it raises UserError if the file has another layout.
        """
        method = catalogue.find_method(self.spec.address)[1]
        if method.weights is None:
            raise UserError(f"{self.spec.address} reads no weights files: paper.yaml names no reader under 'weights'")
        module = self.build(name, **info)
        find_function(self.spec, method.weights)(module, self.weights)
        return module.to(self.device)

    def train(self, stage: "Stage") -> "StageResult":
        """Train a stage, resume it, or load it if it is finished; its cost is added to the record."""
        from replications.training.loop import train

        seed = derived_seed(self.spec.seed, f"stage/{stage.name}")
        result = train(stage, work=self.work, seed=seed, device=self.device, distribution=self.distribution)
        self.stages.append(result)
        self.nondeterministic = self.nondeterministic or stage.nondeterministic
        self.history.extend(result.history)
        own = sum(p.numel() for p in stage.module.parameters() if p.requires_grad)
        self.parameters = max(self.parameters, own)
        return result

    def sample(self, name: str, count: int, draw: "Callable[[int], torch.Tensor]", batch: int) -> "torch.Tensor":
        """Draw samples in chunks, resume, or load finished ones; their seconds are added to the record."""
        from replications.training.sampling import sample

        seed = derived_seed(self.spec.seed, "samples")
        found = sample(name, count, draw, batch=batch, work=self.work, seed=seed, device=self.device)
        self.sample_seconds = (self.sample_seconds or 0.0) + found.seconds
        return found.values


def make_workload(spec: RunSpec, data_root: Path, device: "torch.device") -> "Workload":
    """Return one training step and one inference of a method, for throughput and the conformance tests.

    Raises RunFailure ``does not apply`` if the task has none.
    """
    workload = find_task(spec.task).workload(RunContext(spec, device, Path(data_root), Path()))
    if workload is None:
        raise RunFailure("does not apply", f"the task {spec.task} times no training step")
    return workload


def find_function(spec: RunSpec, name: str) -> Callable[..., Any]:
    """Import the callable ``module:function`` of a paper's folder; raises UserError if it does not exist."""
    module_name, _, function = name.partition(":")
    module = importlib.import_module(f"replications.papers.{spec.paper}.{module_name}")
    if not hasattr(module, function):
        raise UserError(f"{spec.address}: papers/{spec.paper}/{module_name}.py has no function '{function}'")
    return getattr(module, function)
