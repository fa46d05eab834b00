"""Tests of a trained classifier under other conditions: fewer points, another sampling, another order, votes."""

from collections.abc import Iterator

import numpy as np
import torch

from replications.tasks.data import ensure_alike
from replications.tasks.point_classification.data import keep
from replications.tasks.point_classification.stages import TrainedStage
from replications.training.determinism import generator_for
from replications.training.stage import Batch

VOTE_SCALE = (0.8, 1.25)
SHIFT = (1.0, -1.0, 0.5)


def conditions(stage: TrainedStage) -> Iterator[tuple[str, Batch, np.ndarray]]:
    """Yield name, clouds and copies (see `metrics.accuracies`) of each further test.

    ``keep50``: half of the points, and what is precomputed is computed of them. Where a model precomputes something,
    ``keep50_beforehand`` keeps what was computed of the whole cloud, as a released test did: it tells the model of the
    points that are gone. Data roles of the option ``also_on`` give their name: other clouds of the same classes.
    """
    test, copy = stage.test_clouds, stage.test_copies
    plain = {name: value for name, value in test.items() if name in ("points", "features", "label")}
    known = {name: value for name, value in test.items() if name not in plain}
    for share in stage.options.kept:
        fewer = keep(plain, share)
        yield f"keep{round(100 * share)}", fewer | stage.precompute(fewer["points"]), copy
        if known:
            yield f"keep{round(100 * share)}_beforehand", fewer | known, copy
    for role in stage.options.also_on:
        other = stage.open(role)
        ensure_alike(other, stage.data, ("classes",))
        yield role, stage.clouds("test", other), other.copy[other.rows("test")]
    for name, change in stage.model.conditions().items():
        yield name, change(test), copy


def voted_accuracy(stage: TrainedStage) -> float:
    """Return the accuracy of the mean probability of several scaled copies of each test cloud."""
    total = 0
    for vote in range(stage.options.votes):
        low, high = VOTE_SCALE
        scale = low + (high - low) * torch.rand(1, generator=generator_for("test", "vote", vote)).item()
        clouds = dict(stage.test_clouds)
        for name in ("points", *stage.model.moving):
            clouds[name] = clouds[name] * scale
        total = total + torch.from_numpy(stage.predict(clouds)).softmax(1)
    label = stage.test_clouds["label"].cpu()
    right = (total.argmax(1) == label).numpy()[~stage.test_copies]
    return float(100 * right.mean())


def differences(stage: TrainedStage, clouds: Batch) -> dict[str, float]:
    """Return how much class probabilities change with the order and the place of the points."""
    count = clouds["points"].shape[1]
    order = torch.randperm(count, generator=generator_for("test", "order")).to(stage.device)
    plain = {name: value for name, value in clouds.items() if name in ("points", "features", "label")}
    shuffled = {name: value if name == "label" else value[:, order] for name, value in plain.items()}
    moved = plain | {"points": plain["points"] + torch.tensor(SHIFT, device=stage.device)}
    before = _probabilities(stage, clouds)
    found = {}
    for name, changed in (("order_difference", shuffled), ("shift_difference", moved)):
        after = _probabilities(stage, changed | stage.precompute(changed["points"]))
        found[name] = float(np.abs(after - before).max())
    return found


def _probabilities(stage: TrainedStage, clouds: Batch) -> np.ndarray:
    return torch.from_numpy(stage.predict(clouds)).softmax(1).numpy()
