"""A run from its spec to its single, final evaluation: train, look at the validation images meanwhile, score the test.

The validation images choose nothing by themselves; their AP over the epochs is what convergence is judged by.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torchvision.ops import batched_nms

from replications.errors import UserError
from replications.layers.detection.model import Detections, Detector
from replications.records import Curve, HistoryPoint
from replications.spec import Recipe
from replications.tasks.detection_2d.augment import FlipObjects, Normalise, normalised
from replications.tasks.detection_2d.data import (
    TEST,
    TRAIN,
    VALIDATION,
    DetectionSet,
    Targets,
    open_detection_set,
    training_targets,
)
from replications.tasks.detection_2d.evaluation import Found, Judge
from replications.tasks.detection_2d.files import FileBatches, shown_batch
from replications.tasks.detection_2d.options import DetectionOptions
from replications.tasks.detection_2d.traces import traces
from replications.tasks.detection_2d.weights import load_initial
from replications.tasks.run import Context, Evaluation
from replications.training.augment import Compose
from replications.training.batches import DeviceBatches
from replications.training.determinism import deterministic
from replications.training.loop import count_steps
from replications.training.stage import Batch, Batches, Stage, Workload


@dataclass
class Setup:
    """What a run's spec stands for."""

    context: Context
    options: DetectionOptions
    train: DetectionSet
    test: DetectionSet

    @classmethod
    def of(cls, context: Context) -> "Setup":
        spec = context.spec
        options = context.options
        train = open_detection_set(spec.data["train"], context.data_root)
        same = spec.data["test"] == spec.data["train"]
        test = train if same else open_detection_set(spec.data["test"], context.data_root)
        if train.category_ids != test.category_ids:
            raise UserError(f"data sets '{train.key}' and '{test.key}' have different classes")
        return cls(context, options, train, test)

    @property
    def info(self) -> dict:
        """What a paper's ``build`` is told."""
        return {"num_classes": len(self.test.classes), "category_ids": tuple(self.test.category_ids)}

    def build(self) -> Detector:
        """Return the untrained detector, filled from the sets of the roles ``checkpoint`` and ``backbone``."""
        detector = self.context.build("detector", **self.info)
        load_initial(detector, self.context.spec.data, self.context.data_root)
        return detector.to(self.context.device)

    def batches(self, rows: np.ndarray) -> Batches:
        spec, device = self.context.spec, self.context.device
        if self.options.masks and self.train.masks is None:
            raise UserError(f"data set '{self.train.key}' has no masks: leave out the task option 'masks'")
        if self.train.images is None:
            return FileBatches(self.train, rows, self.options, spec.recipe.batch_size, spec.seed, device)
        targets = training_targets(self.train, rows)
        arrays = {
            "image": np.asarray(self.train.images[rows]),
            "boxes": targets.boxes,
            "labels": targets.labels,
            "valid": targets.valid,
        }
        if self.options.masks:
            arrays["masks"] = self._masks(rows, targets)
        augment = Compose([FlipObjects(self.options.flip), Normalise()])
        return DeviceBatches(arrays, spec.recipe.batch_size, spec.seed, augment, device=device)

    def _masks(self, rows: np.ndarray, targets: Targets) -> np.ndarray:
        """Return the masks of the targets, bool ``[n, T, S, S]``."""
        masks = np.stack([self.train.unpacked_masks(row) for row in rows])
        return np.take_along_axis(masks, targets.place[..., None, None], 1) & targets.valid[..., None, None]

    def shown(self, data: DetectionSet, rows: np.ndarray) -> Batch:
        """Return images at their test size."""
        if data.images is None:
            return shown_batch(data, rows, self.options, self.context.device)
        return normalised({"image": torch.from_numpy(np.asarray(data.images[rows])).to(self.context.device)})

    def stage(self, detector: Detector) -> Stage:
        recipe = self.context.spec.recipe
        return Stage(
            name="detector",
            module=detector,
            batches=self.batches(self.train.rows(TRAIN)),
            recipe=recipe,
            validate=self.validation(),
            select_metric="ap",
            parameter_groups=self.parameter_groups if self.options.backbone_lr != 1 else None,
            nondeterministic=detector.nondeterministic,
        )

    def parameter_groups(self, module: nn.Module, recipe: Recipe) -> list[dict]:
        """Give the backbone its own learning rate."""
        body = [p for p in module.backbone_body().parameters() if p.requires_grad]
        own = {id(parameter) for parameter in body}
        others = [p for p in module.parameters() if p.requires_grad and id(p) not in own]
        groups = [{"params": others}, {"params": body, "lr": recipe.lr * self.options.backbone_lr}]
        return [group for group in groups if group["params"]]

    def validation(self) -> Callable[[nn.Module], dict[str, float]]:
        rows = self.train.rows(VALIDATION)
        judge = Judge(self.train, rows)

        def validate(module: nn.Module) -> dict[str, float]:
            found = [one for batch in self.detections(module, self.train, rows) for one in per_image(*batch)]
            metrics, _ = judge.judge(found)
            return {name: metrics[name] for name in ("ap", "ap50") if name in metrics}

        return validate

    def detections(self, module: nn.Module, data: DetectionSet, rows: np.ndarray):
        """Yield (detections, sizes of the original images ``[n, 2]``) of batches of rows."""
        size = self.options.eval_batch_size
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            with torch.no_grad():
                yield module.detect(self.shown(data, part)), np.asarray(data.image_size[part])


