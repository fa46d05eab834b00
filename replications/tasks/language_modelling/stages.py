"""The stages of a run: training data and scoring."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from replications.errors import UserError
from replications.layers.text.model import SequenceModel
from replications.spec import Recipe
from replications.tasks.data import set_key
from replications.tasks.language_modelling.data import (
    BYTES,
    AskedTargets,
    MaskedBatches,
    Sequences,
    Text,
    WindowBatches,
    open_sequences,
    open_text,
)
from replications.tasks.language_modelling.evaluation import (
    asked_tokens,
    bits_per_byte,
    class_accuracy,
    class_batch,
    masked_bytes,
    scored_bytes,
)
from replications.tasks.language_modelling.options import LanguageOptions, StageOptions
from replications.tasks.run import Context, changed_recipe, number_name
from replications.training.batches import DeviceBatches
from replications.training.determinism import scoring
from replications.training.loop import count_steps
from replications.training.stage import Batches, Stage, StageResult

TEXTS = ("text", "timed", "pace", "masked")
CLASSES = ("listops", "reviews")
PACE_STEPS = 12


@dataclass
class TrainedStage:
    """A stage of a run. `fit` trains its model, `score` gives the test metrics.

    `step_seconds` is what a step takes: the stage ``timed`` has as many steps as fit into its seconds. ``pace`` is that
    stage cut to a few steps, which tell how long one takes.
    """

    context: Context
    options: LanguageOptions
    name: str
    step_seconds: float | None = None

    @classmethod
    def of(cls, context: Context, name: str, step_seconds: float | None = None) -> "TrainedStage":
        return cls(context, context.options, name, step_seconds)

    @classmethod
    def pace(cls, context: Context) -> "TrainedStage | None":
        """Return the stage to be trained for the pace of ``timed``; None where the text stage tells it."""
        timed, text = (context.options.stages.get(name) for name in ("timed", "text"))
        if timed is None or (timed.length, timed.batch_size) == (text.length, text.batch_size):
            return None
        return cls.of(context, "pace")

    @property
    def own(self) -> StageOptions:
        return self.options.stages["timed" if self.name == "pace" else self.name]

    @property
    def is_text(self) -> bool:
        return self.name in TEXTS

    @cached_property
    def length(self) -> int:
        """Length in tokens; of sequences with asked tokens it is the set's own."""
        if self.is_text or self.name in CLASSES:
            length = self.own.length or self.options.length
            return length if self.is_text else min(length, self.data.tokens.shape[1])
        return self.data.tokens.shape[1] - 1

    @cached_property
    def data(self) -> Text | Sequences:
        """The prepared set of the stage's role; raises UserError where it does not fit the stage."""
        role = "text" if self.is_text else self.name
        key = set_key(self.context, role)
        if self.is_text:
            return open_text(key, self.context.data_root)
        data = open_sequences(key, self.context.data_root)
        if (data.label is None) == (self.name in CLASSES):
            raise UserError(f"data set '{key}' does not fit the stage '{self.name}'")
        return data

    @cached_property
    def model(self) -> SequenceModel:
        model = self.context.build(
            self.name,
            vocabulary=BYTES + 1 if self.is_text else self.data.vocabulary,
            length=self.length,
            causal=self.name not in ("masked", *CLASSES),
            num_classes=self.data.classes if self.name in CLASSES else None,
        )
        return model.to(self.context.device)

    @property
    def recipe(self) -> Recipe:
        changes = self.own.model_dump(exclude_none=True, exclude={"length", "seconds"})
        if self.name == "pace":
            changes["steps"] = PACE_STEPS
        elif self.own.seconds and self.step_seconds:
            changes["steps"] = max(1, round(self.own.seconds / self.step_seconds))
        return changed_recipe(self.context.spec.recipe, changes, f"stage '{self.name}'")

    def batches(self) -> Batches:
        size, seed, device = self.recipe.batch_size, self.context.spec.seed, self.context.device
        if self.is_text:
            arguments = (self.data.part("train"), self.length, size, seed, device)
            if self.name == "masked":
                return MaskedBatches(*arguments, fraction=self.options.masked_fraction)
            return WindowBatches(*arguments)
        rows = self.data.rows("train")
        if self.name in CLASSES:
            return DeviceBatches(class_batch(self.data, rows, self.length), size, seed, device=device)
        arrays = {"tokens": self.data.tokens, "asked": self.data.asked}
        return DeviceBatches(arrays, size, seed, AskedTargets(), rows=rows, device=device)

    def stage(self) -> Stage:
        recipe, batches = self.recipe, self.batches()
        if self.name == "text":
            steps, epoch = count_steps(recipe, batches.samples), batches.samples // recipe.batch_size
            recipe = recipe.model_copy(update={"validate_every": steps / self.options.validations / epoch})
        return Stage(self.name, self.model, batches, recipe, validate=self._validation())

    def _validation(self) -> Callable[[SequenceModel], dict[str, float]] | None:
        if not self.is_text and not len(self.data.rows("validation")):
            return None
        return lambda model: self._score(model, "validation", ())

    def fit(self) -> StageResult:
        for split in ("validation", "test") if self.is_text else ():
            self._scored_bytes(split)  # too short a text is refused before the training
        result = self.context.train(self.stage())
        self.model.eval()
        return result

    def score(self) -> dict[str, float]:
        """Score the test part, once."""
        return self._score(self.model, "test", self.options.transfer if self.name == "text" else ())

    def _score(self, model: SequenceModel, split: str, transfer: tuple[float, ...]) -> dict[str, float]:
        with scoring(self.recipe.precision, self.context.device):
            return self._metrics(model, split, transfer)

    def _scored_bytes(self, split: str) -> int:
        factors = self.options.transfer if split == "test" and self.name == "text" else ()
        most = self.options.test_bytes if split == "test" else self.options.validation_bytes
        lengths = [self.length, *(int(self.length * factor) for factor in factors)]
        return scored_bytes(self.data.part(split), lengths, most)

    def _metrics(self, model: SequenceModel, split: str, transfer: tuple[float, ...]) -> dict[str, float]:
        size = self.options.evaluation_batch_bytes
        if not self.is_text:
            if self.name in CLASSES:
                return {f"{self.name}_accuracy": class_accuracy(model, self.data, split, self.length, size)}
            bits, accuracy = asked_tokens(model, self.data, split, size)
            return {f"{self.name}_accuracy": accuracy, f"{self.name}_bits": bits}
        text: np.ndarray = self.data.part(split)
        lengths = {factor: int(self.length * factor) for factor in transfer}
        count = self._scored_bytes(split)
        if self.name == "masked":
            return masked_bytes(model, text, self.length, count, self.options.masked_fraction, size)
        whole = bits_per_byte(model, text, self.length, count, size)
        if self.name == "timed":
            return {"bits_per_byte_equal_time": whole}
        metrics = {"bits_per_byte": whole}
        for factor, length in lengths.items():
            found = bits_per_byte(model, text, length, count, size)
            metrics[f"bits_per_byte_x{number_name(factor)}"] = found
            metrics[f"transfer_x{number_name(factor)}"] = found - metrics["bits_per_byte"]
        return metrics
