"""A stage of a run: its data, its model, how it is trained and validated."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from replications.errors import RunFailure, UserError
from replications.layers.points.chamfer import chamfer_distance
from replications.layers.points.model import Autoencoder, PartSegmenter, PointModel
from replications.spec import Recipe
from replications.tasks.data import ensure_alike, set_key
from replications.tasks.point_classification.augment import PointAugment
from replications.tasks.point_classification.data import PointSet, open_points
from replications.tasks.point_classification.metrics import accuracies, part_scores
from replications.tasks.point_classification.options import PointOptions
from replications.tasks.run import Context, changed_recipe
from replications.training.batches import DeviceBatches, split_batch
from replications.training.determinism import scoring
from replications.training.stage import Batch, Stage, StageResult

SELECT = {"classification": "accuracy", "segmentation": "part_miou", "pretraining": "chamfer_distance"}


@dataclass
class TrainedStage:
    """A stage of a run. `fit` trains its model; `predict` and the scores read it."""

    context: Context
    options: PointOptions
    name: str
    prepare_seconds: dict[str, float] = field(default_factory=dict)  # of the last time, by split

    @classmethod
    def of(cls, context: Context, name: str) -> "TrainedStage":
        return cls(context, context.options, name)

    @property
    def device(self) -> torch.device:
        return self.context.device

    @cached_property
    def data(self) -> PointSet:
        """The set that is learned from; raises UserError where it does not fit the stage."""
        found = self.open("parts" if self._has_own_parts else "train")
        if self.name == "segmentation" and found.part is None:
            raise UserError(f"data set '{found.key}' has no parts: segmentation needs a data role 'parts' that has")
        return found

    @cached_property
    def test_data(self) -> PointSet:
        """The set whose test split is scored: that of the role ``test``, but for parts that have their own set."""
        if self._has_own_parts:
            return self.data
        found = self.open("test")
        ensure_alike(self.data, found, ("classes", "parts", "channels"))
        return found

    @property
    def _has_own_parts(self) -> bool:
        return self.name == "segmentation" and "parts" in self.context.spec.data

    @property
    def points(self) -> int:
        """Points of a cloud."""
        return self.options.stages[self.name].points or self.options.points

    def open(self, role: str) -> PointSet:
        key = set_key(self.context, role)
        return open_points(key, self.context.data_root, self.points, self.options.normals)

    @property
    def info(self) -> dict:
        """What a paper's ``build`` gets (`replications.layers.points.model`)."""
        return {
            "num_classes": len(self.data.classes),
            "channels": self.data.channels,
            "points": self.points,
            "num_parts": len(self.data.parts) if self.name == "segmentation" else None,
            "reconstruct": self.name == "pretraining",
        }

    @cached_property
    def model(self) -> PointModel:
        model = self.context.build(self.name, **self.info)
        wanted = {"segmentation": PartSegmenter, "pretraining": Autoencoder}.get(self.name)
        if wanted and not isinstance(model, wanted):
            raise UserError(f"{self.context.spec.address} has no stage '{self.name}': leave it out of 'also'")
        return model.to(self.device)

    @property
    def recipe(self) -> Recipe:
        own = self.options.stages[self.name].model_dump(exclude_none=True, exclude={"points"})
        return changed_recipe(self.context.spec.recipe, own, f"stage '{self.name}'")

    def clouds(self, split: str, points: PointSet | None = None) -> Batch:
        """Return the clouds of a split with what the model precomputes of them, on the device."""
        data = points or self.data
        clouds = data.clouds(data.rows(split))
        if self.name != "segmentation":
            clouds.pop("part", None)
        clouds = {name: value.to(self.device) for name, value in clouds.items()}
        started = time.perf_counter()
        known = self.precompute(clouds["points"])
        for value in known.values():
            value.flatten()[0].item()  # waits for an accelerator
        self.prepare_seconds[split] = time.perf_counter() - started if known else 0.0
        return clouds | known

    @torch.no_grad()
    def precompute(self, points: Tensor) -> Batch:
        parts = [self.model.precompute(part) for part in points.split(self.options.evaluation_batch)]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    @cached_property
    def train_clouds(self) -> Batch:
        return self.clouds("train")

    @cached_property
    def validation_clouds(self) -> Batch:
        return self.clouds("validation")

    @cached_property
    def test_clouds(self) -> Batch:
        return self.clouds("test", self.test_data)

    def stage(self) -> Stage:
        moving = self.model.moving
        augment = PointAugment(self.options.augment, self.points, moving)
        batches = DeviceBatches(
            self.train_clouds, self.recipe.batch_size, self.context.spec.seed, augment, device=self.device
        )
        select = SELECT[self.name]
        return Stage(
            self.name,
            self.model,
            batches,
            self.recipe,
            validate=self._validation(),
            select_metric=select,
            higher_is_better=select != "chamfer_distance",
        )

    def _validation(self) -> Callable[[PointModel], dict[str, float]]:
        def validate(model: PointModel) -> dict[str, float]:
            found = self.score(self.validation_clouds, model)
            kept = {SELECT[self.name]: found[SELECT[self.name]]}
            if self.options.best_on_test and self.name == "classification":
                # Written down beside the validation score and never looked at before the end: see `inflation`.
                kept["test_accuracy"] = self.score(self.test_clouds, model, self.test_copies)["accuracy"]
            return kept

        return validate

    @property
    def test_copies(self) -> np.ndarray:
        return self.test_data.copy[self.test_data.rows("test")]

    def fit(self) -> StageResult:
        result = self.context.train(self.stage())
        self.model.eval()
        return result

    def predict(self, clouds: Batch, model: PointModel | None = None) -> np.ndarray:
        """Return class logits [S, classes], part logits [S, P, parts] or reconstructions [S, M, 3] of clouds."""
        model = model or self.model
        outputs = []
        with scoring(self.recipe.precision, self.device):
            for batch in split_batch(clouds, self.options.evaluation_batch):
                if self.name == "classification":
                    output = model.logits(batch)
                elif self.name == "segmentation":
                    output = model.part_logits(batch)
                else:
                    output = model.reconstruct(model.encode(batch))
                outputs.append(output.float().cpu())
        found = torch.cat(outputs).numpy()
        if not np.isfinite(found).all():
            raise RunFailure("diverged", f"stage '{self.name}': an output is not finite")
        return found

    def score(self, clouds: Batch, model: PointModel | None = None, copy: np.ndarray | None = None) -> dict[str, float]:
        """Return the stage's metrics on some clouds."""
        found = self.predict(clouds, model)
        if self.name == "pretraining":
            return {"chamfer_distance": 1e3 * self.chamfer(found, clouds["points"])}
        label = clouds["label"].cpu().numpy()
        if self.name == "classification":
            return accuracies(found.argmax(1), label, np.zeros(len(label), bool) if copy is None else copy)
        return part_scores(
            self.parts(found, label), clouds["part"].cpu().numpy(), label, self.data.class_parts, self.data.pooled
        )

    def parts(self, logits: np.ndarray, label: np.ndarray) -> np.ndarray:
        """Return the likeliest part of each point [S, P], among those of the cloud's class."""
        allowed = np.full((len(self.data.classes), logits.shape[-1]), -np.inf, np.float32)
        for row, numbers in enumerate(self.data.class_parts):
            allowed[row, numbers] = 0
        return (logits + allowed[label][:, None]).argmax(-1)

    def chamfer(self, reconstructed: np.ndarray, points: Tensor) -> float:
        pairs = zip(
            torch.from_numpy(reconstructed).split(self.options.evaluation_batch),
            points.cpu().split(self.options.evaluation_batch),
            strict=True,
        )
        return float(torch.cat([chamfer_distance(a, b) for a, b in pairs]).mean())
