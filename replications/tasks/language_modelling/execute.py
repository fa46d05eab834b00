"""A run from its spec to its evaluation: each stage is trained and scored, then the cost of length is measured."""

import torch

from replications.errors import RunFailure
from replications.tasks.base import Context, Evaluation
from replications.tasks.language_modelling.options import parse_options
from replications.tasks.language_modelling.stages import TrainedStage
from replications.tasks.language_modelling.sweep import length_sweep
from replications.training.stage import Workload


def execute(context: Context) -> Evaluation:
    """Train the run's stages, score their test parts once each, and sweep the lengths."""
    from replications.measurement.flops import forward_flops

    options = parse_options(context.spec.task_options)
    evaluation = Evaluation({}, category=_category(context, options.length))
    for name in options.stages:
        stage = TrainedStage.of(context, name)
        stage.fit()
        evaluation.metrics |= stage.score()
        if name == "text":
            evaluation.model_parameters = sum(p.numel() for p in stage.model.parameters())
            window = torch.zeros(1, stage.length, dtype=torch.uint8, device=context.device)
            evaluation.flops_per_sample = forward_flops(lambda: stage.model.logits(window))  # noqa: B023
            evaluation.data["text"] = {"key": stage.data.key, "window": stage.length}
        else:
            evaluation.data[name] = {"key": stage.data.key, "length": stage.length}
    for name, value in evaluation.metrics.items():
        if value != value or abs(value) == float("inf"):
            raise RunFailure("diverged", f"test {name} is {value}")
    if options.sweep is not None:
        found = length_sweep(context, options.sweep)
        evaluation.metrics |= found.metrics
        evaluation.curves |= found.curves
        evaluation.extra["sweep"] = found.extra
    return evaluation


def workload(context: Context) -> Workload:
    """Return a training step of the text stage, and inference: logits of whole windows."""
    stage = TrainedStage.of(context, "text")
    made = stage.stage()
    batch = made.batches.batch(0)
    size = stage.recipe.batch_size

    def infer(module: torch.nn.Module, n: int) -> torch.Tensor:
        if n > size:
            raise ValueError(f"inference on at most {size} samples, not {n}")
        return module.logits(batch["tokens"][:n])

    return Workload(made, batch, infer, size, context.device)


def _category(context: Context, length: int) -> str:
    return f"bytes of {context.spec.data.get('text', 'no text')}, windows of {length}"
