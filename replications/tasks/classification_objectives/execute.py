"""A run from its spec to its evaluation: one stage is trained, then the test samples are scored, once."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from replications.errors import UserError
from replications.layers.objectives.attack import attacked
from replications.layers.objectives.forgetting import forgotten, restored
from replications.layers.objectives.model import ObjectiveClassifier
from replications.tasks.classification_objectives.data import Samples, open_samples
from replications.tasks.classification_objectives.metrics import measured
from replications.tasks.run import Context, Evaluation, chunks
from replications.training.batches import DeviceBatches
from replications.training.determinism import scoring, seed_everything
from replications.training.stage import Batch, Stage, Workload


def execute(context: Context) -> Evaluation:
    """Train the method and score the test samples."""
    data = open_samples(context)
    if context.options.attack is not None and data.side is None:
        raise UserError(f"task option 'attack': data set '{data.key}' has no images, whose range the attack keeps to")
    stage = make_stage(context, data)
    context.train(stage)
    module = stage.module.eval()
    seed_everything(context.spec.seed, "scoring")  # all methods of a seed get the same draws
    with scoring(context.spec.recipe.precision, context.device):
        arrays = predictions(context, data, module, "test") | under_attack(context, data, module)
        evaluation = Evaluation(measured(arrays), category=data.title(), arrays=arrays)
        remember(context, data, module, evaluation)
    one = data.of("test", context.device)[0][:1]
    evaluation.count(module, lambda: module.log_probabilities(one, context.options.samples))
    return evaluation


def workload(context: Context) -> Workload:
    """Return a training step, and inference on test samples with as many draws as the test has."""
    data, samples = open_samples(context), context.options.samples
    stage = make_stage(context, data)

    def forward(module: nn.Module, inputs: Batch) -> Tensor:
        return module.log_probabilities(inputs["x"], samples)

    x = data.of("test", context.device)[0][: context.options.evaluation_batch]
    return Workload(stage, stage.batches.batch(0), forward, {"x": x}, context.device)


def make_stage(context: Context, data: Samples) -> Stage:
    """Return what is trained. Batches have ``x`` float ``[n, inputs]`` and ``label`` int64 ``[n]``."""
    recipe, device = context.spec.recipe, context.device
    module = context.build("classifier", num_classes=data.num_classes, inputs=data.x.shape[1], shares=data.shares())
    x, label = data.of("train", device)
    batches = DeviceBatches({"x": x, "label": label}, recipe.batch_size, context.spec.seed, device=device)

    def validate(trained: nn.Module) -> dict[str, float]:
        with scoring(recipe.precision, device):
            return measured(predictions(context, data, trained, "validation"))

    return Stage("train", module.to(device), batches, recipe, validate if len(data.rows("validation")) else None)


def told(context: Context, module: ObjectiveClassifier, x: Tensor, samples: int) -> np.ndarray:
    """Return log probabilities ``[n, classes]``, means over draws of the code."""
    parts = [module.log_probabilities(part, samples) for part in chunks(x, context.options.evaluation_batch)]
    return torch.cat(parts).float().cpu().numpy()


def predictions(context: Context, data: Samples, module: ObjectiveClassifier, split: str) -> dict[str, Any]:
    """Return what the samples of a split are told to be, with many draws of the code and with one, and its rate."""
    options = context.options
    x, label = data.of(split, context.device)
    arrays: dict[str, Any] = {"label": label.cpu().numpy().astype(np.int8)}
    arrays["log_probability"] = told(context, module, x, options.samples)
    arrays["accuracy_1"] = told(context, module, x, 1).argmax(1).astype(np.int8)
    rate = module.information(x)
    if rate is not None:
        arrays["information"] = rate.float().cpu().numpy()
    if options.rare_class is not None:
        x, label = data.of("validation", context.device)
        arrays["tuning_log_probability"] = told(context, module, x, options.samples)
        arrays["tuning_label"] = label.cpu().numpy().astype(np.int8)
        arrays["bias_batches"] = np.array(options.bias_batches, np.int32)
    return arrays


def under_attack(context: Context, data: Samples, module: ObjectiveClassifier) -> dict[str, Any]:
    """Return the likeliest classes of attacked test samples; nothing where the run attacks none."""
    wanted, size = context.options.attack, context.options.evaluation_batch
    if wanted is None:
        return {}
    x, label = data.of("test", context.device)
    found = {}
    for name, steps in (("accuracy_fgsm", 1), ("accuracy_pgd", wanted.steps)):
        pairs = zip(chunks(x, size), chunks(label, size), strict=True)
        hidden = torch.cat([attacked(module, a, b, 2 * wanted.eps, steps, wanted.samples) for a, b in pairs])
        found[name] = told(context, module, hidden, context.options.samples).argmax(1).astype(np.int8)
    return found


def remember(context: Context, data: Samples, module: ObjectiveClassifier, evaluation: Evaluation) -> None:
    """Add what a draw of the code keeps of the input, and what pictures show of it."""
    x, label = data.of("test", context.device)
    code = torch.cat([module.draw_code(part, 1)[0] for part in chunks(x, context.options.evaluation_batch)])
    code, x, label = (tensor.float().cpu().numpy() for tensor in (code, x, label))
    evaluation.metrics["forgotten"] = forgotten(code, x, label.astype(int))
    if code.shape[1] == 2:
        evaluation.arrays["code"] = code
    if data.side is not None and context.options.pictures:
        half = len(x) // 2
        rows = [int(np.argmax(label[half:] == n)) for n in range(min(context.options.pictures, data.num_classes))]
        shown = {"picture_input": x[half:], "picture_restored": restored(code, x, label.astype(int))[0]}
        for name, images in shown.items():
            evaluation.arrays[name] = images[rows].reshape(-1, data.side, data.side).astype(np.float32)
