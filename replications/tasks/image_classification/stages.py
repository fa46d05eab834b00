"""The stages of a run: a pretraining, a classifier for each fraction of the labels, a linear probe."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from replications.errors import RunFailure
from replications.layers.images.model import Classifier, Pretrainer, top_classes
from replications.layers.images.probes import LinearProbe
from replications.spec import Recipe
from replications.tasks.data import set_key
from replications.tasks.image_classification.data import ImageSet, fraction_rows, open_images, transforms
from replications.tasks.image_classification.options import Augmentation, ImageOptions
from replications.tasks.image_classification.rescore import percent_right
from replications.tasks.run import Context, changed_recipe, chunks, number_name
from replications.training.augment import CentreCrop, Compose, ToFloat
from replications.training.batches import DeviceBatches
from replications.training.determinism import generator_for, scoring
from replications.training.loop import count_steps
from replications.training.stage import Batches, Stage
from replications.training.workers import resident_or_read


def percent_name(fraction: float) -> str:
    """Write a fraction as in a metric's name: 0.1 as "10pct", 0.005 as "0p5pct"."""
    return f"{number_name(100 * fraction)}pct"


@dataclass(frozen=True)
class ImageRun:
    """A run's data and options, and the stages made of them.

    `to_float` is how test images are normalised, where not as the run's own training images: in [-1, 1].
    """

    context: Context
    options: ImageOptions
    images: ImageSet
    to_float: ToFloat | None = None

    @classmethod
    def of(cls, context: Context) -> "ImageRun":
        """Open the run's set; raises UserError where the tier names none or it does not fit the options."""
        options = context.options
        images = open_images(set_key(context, "images"), context.data_root, options.classes)
        for split in ("train", "test"):
            images.rows(split, needed=True)
        CentreCrop(images.size, options.image_size)  # raises where images are too small
        return cls(context, options, images)

    @property
    def device(self) -> torch.device:
        return self.context.device

    @property
    def seed(self) -> int:
        return self.context.spec.seed

    @cached_property
    def test_rows(self) -> np.ndarray:
        """Return the rows that a run is scored on; raises UserError where there are none."""
        return self.images.rows(self.options.scored, needed=True)

    def labels(self, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(self.images.label[rows].astype(np.int64)).to(self.device)

    def build(self, name: str) -> Classifier:
        return self.context.build(name, num_classes=self.images.num_classes, image_size=self.options.image_size)

    def build_pretrainer(self) -> Pretrainer | None:
        """Return the method's pretrainer, freshly built; None for one that only learns from labels."""
        pretrainer = self.build("pretrain").pretrainer()
        return None if pretrainer is None else pretrainer.to(self.device)

    def transforms(self, wanted: Augmentation) -> Compose:
        return transforms(wanted, self.images.size, self.options.image_size, self.images.num_classes)

    def batches(self, rows: np.ndarray, augment: Augmentation, batch_size: int) -> Batches:
        arrays = {"image": self.images.images, "label": self.images.label.astype(np.int64)}
        augmented = self.transforms(augment)
        return resident_or_read(arrays, batch_size, self.seed, augmented, rows=rows, device=self.device)

    def pretraining(self, pretrainer: Pretrainer) -> Stage:
        """Return the stage that trains a pretrainer on all training images; their labels are not looked at."""
        own = self.options.pretrain
        recipe = changed_recipe(self.context.spec.recipe, own.recipe, "task option 'pretrain'")
        augment = own.augmentation or self.options.augmentation
        augment = augment.model_copy(update={"mixup": 0.0, "cutmix": 0.0, "smoothing": 0.0})
        rows = self.images.rows("train")
        source = self.batches(rows, augment, recipe.batch_size)
        return Stage("pretrain", pretrainer, source, recipe)

    def classification(self, classifier: Classifier, fraction: float, pretrained: bool) -> Stage:
        """Return the stage that trains a classifier on a fraction of the labels."""
        own = self.options.finetune
        recipe, augment = self.context.spec.recipe, self.options.augmentation
        if pretrained:
            recipe = changed_recipe(recipe, own.recipe, "task option 'finetune'")
            augment = own.augmentation or augment
        rows = fraction_rows(self.images, fraction, self.seed)
        recipe = self._shortened(recipe, fraction, len(rows))
        source = self.batches(rows, augment, recipe.batch_size)
        return Stage(
            f"classify_{percent_name(fraction)}",
            classifier.to(self.device),
            source,
            recipe,
            validate=self._validation(recipe),
            select_metric="accuracy",
        )

    def _shortened(self, recipe: Recipe, fraction: float, samples: int) -> Recipe:
        factor = self.options.lengthen * fraction**self.options.fraction_power
        if factor == 1.0:
            return recipe
        whole = count_steps(recipe, len(self.images.rows("train")))
        changes = {"steps": max(1, round(whole * factor)), "epochs": None}
        if fraction < 1.0:
            changes |= {"validate_every": None, "select": "last"}
        if samples < recipe.batch_size:
            changes |= {"batch_size": samples, "accumulate": 1}
        return recipe.model_copy(update=changes)

    def _validation(self, recipe: Recipe) -> Callable[[nn.Module], dict[str, float]] | None:
        rows = self.images.rows("validation")
        if not len(rows):
            return None

        def validate(classifier: nn.Module) -> dict[str, float]:
            told = self.told(classifier, rows, recipe, 1)[:, 0]
            return {"accuracy": percent_right(told, self.images.label[rows])}

        return validate

    def told(self, classifier: Classifier, rows: np.ndarray, recipe: Recipe, count: int) -> np.ndarray:
        """Return the `count` likeliest classes of rows, best first: ``[n, count]``."""
        with scoring(recipe.precision, self.device):
            parts = chunks(rows, self.options.evaluation_batch_size)
            return np.concatenate([top_classes(classifier, self.plain(part), count).cpu().numpy() for part in parts])

    def raw(self, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(self.images.images[rows])).to(self.device)

    def plain(self, rows: np.ndarray) -> Tensor:
        """Return rows as a network sees them at test time: the middle, float ``[n, 3, image_size, image_size]``.

        Values lie in [-1, 1], unless `to_float` normalises otherwise.
        """
        middle = CentreCrop(self.images.size, self.options.image_size)
        return (self.to_float or ToFloat())(middle(self.raw(rows)))

    def viewed(self, rows: np.ndarray, view: int, start: int) -> Tensor:
        """Return the random views number `view` of rows, of which the first is sample `start`."""
        augment = self.transforms(self.options.probe.augmentation)
        draws = augment.draw(len(rows), generator_for(self.seed + 1000 * view, "view", start))
        batch = {"image": self.raw(rows)}
        return augment.apply(batch, {name: draw.to(self.device) for name, draw in draws.items()})["image"]

    @torch.no_grad()
    def features(self, network: Classifier | Pretrainer, rows: np.ndarray, view: int = 0) -> Tensor:
        """Return float32 features ``[n, dim]`` of rows as they are, or of their random view number `view` from 1 on.

        Raises RunFailure where one is not finite.
        """
        network.eval()
        found = []
        for part in chunks(rows, self.options.evaluation_batch_size):
            start = sum(map(len, found))
            image = self.viewed(part, view, start) if view else self.plain(part)
            found.append(network.features(image).float())
        joined = torch.cat(found)
        if not bool(torch.isfinite(joined).all()):
            raise RunFailure("diverged", "a feature is not finite")
        return joined

    def probing(self, network: Classifier | Pretrainer, train_features: Tensor) -> Stage:
        """Return the stage that trains a linear probe on features of the training images and of further views."""
        own, rows = self.options.probe, self.images.rows("train")
        recipe = changed_recipe(self.context.spec.recipe, own.recipe, "task option 'probe'")
        views = [train_features, *(self.features(network, rows, view) for view in range(1, own.views))]
        arrays = {"feature": torch.cat(views), "label": self.labels(rows).repeat(own.views)}
        torch.manual_seed(self.seed)
        probe = LinearProbe(train_features.shape[1], self.images.num_classes).to(self.device)
        source = DeviceBatches(arrays, min(recipe.batch_size, len(rows)), self.seed, device=self.device)
        recipe = recipe.model_copy(update={"batch_size": source.batch_size})
        return Stage("linear_probe", probe, source, recipe)
