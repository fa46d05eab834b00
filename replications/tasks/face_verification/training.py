"""Training one recogniser: its data split, its stage, its validation."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import nn

from replications.errors import UserError
from replications.layers.faces.model import FaceModel
from replications.layers.faces.verifiers.base import CosineVerifier, Verifier
from replications.tasks.data import open_train_and_test
from replications.tasks.face_verification.data import (
    FaceSet,
    Split,
    ensure_disjoint,
    open_faces,
    split_identities,
)
from replications.tasks.face_verification.embedding import Embedder, resizing
from replications.tasks.face_verification.metrics import auc, best_threshold
from replications.tasks.face_verification.options import FaceOptions
from replications.tasks.run import Context, chunks
from replications.training.augment import Compose, HorizontalFlip, ToFloat
from replications.training.stage import Batches, Stage
from replications.training.workers import resident_or_read

SCORE_CHUNK = 1024


def score_pairs(verifier: Verifier, features: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Return the scores of pairs of rows of `features`, a chunk at a time: long features are doubled in a score."""
    parts = chunks(pairs, SCORE_CHUNK)
    return np.concatenate([verifier.score(features[part[:, 0]], features[part[:, 1]]) for part in parts])


def stage_name(fold: int | None) -> str:
    """Name the stage that trains for all folds, or for one of them."""
    return "train" if fold is None else f"fold{fold}"


@dataclass
class Setup:
    """What all recognisers of a run share."""

    context: Context
    options: FaceOptions
    train: FaceSet
    test: FaceSet

    @classmethod
    def of(cls, context: Context) -> "Setup":
        """Open the sets of the run's spec; raises UserError where they do not fit the protocol."""
        options = context.options
        train, test = open_train_and_test(context, open_faces)
        if not len(test.pairs):
            raise UserError(f"data set '{test.key}' has no pairs to test on")
        if options.protocol == "no_outside_data" and train.key != test.key:
            raise UserError(f"protocol 'no_outside_data' trains on '{test.key}' itself, not on '{train.key}'")
        return cls(context, options, train, test)

    @property
    def precision(self) -> str:
        return self.context.spec.recipe.precision

    @cached_property
    def embedder(self) -> Embedder:
        return self.embedder_for(self.test)

    def embedder_for(self, faces: FaceSet) -> Embedder:
        resize = resizing(faces.size, self.options.resolution)
        return Embedder(resize, self.options.flip, self.precision, self.context.device)

    def embed(
        self, model: FaceModel, faces: FaceSet, rows: np.ndarray, label: str, mirror: bool = True
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return embeddings and features of rows of a set; see `Embedder.embed_rows`."""
        embedder = self.embedder_for(faces)
        return embedder.embed_rows(model, faces.images, rows, self.options.embed_batch_size, label, mirror)

    def candidates(self, fold: int | None) -> np.ndarray:
        """Return the rows that a recogniser may learn from: of fold 0, or of the nine folds but `fold`."""
        if fold is None:
            rows = np.flatnonzero(self.train.fold == 0)
        else:
            rows = np.flatnonzero((self.train.fold != 0) & (self.train.fold != fold))
        if not len(rows):
            raise UserError(f"data set '{self.train.key}' has no images to train on in this protocol")
        return rows

    def tested(self, fold: int | None) -> np.ndarray:
        """Return which pairs (bool ``[P]``) a recogniser is tested on: all, or those of `fold`."""
        return np.ones(len(self.test.pairs), bool) if fold is None else self.test.pair_fold == fold


@dataclass
class Recogniser:
    """A recogniser of a run, for all folds (`fold` None) or for one. Its model is trained in place."""

    setup: Setup
    fold: int | None
    split: Split
    model: FaceModel

    @classmethod
    def of(cls, setup: Setup, fold: int | None) -> "Recogniser":
        spec, rows = setup.context.spec, setup.candidates(fold)
        split = split_identities(setup.train.identity, rows, setup.options, spec.seed)
        tested = np.unique(setup.test.pairs[setup.tested(fold)])
        learned = np.concatenate([split.train_rows, split.verifier_rows, split.validation_rows])
        ensure_disjoint(setup.train, setup.test, learned, tested)
        info = {"num_identities": split.num_identities, "image_size": setup.options.resolution}
        model = setup.context.build(stage_name(fold), **info).to(setup.context.device)
        return cls(setup, fold, split, model)

    @property
    def name(self) -> str:
        return stage_name(self.fold)

    def batches(self) -> Batches:
        """Return the training batches, averaged down, mirrored at random and in [-1, 1]."""
        setup, faces = self.setup, self.setup.train
        resize = resizing(faces.size, setup.options.resolution)
        label = np.zeros(len(faces.images), np.int64)
        label[self.split.train_rows] = self.split.label
        augment = Compose([*resize, HorizontalFlip(), ToFloat()])
        spec = setup.context.spec
        return resident_or_read(
            {"image": faces.images, "label": label},
            spec.recipe.batch_size,
            spec.seed,
            augment,
            rows=self.split.train_rows,
            device=setup.context.device,
        )

    def validation(self) -> Callable[[nn.Module], dict[str, float]] | None:
        """Return a function that scores pairs of held-out training identities by the cosine; None without any."""
        split = self.split
        if not len(split.validation_pairs):
            return None

        def validate(module: nn.Module) -> dict[str, float]:
            _, features = self.setup.embed(module, self.setup.train, split.validation_rows, "validate")
            score = score_pairs(CosineVerifier(), features, split.validation_pairs)
            threshold = best_threshold(score, split.validation_same)
            accuracy = float(((score > threshold) == split.validation_same).mean())
            return {"accuracy": 100.0 * accuracy, "auc": auc(score, split.validation_same)}

        return validate

    def stage(self) -> Stage:
        return Stage(
            name=self.name,
            module=self.model,
            batches=self.batches(),
            recipe=self.setup.context.spec.recipe,
            validate=self.validation(),
            select_metric="auc" if self.split.validation_pairs.size else None,
        )

    def fit(self) -> None:
        """Train the model, unless it has nothing to train (eigenfaces)."""
        if any(parameter.requires_grad for parameter in self.model.parameters()):
            self.setup.context.train(self.stage())
        self.model.eval()
