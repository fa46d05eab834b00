"""A run from its spec to its evaluation: stages are trained, then the test split is scored, once."""

from typing import Any

import numpy as np
import torch

from replications.layers.points.model import PointClassifier
from replications.records import Curve
from replications.tasks.point_classification.conditions import conditions, differences, voted_accuracy
from replications.tasks.point_classification.metrics import accuracies, by_class
from replications.tasks.point_classification.stages import TrainedStage
from replications.tasks.run import Context, Evaluation
from replications.training.batches import split_batch
from replications.training.stage import Batch, Workload

SHOWN = 12  # clouds of a stage that are kept for pictures
MEASURED = 32  # clouds that operators are measured on


def execute(context: Context) -> Evaluation:
    """Train the run's stages and score their test clouds."""
    evaluation = Evaluation({})
    classification = TrainedStage.of(context, "classification")
    stages = {"classification": classification}
    for role in classification.options.also_on:
        classification.open(role)  # missing data are reported before the training
    for name in classification.options.run:
        stage = stages.setdefault(name, TrainedStage.of(context, name))
        if name == "classification" and "pretraining" in stages:
            stage.model.encoder.load_state_dict(stages["pretraining"].model.encoder.state_dict())
        result = stage.fit()
        if name == "classification":
            per_step = 1000 / result.steps
            seconds = result.seconds
            evaluation.metrics["step_ms"] = per_step * seconds
            evaluation.metrics["step_ms_all"] = per_step * (seconds + stage.prepare_seconds["train"])
            _best_on_test(stage, result.history, evaluation)
        elif name == "segmentation":
            _segmentation(stage, evaluation)
        else:
            _reconstruction(stage, evaluation)
    score(classification, evaluation)
    _further(classification, evaluation)
    return evaluation


def workload(context: Context) -> Workload:
    """Return a training step of classification, and inference: logits of test clouds."""
    stage = TrainedStage.of(context, "classification")
    made = stage.stage()
    rows = np.resize(stage.test_data.rows("test"), stage.recipe.batch_size)
    test = stage.test_data.clouds(rows)
    test.pop("part", None)
    test = {name: value.to(context.device) for name, value in test.items()}
    test |= stage.precompute(test["points"])

    def forward(module: PointClassifier, clouds: Batch) -> torch.Tensor:
        return module.logits(clouds)

    return Workload(made, made.batches.batch(0), forward, test, context.device)


def score(stage: TrainedStage, evaluation: Evaluation) -> None:
    label, copy = stage.test_clouds["label"].cpu().numpy(), stage.test_copies
    predicted = stage.predict(stage.test_clouds).argmax(1)
    evaluation.metrics |= accuracies(predicted, label, copy)
    evaluation.groups["class_accuracy"] = by_class(predicted, label, copy)
    evaluation.arrays |= {"predicted": predicted.astype(np.int16), "label": label.astype(np.int16), "copy": copy}
    evaluation.extra["classes"] = stage.data.classes
    evaluation.data["clouds"] = {
        "points": stage.points,
        "train": len(stage.data.rows("train")),
        "validation": len(stage.data.rows("validation")),
        "test": len(label),
        "copies_left_out": int(copy.sum()),
    }
    evaluation.category = _category(stage)
    one = {name: value[:1] for name, value in stage.test_clouds.items()}
    evaluation.count(stage.model, lambda: stage.model.logits(one))


def _category(stage: TrainedStage) -> str:
    features = ""
    if stage.data.channels:
        features = " + normals" if stage.options.normals else " + colours"
    return f"{stage.test_data.key}: {stage.points} points{features}"


def _further(stage: TrainedStage, evaluation: Evaluation) -> None:
    """Test under the tier's and the model's own conditions, and let the model measure itself."""
    base = evaluation.metrics["accuracy"]
    found: dict[str, float] = {}
    for name, clouds, copy in conditions(stage):
        found[name] = stage.score(clouds, copy=copy)["accuracy"]
        evaluation.metrics |= {f"accuracy_{name}": found[name], f"drop_{name}": base - found[name]}
    shares = {s: found[f"keep{round(100 * s)}"] for s in sorted(stage.options.kept)} | {1.0: base}
    if len(shares) > 1:
        evaluation.curves["kept"] = Curve(
            x_label="share of the points left", y_label="accuracy (%)", x=list(shares), y=list(shares.values())
        )
    if stage.options.votes > 1:
        voted = voted_accuracy(stage)
        evaluation.metrics |= {"accuracy_voted": voted, "voting_gain": voted - base}
    if stage.options.measures:
        some = _spread(stage.test_clouds, MEASURED)
        evaluation.metrics |= differences(stage, some)
        measured = stage.model.measure(some)
        evaluation.metrics |= measured.metrics
        evaluation.groups |= measured.groups
        evaluation.curves |= measured.curves
        evaluation.arrays |= measured.arrays


def _best_on_test(stage: TrainedStage, history: list, evaluation: Evaluation) -> None:
    points = [p for p in history if p.stage == "classification" and "test_accuracy" in p.values]
    if points:
        scores = [p.values["test_accuracy"] for p in points]
        evaluation.metrics |= {"accuracy_best_on_test": max(scores), "inflation": max(scores) - scores[-1]}
        evaluation.curves["test_by_epoch"] = Curve(
            x_label="epoch", y_label="test accuracy (%)", x=[p.epoch for p in points], y=scores
        )


def _segmentation(stage: TrainedStage, evaluation: Evaluation) -> None:
    clouds = stage.test_clouds
    evaluation.metrics |= stage.score(clouds)
    some = _spread(clouds, SHOWN)
    predicted = stage.parts(stage.predict(some), some["label"].cpu().numpy())
    evaluation.arrays |= {
        "segmented_points": some["points"].cpu().numpy().astype(np.float16),
        "segmented_part": some["part"].cpu().numpy().astype(np.int16),
        "segmented_predicted": predicted.astype(np.int16),
        "segmented_label": some["label"].cpu().numpy().astype(np.int16),
    }
    evaluation.data["segmented"] = {"set": stage.data.key, "points": stage.points, "parts": len(stage.data.parts)}
    evaluation.extra["parts"] = stage.data.parts


def _reconstruction(stage: TrainedStage, evaluation: Evaluation) -> None:
    evaluation.metrics |= stage.score(stage.test_clouds)
    some = _spread(stage.test_clouds, SHOWN)
    evaluation.arrays |= {
        "original": some["points"].cpu().numpy().astype(np.float16),
        "reconstructed": stage.predict(some).astype(np.float16),
        "original_label": some["label"].cpu().numpy().astype(np.int16),
    }
    evaluation.metrics["probe_accuracy"] = _probe(stage)


@torch.no_grad()
def _probe(stage: TrainedStage) -> float:
    """Return the accuracy of a linear classifier on the encoder's features of train and test clouds."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def features(clouds: Batch) -> np.ndarray:
        parts = split_batch(clouds, stage.options.evaluation_batch)
        return torch.cat([stage.model.encode(part).float().cpu() for part in parts]).numpy()

    train, test = stage.train_clouds, stage.test_clouds
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300))
    probe.fit(features(train), train["label"].cpu().numpy())
    right = probe.predict(features(test)) == test["label"].cpu().numpy()
    return float(100 * right[~stage.test_copies].mean())


def _spread(clouds: Batch, count: int) -> dict[str, Any]:
    """Return about `count` clouds from all over the split, so that they are of many classes."""
    rows = torch.linspace(0, len(clouds["points"]) - 1, count).round().long().unique()
    return {name: value[rows.to(value.device)] for name, value in clouds.items()}
