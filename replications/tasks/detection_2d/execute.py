"""A run from its spec to its single, final evaluation: one detector, trained, then scored on the test images."""

from dataclasses import dataclass

import numpy as np
import torch

from replications.layers.detection.model import Detections, Detector
from replications.records import Curve, HistoryPoint
from replications.tasks.detection_2d.data import DetectionSet
from replications.tasks.detection_2d.evaluation import Found, Judge
from replications.tasks.detection_2d.options import DetectionOptions
from replications.tasks.detection_2d.stages import Setup, per_image, suppressed
from replications.tasks.detection_2d.traces import traces
from replications.tasks.run import Context, Evaluation
from replications.training.determinism import deterministic
from replications.training.loop import count_steps
from replications.training.stage import Batch, Workload


def execute(context: Context) -> Evaluation:
    """Train the run's detector and score the test images once."""
    setup = Setup.of(context)
    detector = setup.build()
    stage = setup.stage(detector)
    result = context.train(stage)
    evaluation = score(setup, detector)
    epochs = count_steps(stage.recipe, stage.batches.samples) / (stage.batches.samples // stage.recipe.batch_size)
    learned = learning(result.history, epochs, setup.options.ap50_level)
    evaluation.metrics |= learned.metrics
    evaluation.curves |= learned.curves
    gap = detector.order_gap(stage.batches.batch(0))
    if gap is not None:
        evaluation.metrics["order_gap"] = 100 * gap
    evaluation.data["train"] = {"key": setup.train.key, "images": stage.batches.samples}
    return evaluation


def workload(context: Context) -> Workload:
    """Return a training step, and inference: the detections of test images, as one tensor."""
    setup = Setup.of(context)
    stage = setup.stage(setup.build())
    size = min(setup.options.eval_batch_size, context.spec.recipe.batch_size)
    shown = setup.shown(setup.test, np.resize(setup.test.rows("test", needed=True), size))

    def forward(module: Detector, inputs: Batch) -> torch.Tensor:
        found = module.detect(inputs)
        return torch.cat([found.boxes, found.scores[..., None]], dim=-1)

    return Workload(stage, stage.batches.batch(0), forward, shown, context.device)


def score(setup: Setup, detector: Detector) -> Evaluation:
    """Return the numbers of the test images: of the detector, and of each of its decoder layers.

    Where training had to leave determinism, scoring does: torchvision's ``roi_align`` would otherwise change to a
    version in Python, of minutes, though only its gradient depends on the order of threads.
    """
    with deterministic(not detector.nondeterministic):
        return _score(setup, detector)


def _score(setup: Setup, detector: Detector) -> Evaluation:
    data, rows, options = setup.test, setup.test.rows("test", needed=True), setup.options
    judge = Judge(data, rows)
    found: dict[str, list[Found]] = {}
    drawn: list[Detections] = []
    for detections, sizes in setup.detections(detector, data, rows):
        found.setdefault("final", []).extend(per_image(detections, sizes))
        for number, layer in enumerate(detections.layers, start=1):
            kept = suppressed(layer, options.nms)
            if number < len(detections.layers):
                found.setdefault(f"ap_layer{number}", []).extend(per_image(layer, sizes))
            found.setdefault(f"ap_layer{number}_nms", []).extend(per_image(layer, sizes, kept))
        drawn.append(detections)
    metrics, groups = judge.judge(found["final"])
    if found["final"][0].masks is not None and data.masks is not None:
        by_mask, _ = judge.judge(found["final"], "segm")
        metrics |= {f"mask_{name}": by_mask[name] for name in ("ap", "ap50")}
    curves = {}
    depth = len(drawn[0].layers)
    if depth:
        of_layers = {name: judge.judge(own)[0]["ap"] for name, own in found.items() if name != "final"}
        of_layers[f"ap_layer{depth}"] = metrics["ap"]
        metrics |= of_layers
        plain = [of_layers[f"ap_layer{number}"] for number in range(1, depth + 1)]
        with_nms = [of_layers[f"ap_layer{number}_nms"] for number in range(1, depth + 1)]
        metrics["layer_gain"] = plain[-1] - plain[0]
        metrics["nms_gain_first"], metrics["nms_gain_last"] = with_nms[0] - plain[0], with_nms[-1] - plain[-1]
        numbers = [float(number) for number in range(1, depth + 1)]
        for name, values in (("ap_of_layers", plain), ("ap_of_layers_with_nms", with_nms)):
            curves[name] = Curve(x_label="decoder layer", y_label="AP (%)", x=numbers, y=values)
    shown = setup.shown(data, rows[:1])
    evaluation = Evaluation(
        metrics=metrics,
        groups=groups,
        curves=curves,
        extra={"classes": data.classes, "area_limits": list(data.area_limits)},
        category=category(data, options),
        data={"test": {"key": data.key, "images": len(rows), "classes": len(data.classes)}},
        arrays=traces(detector, drawn, rows, setup),
    )
    evaluation.count(detector, lambda: detector.detect(shown))
    return evaluation


def category(data: DetectionSet, options: DetectionOptions) -> str:
    """Numbers compare within one set of images at one size."""
    title = data.about["title"]
    return title if data.images is not None else f"{title}, shorter side {options.short_side}"


@dataclass
class Learned:
    metrics: dict[str, float]
    curves: dict[str, Curve]


def learning(history: list[HistoryPoint], epochs: float, level: float) -> Learned:
    """Return how fast validation AP rose over `epochs`: where AP50 reached `level`, linear between validations."""
    points = [point for point in history if point.split == "validation" and "ap" in point.values]
    if not points:
        return Learned({}, {})
    x = [0.0, *(point.epoch for point in points)]
    ap50 = [0.0, *(point.values["ap50"] for point in points)]
    reached = next((i for i, value in enumerate(ap50) if value >= level), None)
    when = epochs
    if reached is not None:
        low, high = ap50[reached - 1], ap50[reached]
        when = x[reached - 1] + (x[reached] - x[reached - 1]) * (level - low) / (high - low)
    ap = [0.0, *(point.values["ap"] for point in points)]
    return Learned(
        {"epochs_to_level": when, "mean_ap": float(np.mean(ap[1:]))},
        {"ap_over_epochs": Curve(x_label="epoch", y_label="AP of the validation images (%)", x=x, y=ap)},
    )
