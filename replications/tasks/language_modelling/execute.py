"""A run from its spec to its evaluation: each stage is trained and scored, then the cost of length is measured."""

import numpy as np
import torch

from replications.layers.text.model import SequenceModel
from replications.tasks.language_modelling.evaluation import recurrence_gap
from replications.tasks.language_modelling.options import LanguageOptions
from replications.tasks.language_modelling.stages import TrainedStage
from replications.tasks.language_modelling.sweep import length_sweep
from replications.tasks.run import Context, Evaluation
from replications.training.stage import Batch, StageResult, Workload


def execute(context: Context) -> Evaluation:
    """Train the run's stages, score their test parts once each, and sweep the lengths."""
    options = context.options
    evaluation = Evaluation({}, category=_category(context, options.length))
    step_seconds = None
    for name in sorted(options.stages, key=lambda name: name != "text"):  # first: it times the steps of another
        stage = TrainedStage.of(context, name, step_seconds)
        result = stage.fit()
        evaluation.metrics |= stage.score()
        if name == "text":
            step_seconds = _step_seconds(context, result)
            if stage.model.decodes:
                evaluation.metrics["recurrence_gap"] = _recurrence_gap(stage, 2 * context.spec.options["chunk"])
            evaluation.extra["validation"] = _quality_by_time(result)
            if context.spec.seed == 0:
                evaluation.arrays["attention"] = _attention_maps(stage, 2 * context.spec.options["chunk"])
            window = torch.zeros(1, stage.length, dtype=torch.uint8, device=context.device)
            evaluation.count(stage.model, lambda: stage.model.logits(window))  # noqa: B023
            evaluation.data["text"] = {"key": stage.data.key, "window": stage.length}
        else:
            evaluation.data[name] = {"key": stage.data.key, "length": stage.length}
        if name == "timed":
            evaluation.extra["timed"] = {"steps": result.steps, "seconds": result.seconds}
    if _sweeps(context, options):
        found = length_sweep(context, options.sweep)
        evaluation.metrics |= found.metrics
        evaluation.extra["sweep"] = found.extra
    return evaluation


def workload(context: Context) -> Workload:
    """Return a training step of the text stage, and inference: logits of whole windows."""
    stage = TrainedStage.of(context, "text")
    made = stage.stage()
    batch = made.batches.batch(0)

    def forward(module: SequenceModel, inputs: Batch) -> torch.Tensor:
        return module.logits(inputs["tokens"])

    return Workload(made, batch, forward, {"tokens": batch["tokens"]}, context.device)


def _step_seconds(context: Context, text: StageResult) -> float:
    """Return the seconds of a step of the stage ``timed``: the text stage's, unless its batches differ."""
    pace = TrainedStage.pace(context)
    result = text if pace is None else pace.fit()
    return result.seconds / result.steps


def _sweeps(context: Context, options: LanguageOptions) -> bool:
    seeds = options.sweep_seeds
    return options.sweep is not None and (seeds is None or context.spec.seed < seeds)


def _quality_by_time(result: StageResult) -> dict[str, list[float]]:
    """Return the validation scores of the text stage beside the seconds that were trained until then."""
    points = [point for point in result.history if point.split == "validation"]
    return {
        "seconds": [point.step * result.seconds / result.steps for point in points],
        "bits_per_byte": [point.values["bits_per_byte"] for point in points],
    }


def _first_bytes(stage: TrainedStage, most: int) -> torch.Tensor:
    """Return the first bytes of the test text, up to `most` and no more than a training window, ``[n]``."""
    text = stage.data.part("test")[: min(stage.length, most)]
    return torch.from_numpy(np.array(text)).to(stage.context.device)


def _attention_maps(stage: TrainedStage, longest: int) -> np.ndarray:
    """Return the weights of the first and the last layer on the first bytes of the test text, float16 [2, n, n]."""
    return stage.model.attention_maps(_first_bytes(stage, longest))[[0, -1]].half().cpu().numpy()


def _recurrence_gap(stage: TrainedStage, longest: int) -> float:
    return recurrence_gap(stage.model, _first_bytes(stage, longest))


def _category(context: Context, length: int) -> str:
    return f"bytes of {context.spec.data.get('text', 'no text')}, windows of {length}"
