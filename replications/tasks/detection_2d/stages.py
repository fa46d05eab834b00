"""A run's sets, detector and stage, and what the detector finds in images.

Nothing is selected on validation images; their AP over the epochs measures convergence.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torchvision.ops import batched_nms

from replications.errors import UserError
from replications.layers.detection.model import Detections, Detector
from replications.layers.detection.weights import load_initial
from replications.spec import Recipe
from replications.tasks.data import open_train_and_test
from replications.tasks.detection_2d.augment import FlipObjects, Normalise, normalised
from replications.tasks.detection_2d.data import DetectionSet, Targets, open_detection_set, training_targets
from replications.tasks.detection_2d.evaluation import Found, Judge
from replications.tasks.detection_2d.files import FileBatches, shown_batch
from replications.tasks.detection_2d.options import DetectionOptions
from replications.tasks.run import Context, chunks
from replications.training.augment import Compose
from replications.training.batches import DeviceBatches
from replications.training.determinism import scoring
from replications.training.optim import weight_decay_groups
from replications.training.stage import Batch, Batches, Stage


@dataclass
class Setup:
    """The objects that a run's spec describes."""

    context: Context
    options: DetectionOptions
    train: DetectionSet
    test: DetectionSet

    @classmethod
    def of(cls, context: Context) -> "Setup":
        """Open the sets of the run; raises UserError where they do not fit each other."""
        train, test = open_train_and_test(context, open_detection_set, alike=("classes", "category_ids"))
        return cls(context, context.options, train, test)

    @property
    def info(self) -> dict:
        """What a paper's ``build`` gets (`replications.layers.detection.model`)."""
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
            batches=self.batches(self.train.rows("train", needed=True)),
            recipe=recipe,
            validate=self.validation(),
            select_metric="ap",
            parameter_groups=self.parameter_groups if self.options.backbone_lr != 1 else None,
            nondeterministic=detector.nondeterministic,
        )

    def parameter_groups(self, module: nn.Module, recipe: Recipe) -> list[dict]:
        """Give the backbone its own learning rate; weight decay is the recipe's, as without it."""
        body = {id(parameter) for parameter in module.backbone_body().parameters()}
        exclude_vectors = bool(recipe.optimizer_options.get("filter_bias_and_bn"))
        groups = []
        for group in weight_decay_groups(module, recipe.weight_decay, exclude_vectors):
            others = [parameter for parameter in group["params"] if id(parameter) not in body]
            own = [parameter for parameter in group["params"] if id(parameter) in body]
            groups += [
                {**group, "params": others},
                {**group, "params": own, "lr": recipe.lr * self.options.backbone_lr},
            ]
        return [group for group in groups if group["params"]]

    def validation(self) -> Callable[[nn.Module], dict[str, float]]:
        rows = self.train.rows("validation", needed=True)
        judge = Judge(self.train, rows)

        def validate(module: nn.Module) -> dict[str, float]:
            found = [one for batch in self.detections(module, self.train, rows) for one in per_image(*batch)]
            metrics, _ = judge.judge(found)
            return {name: metrics[name] for name in ("ap", "ap50") if name in metrics}

        return validate

    def detections(
        self, module: Detector, data: DetectionSet, rows: np.ndarray
    ) -> Iterator[tuple[Detections, np.ndarray]]:
        """Yield (detections, sizes of the original images ``[n, 2]``) of batches of rows."""
        for part in chunks(rows, self.options.eval_batch_size):
            yield self.detect(module, self.shown(data, part)), np.asarray(data.image_size[part])

    def detect(self, module: Detector, shown: Batch) -> Detections:
        with scoring(self.context.spec.recipe.precision, self.context.device):
            return module.detect(shown)


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
