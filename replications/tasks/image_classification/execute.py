"""A run from its spec to its evaluation: pretraining, a classifier for each fraction of the labels, probes, cost."""

import copy
from typing import Any

import numpy as np
import torch
from torch import nn

from replications.layers.images.model import Classifier, Pretrainer
from replications.layers.images.probes import nearest_classes
from replications.tasks.image_classification.reconstruction import PICTURED_RATIOS, reconstruct_rows, shown
from replications.tasks.image_classification.rescore import rescore
from replications.tasks.image_classification.speed import speed_metrics
from replications.tasks.image_classification.stages import ImageRun, percent_name
from replications.tasks.run import Context, Evaluation
from replications.training.loop import count_steps
from replications.training.stage import Batch, Stage, Workload

TOP = 5
COUNTED = 4  # images that FLOPs are counted on


def execute(context: Context) -> Evaluation:
    """Train the run's stages and score the test images once."""
    run = ImageRun.of(context)
    evaluation = Evaluation({}, category=category(run), data={"images": described(run)})
    arrays: dict[str, Any] = {"test_label": run.images.label[run.test_rows].astype(np.int32)}
    pretrainer = run.build_pretrainer()
    flops = 0.0
    trained = []
    if pretrainer is not None:
        stage = run.pretraining(pretrainer)
        flops += training_flops(stage)
        evaluation.metrics["pretrain_flops"] = forward_flops_of(pretrainer, stage.batches.batch(0)) / 1e6
        trained.append(context.train(stage))
    for fraction in run.options.fractions:
        classifier = run.build("classify")
        if pretrainer is not None:
            classifier.start_from(pretrainer)
        stage = run.classification(classifier, fraction, pretrainer is not None)
        if fraction == 1.0:
            flops += training_flops(stage)
        trained.append(context.train(stage))
        told = run.told(classifier, run.test_rows, stage.recipe, TOP).astype(np.int32)
        name = "accuracy" if fraction == 1.0 else f"accuracy_{percent_name(fraction)}"
        arrays[f"told_{name}"] = told[:, 0]
    arrays["top_classes"] = told
    network = classifier if pretrainer is None else pretrainer
    arrays |= probe(run, network)
    evaluation.metrics |= rescore(arrays)
    evaluation.metrics["train_tflops"] = flops / 1e12
    if len(run.options.fractions) > 1:
        before = f"accuracy_{percent_name(run.options.fractions[-2])}"
        evaluation.metrics["label_gain"] = evaluation.metrics["accuracy"] - evaluation.metrics[before]
    if pretrainer is not None:
        evaluation.metrics |= reconstruct_rows(run, pretrainer)
        evaluation.metrics |= speed_metrics(pretrainer, run.options.speed_turns, run.device)
    arrays |= pictured(run, classifier, pretrainer)
    evaluation.arrays = arrays
    count(evaluation, run, classifier)
    evaluation.extra["images_per_second"] = sum(r.samples for r in trained) / max(1e-9, sum(r.seconds for r in trained))
    evaluation.extra["labels"] = {
        percent_name(f): round(f * len(run.images.rows("train"))) for f in run.options.fractions
    }
    return evaluation


def workload(context: Context) -> Workload:
    """Return a step of the run's longest stage (the pretraining, where there is one), and inference on test images."""
    run = ImageRun.of(context)
    pretrainer = run.build_pretrainer()
    if pretrainer is None:
        stage = run.classification(run.build("classify"), 1.0, False)
    else:
        stage = run.pretraining(pretrainer)
    images = run.plain(np.resize(run.test_rows, run.options.evaluation_batch_size))

    def forward(module: nn.Module, inputs: Batch) -> torch.Tensor:
        return module.logits(inputs["image"]) if pretrainer is None else module.features(inputs["image"])

    return Workload(stage, stage.batches.batch(0), forward, {"image": images}, context.device)


def probe(run: ImageRun, network: Classifier | Pretrainer) -> dict[str, np.ndarray]:
    """Return what the linear and the k-NN probe tell of the test images."""
    rows = run.images.rows("train")
    train, test = run.features(network, rows), run.features(network, run.test_rows)
    stage = run.probing(network, train)
    run.context.train(stage)
    with torch.no_grad():
        linear = stage.module.logits(test).argmax(1)
    knn = nearest_classes(
        train, run.labels(rows), test, run.images.num_classes, run.options.neighbours, run.options.temperature
    )
    return {
        "told_linear_accuracy": linear.cpu().numpy().astype(np.int32),
        "told_knn_accuracy": knn.cpu().numpy().astype(np.int32),
    }


def pictured(run: ImageRun, classifier: Classifier, pretrainer: Pretrainer | None) -> dict[str, np.ndarray]:
    """Return what pictures show of a few test images: reconstructions by mask ratio, the class token's attention."""
    label = run.images.label[run.test_rows]
    count = run.options.pictures
    firsts = [int(np.argmax(label == index)) for index in range(min(count, run.images.num_classes))]
    if not firsts:
        return {}
    image = run.plain(run.test_rows[firsts])
    arrays = {"picture_image": shown(image)}
    attention = classifier.attention(image)
    if attention is not None:
        arrays["picture_attention"] = attention.mean(1).float().cpu().numpy().astype(np.float16)
    if pretrainer is not None:
        for name, ratio in PICTURED_RATIOS.items():
            found = pretrainer.reconstruct(image, torch.Generator().manual_seed(0), ratio)
            arrays[f"picture_mask_{name}"] = found.mask.cpu().numpy()
            arrays[f"picture_reconstruction_{name}"] = shown(found.image)
    return arrays


def training_flops(stage: Stage) -> float:
    """Return the FLOPs of a whole stage: of a step on a few images, forward and backward, times images and steps."""
    from replications.measurement.flops import count_flops

    batch = {name: tensor[:COUNTED] for name, tensor in stage.batches.batch(0).items()}
    module = copy.deepcopy(stage.module).train()  # normalisation would take this batch into its statistics
    counted = count_flops(lambda: module(batch)["loss"].backward()).total / len(batch["image"])
    return counted * stage.recipe.batch_size * count_steps(stage.recipe, stage.batches.samples)


def forward_flops_of(module: nn.Module, batch: Batch) -> float:
    from replications.measurement.flops import forward_flops

    few = {name: tensor[:COUNTED] for name, tensor in batch.items()}
    return forward_flops(lambda: module(few), len(few["image"]))


def count(evaluation: Evaluation, run: ImageRun, classifier: Classifier) -> None:
    image = run.plain(run.test_rows[:1])
    evaluation.count(classifier, lambda: classifier.logits(image))


def category(run: ImageRun) -> str:
    """Name what a table must not mix: the data, how much of it, and the image size."""
    used = run.options.classes
    title = run.images.about["title"] + (f", first {used} classes" if used else "")
    return f"{title}, {run.options.image_size} px"


def described(run: ImageRun) -> dict[str, Any]:
    about = {key: run.images.about[key] for key in ("key", "title", "kind", "note")}
    counts = {split: len(run.images.rows(split)) for split in ("train", "validation", "test")}
    return about | {"classes": run.images.num_classes, "images": counts}