def per_image(detections: Detections, sizes: np.ndarray, keep: list[np.ndarray] | None = None) -> list[Found]:
    """Return the detections of each image in pixels of the original, without padding; `keep` picks some of each."""
    boxes, scores, labels = (x.float().cpu().numpy() for x in (detections.boxes, detections.scores, detections.labels))
    found = []
    for row, (height, width) in enumerate(sizes):
        real = np.flatnonzero(scores[row] >= 0) if keep is None else keep[row]
        scale = np.array([width, height, width, height], np.float32)
        masks = None
        if detections.masks is not None:
            shape = (int(height), int(width))
            drawn = nn.functional.interpolate(detections.masks[row][None].float(), shape, mode="bilinear")[0] > 0
            masks = drawn.cpu().numpy()[real]
        found.append(Found(boxes[row, real] * scale, scores[row, real], labels[row, real].astype(np.int64), masks))
    return found


def suppressed(detections: Detections, threshold: float) -> list[np.ndarray]:
    """Return which detections of each image non-maximum suppression within classes keeps."""
    rows = zip(detections.boxes, detections.scores, detections.labels, strict=True)
    kept = []
    for boxes, scores, labels in rows:
        real = scores >= 0
        index = torch.arange(len(scores), device=scores.device)[real]
        kept.append(
            index[batched_nms(boxes[real].float(), scores[real].float(), labels[real], threshold)].cpu().numpy()
        )
    return kept


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
    evaluation.data["train"] = {"key": setup.train.key, "images": stage.batches.samples}
    return evaluation


def workload(context: Context) -> Workload:
    """Return a training step, and inference: the detections of test images, as one tensor."""
    setup = Setup.of(context)
    stage = setup.stage(setup.build())
    size = min(setup.options.eval_batch_size, context.spec.recipe.batch_size)
    shown = setup.shown(setup.test, np.resize(setup.test.rows(TEST), size))

    def infer(module: nn.Module, n: int) -> torch.Tensor:
        if n > size:
            raise ValueError(f"inference on at most {size} samples, not {n}")
        found = module.detect({name: tensor[:n] for name, tensor in shown.items()})
        return torch.cat([found.boxes, found.scores[..., None]], dim=-1)

    return Workload(stage, stage.batches.batch(0), infer, size, context.device)


def score(setup: Setup, detector: Detector) -> Evaluation:
    """Return the numbers of the test images: of the detector, and of each of its decoder layers.

    Where training had to leave determinism, scoring does: torchvision's ``roi_align`` would otherwise change to a
    version in Python, of minutes, though only its gradient depends on the order of threads.
    """
    with deterministic(not detector.nondeterministic):
        return _score(setup, detector)


def _score(setup: Setup, detector: Detector) -> Evaluation:
    from replications.measurement.flops import forward_flops

    data, rows, options = setup.test, setup.test.rows(TEST), setup.options
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
    return Evaluation(
        metrics=metrics,
        groups=groups,
        curves=curves,
        extra={"classes": data.classes, "area_limits": list(data.area_limits)},
        category=category(data, options),
        data={"test": {"key": data.key, "images": len(rows), "classes": len(data.classes)}},
        model_parameters=sum(parameter.numel() for parameter in detector.parameters()),
        flops_per_sample=forward_flops(lambda: detector.detect(shown)),
        arrays=traces(detector, drawn, rows, setup),
    )


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
