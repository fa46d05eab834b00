"""A run: the untrained network is measured; then, where the tier asks for recall, it is trained and scored."""

import copy
import time

import numpy as np
import torch

from replications.layers.text.model import SequenceModel
from replications.records import Curve
from replications.tasks.run import Context, Evaluation
from replications.tasks.sequence_memory.data import RecallBatches, recall_accuracy
from replications.tasks.sequence_memory.measures import gradient_path, path_factor, sequential_operations, state_bytes
from replications.training.determinism import deterministic, float32_precision, generator_for, scoring
from replications.training.stage import Batch, Stage, Workload

UNTRAINED_VOCABULARY = 33
STAMPS = 5  # timed steps, of which the fastest counts


def execute(context: Context) -> Evaluation:
    """Measure path, operations and state; train on recall and score each number of pairs and gap; time a step."""
    options, model = context.options, _build(context)
    evaluation = Evaluation({}, category="recall of pairs; the path of one layer")
    _measure_path(context, model, evaluation, "")
    generator = generator_for(context.spec.seed, "count")
    tokens = torch.randint(_vocabulary(context), (1, 2 * options.counted), generator=generator)
    evaluation.metrics["sequential_operations"] = sequential_operations(model, tokens)
    if model.decodes:
        evaluation.metrics["state_bytes"] = state_bytes(model, options.counted)
    if options.recall is not None:
        _recall(context, model.to(context.device), evaluation)
    if options.speed_length is not None:
        evaluation.metrics["step_ms"] = _step_ms(context, options.speed_length)
    wide = copy.deepcopy(model).cpu().double()  # torch's fused recurrent kernels cannot be counted
    evaluation.count(wide, lambda: wide.logits(tokens))
    return evaluation


def workload(context: Context) -> Workload | None:
    """Return a training step of recall, and inference: logits of whole sequences. None where nothing is trained."""
    if context.options.recall is None:
        return None
    stage = _stage(context, _build(context).to(context.device))
    batch = stage.batches.batch(len(context.options.recall.conditions) - 1)  # the longest

    def forward(module: SequenceModel, inputs: Batch) -> torch.Tensor:
        return module.logits(inputs["tokens"])

    return Workload(stage, batch, forward, {"tokens": batch["tokens"]}, context.device)


def _vocabulary(context: Context) -> int:
    recall = context.options.recall
    return recall.vocabulary if recall else UNTRAINED_VOCABULARY


def _build(context: Context) -> SequenceModel:
    recall = context.options.recall
    length = recall.length if recall else context.options.path[1] + 1
    return context.build("recall", vocabulary=_vocabulary(context), length=length, causal=True, num_classes=None)


def _stage(context: Context, model: SequenceModel) -> Stage:
    options, recipe = context.options.recall, context.spec.recipe
    batches = RecallBatches(options, recipe.batch_size, context.spec.seed, context.device)

    def validate(module: SequenceModel) -> dict[str, float]:
        with scoring(recipe.precision, context.device):
            found = recall_accuracy(module, options, "validation", context.device)
        return found | {"recall": float(np.mean(list(found.values())))}

    return Stage("recall", model, batches, recipe, validate)


def _measure_path(context: Context, model: SequenceModel, evaluation: Evaluation, name: str) -> None:
    near, far = context.options.path
    generator = generator_for(context.spec.seed, "path")
    path = gradient_path(model.blocks[0].mixer, model.width, far, context.options.sequences, generator)
    evaluation.metrics[f"path_factor{name}"] = path_factor(path, near, far)
    if not name:
        evaluation.metrics["path_log10"] = float(np.log10(path[far]))
    distances = [float(d) for d in range(1, far + 1)]
    evaluation.curves[f"path{name}"] = Curve(
        x_label="T - t, positions", y_label="log10 |dy_T/dx_t|", x=distances, y=np.log10(path[1:]).tolist()
    )


def _recall(context: Context, model: SequenceModel, evaluation: Evaluation) -> None:
    options = context.options.recall
    context.train(_stage(context, model))
    model.eval()
    with scoring(context.spec.recipe.precision, context.device):
        found = recall_accuracy(model, options, "test", context.device)
    most, (smallest, *_, largest) = options.pairs[-1], (options.gaps[0], *options.gaps)
    fall = found[f"recall_p{most}_g{smallest}"] - found[f"recall_p{most}_g{largest}"]
    evaluation.metrics |= found | {"recall": float(np.mean(list(found.values()))), "recall_fall": fall}
    _measure_path(context, model, evaluation, "_trained")


def _step_ms(context: Context, length: int) -> float:
    """Return the fastest of some training steps of one sequence, without the optimiser."""
    model = context.build("speed", vocabulary=_vocabulary(context), length=length, causal=True, num_classes=None)
    model.to(context.device).train()
    tokens = torch.arange(length, device=context.device)[None] % _vocabulary(context)
    taken = []
    with deterministic(), float32_precision(context.spec.recipe.precision):
        for _ in range(STAMPS):
            _synchronise(context.device)
            started = time.perf_counter()
            model({"tokens": tokens, "target": tokens})["loss"].backward()
            _synchronise(context.device)
            taken.append(time.perf_counter() - started)
            model.zero_grad(set_to_none=True)
    return 1000 * min(taken)


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
