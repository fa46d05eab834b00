"""A run from its spec to its evaluation: the density is trained, then the test images are scored, once."""

import numpy as np
import torch
from torch import Tensor

from replications.layers.density.bounds import SIZES, nested_bounds
from replications.layers.density.enumeration import mass_errors
from replications.layers.density.model import Density
from replications.tasks.data import set_key
from replications.tasks.density_estimation.data import BinarySet, open_binary
from replications.tasks.density_estimation.rescore import rescore
from replications.tasks.density_estimation.speed import speed_metrics
from replications.tasks.run import Context, Evaluation, chunks
from replications.training.batches import DeviceBatches
from replications.training.determinism import scoring, seed_everything
from replications.training.stage import Batch, Stage, Workload

KINDS = {"exact": "exact", "bound": f"at most, {SIZES[-1]} samples"}


def execute(context: Context) -> Evaluation:
    """Train the density and score the test images."""
    data = open_binary(set_key(context, "images"), context.data_root)
    stage = make_stage(context, data)
    density = stage.module
    if any(parameter.requires_grad for parameter in density.parameters()):
        context.train(stage)
    density.eval()
    test = {name: value[: context.options.test_images] for name, value in _on(data.images("test"), context).items()}
    evaluation = Evaluation({}, category=f"{data.title}: {KINDS[density.kind]}")
    seed_everything(context.spec.seed, "test")
    with scoring(context.spec.recipe.precision, context.device):
        evaluation.arrays = score(density, test, context.options.evaluation_batch)
        evaluation.arrays["sample"] = density.sample(context.options.shown).cpu().numpy().astype(np.uint8)
    evaluation.arrays["pixels"] = np.array(data.bits.shape[1])
    if "label" in test:
        evaluation.arrays["label"] = test["label"].cpu().numpy().astype(np.int16)
    measured = density.measure(test["image"])
    evaluation.arrays |= measured.arrays
    evaluation.metrics = rescore(evaluation.arrays) | measured.metrics
    if "predicted" in evaluation.arrays:
        evaluation.metrics["logistic_accuracy"] = logistic_accuracy(data, len(evaluation.arrays["predicted"]))
    if density.kind != "bound":
        rows, columns = context.options.mass_shape
        small = context.build("mass", shape=(rows, columns), classes=data.classes)
        evaluation.metrics |= mass_errors(small, rows * columns)
    evaluation.metrics |= speed_metrics(density, test["image"], context.options.timed_runs)
    evaluation.data["images"] = {"set": data.key} | {
        "train": len(data.rows("train")),
        "validation": len(data.rows("validation")),
        "test": len(test["image"]),
    }
    evaluation.extra["shape"] = list(data.shape)
    evaluation.count(density, lambda: log_prob(density, test["image"][:1], 1))
    return evaluation


def workload(context: Context) -> Workload:
    """Return a training step, and inference: the test images' log-probabilities, or bounds of one sample."""
    data = open_binary(set_key(context, "images"), context.data_root)
    stage = make_stage(context, data)
    images = data.images("test")["image"][: context.options.evaluation_batch].to(context.device)

    def forward(density: Density, inputs: Batch) -> Tensor:
        return log_prob(density, inputs["image"], 1)

    return Workload(stage, stage.batches.batch(0), forward, {"image": images}, context.device)


def make_stage(context: Context, data: BinarySet) -> Stage:
    """Return what is trained: batches have ``image`` float [n, pixels] and, where the set has labels, ``label``."""
    density = context.build("density", shape=data.shape, classes=data.classes).to(context.device)
    train, validation = (_on(data.images(split), context) for split in ("train", "validation"))
    density.fit(train["image"])
    recipe, options = context.spec.recipe, context.options
    batches = DeviceBatches(train, recipe.batch_size, context.spec.seed, device=context.device)

    def validate(density: Density) -> dict[str, float]:
        with scoring(recipe.precision, context.device):
            size = _images_at_a_time(density, options.evaluation_batch, options.validation_samples)
            parts = chunks(validation["image"], size)
            found = torch.cat([log_prob(density, part, options.validation_samples) for part in parts])
        return {"nll": -found.double().mean().item()}

    return Stage("density", density, batches, recipe, validate=validate, select_metric="nll", higher_is_better=False)


def log_prob(density: Density, image: Tensor, samples: int) -> Tensor:
    """Return log p(x) or, of a bound, its bound by so many samples, ``[batch]``."""
    if density.kind != "bound":
        return density.log_prob(image)
    return nested_bounds(density.log_weights(image, samples), (samples,))[:, 0]


def score(density: Density, test: Batch, size: int) -> dict[str, np.ndarray]:
    """Return arrays of the test images: ``log_prob`` or, of a bound, ``bounds`` [N, sizes], and what else there is."""
    if density.kind == "bound":
        parts = chunks(test["image"], _images_at_a_time(density, size, SIZES[-1]))
        bounds = torch.cat([nested_bounds(density.log_weights(part, SIZES[-1]), SIZES) for part in parts])
        return {"bounds": bounds.double().cpu().numpy()}
    parts = list(chunks(test["image"], size))
    found = {"log_prob": torch.cat([density.log_prob(part) for part in parts]).double().cpu().numpy()}
    if density.pseudo_log_prob(test["image"][:1]) is not None:
        pseudo = torch.cat([density.pseudo_log_prob(part) for part in parts])
        found["pseudo_log_prob"] = pseudo.double().cpu().numpy()
    if density.label_log_prob(test["image"][:1]) is not None:
        joint = torch.cat([density.label_log_prob(part) for part in parts])
        found["log_joint"] = joint.gather(1, test["label"][:, None])[:, 0].double().cpu().numpy()
        found["predicted"] = joint.argmax(1).cpu().numpy().astype(np.int16)
    return found


def _images_at_a_time(density: Density, size: int, samples: int) -> int:
    return max(1, size // samples) if density.kind == "bound" else size


def logistic_accuracy(data: BinarySet, count: int) -> float:
    """Return the accuracy on the first `count` test images, in per cent, of a logistic regression on the pixels."""
    from sklearn.linear_model import LogisticRegression

    train, test = data.rows("train"), data.rows("test")[:count]
    fitted = LogisticRegression(max_iter=1000).fit(data.bits[train], data.label[train])
    return float(100 * fitted.score(data.bits[test], data.label[test]))


def _on(batch: Batch, context: Context) -> Batch:
    return {name: value.to(context.device) for name, value in batch.items()}
