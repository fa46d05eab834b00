"""Averages of weights along a trajectory of stochastic gradient descent (Polyak and Juditsky, 1992)."""

import math
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from replications.errors import UserError
from replications.layers.systems.measured import Measured
from replications.papers.weight_averaging.quadratic import RATE, Iterate, descend, loss, stationary_loss
from replications.spec import Recipe
from replications.training.batches import DeviceBatches
from replications.training.determinism import seed_everything
from replications.training.ema import AveragedModule
from replications.training.loop import train
from replications.training.stage import Batch, Stage

SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda t: RATE,
    "cosine": lambda t: RATE * (1 + math.cos(math.pi * t)) / 2,
}
MOST_TRAINED = 200  # steps of the network
DRAWN = 400  # points of a trajectory that the picture shows
CATEGORY = "averages on a quadratic"


def exponential(steps: int, replicas: int, *, decay: float, schedule: str = "constant") -> Measured:
    """Keep the suite's moving average on a noisy quadratic, and compare its loss with the last iterate's.

    The statement: the average is the closed form a^T w_0 + (1 - a) sum of a^(T - t) w_t. Raises UserError for a decay
    that is not between 0 and 1, for no steps or replicas, and for an unknown schedule.
    """
    if not 0 < decay < 1:
        raise UserError(f"decay {decay}: give a number between 0 and 1")
    if min(steps, replicas) < 1:
        raise UserError(f"steps {steps}, replicas {replicas}: give 1 or more of each")
    if schedule not in SCHEDULES:
        raise UserError(f"schedule '{schedule}': give one of {', '.join(SCHEDULES)}")
    iterate = Iterate(replicas)
    averaged = AveragedModule(iterate, decay)
    path, averages = [iterate.x.detach().clone()], []

    def keep() -> None:
        path.append(iterate.x.detach().clone())
        averages.append(averaged.module.x[0, :2].clone())

    descend(iterate, steps, SCHEDULES[schedule], (averaged.update, keep))
    found = averaged.module.x
    metrics = {"loss_ratio": loss(found) / loss(iterate.x)}
    if schedule == "constant":
        metrics["theory_ratio"] = loss(found) / stationary_loss(decay)
    drawn = slice(-DRAWN, None)
    arrays = {
        "path": torch.stack(path)[drawn, 0, :2].float().numpy(),
        "average": torch.stack(averages)[drawn].float().numpy(),
    }
    return Measured(CATEGORY, found.numpy(), closed_form(path, decay).numpy(), metrics, arrays=arrays)


def closed_form(path: list[Tensor], decay: float) -> Tensor:
    """Return the weighted sum of all iterates that the moving average is."""
    steps = len(path) - 1
    total = decay**steps * path[0]
    for step in range(1, steps + 1):
        total = total + (1 - decay) * decay ** (steps - step) * path[step]
    return total


def tail(steps: int, replicas: int) -> Measured:
    """Average the last half of the iterates with equal weights, as the paper does with all of them, by a running mean.

    The statement: the running mean is the mean.
    """
    iterate, mean, kept = Iterate(replicas), None, []

    def keep() -> None:
        nonlocal mean
        kept.append(iterate.x.detach().clone())
        count = len(kept) - steps // 2
        if count > 0:
            mean = kept[-1].clone() if count == 1 else mean + (kept[-1] - mean) / count

    descend(iterate, steps, SCHEDULES["constant"], (keep,))
    stated = torch.stack(kept[steps // 2 :]).mean(0)
    return Measured(CATEGORY, mean.numpy(), stated.numpy(), {"loss_ratio": loss(mean) / loss(iterate.x)})


class Perceptron(nn.Module):
    """A classifier whose training draws random numbers (dropout) and moves buffers (BatchNorm).

    `path` keeps weights and buffers as they are before each step.
    """

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3))
        self.path: list[Tensor] = []

    def on_step(self, step: int, total_steps: int) -> None:
        self.path.append(torch.cat([value.double().flatten() for value in self.state_dict().values()]))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return {"loss": F.cross_entropy(self.net(batch["x"]), batch["label"])}


def trajectory(steps: int) -> Measured:
    """Train a network by the suite's loop with a moving average and without one.

    The statement: weights and buffers before each step are the same bits.
    """
    seed = int(torch.randint(2**31, ()))
    found, stated = (_path(seed, min(steps, MOST_TRAINED), ema) for ema in (0.99, 0.0))
    changed = float((found != stated).sum())
    return Measured("trained weights", found, stated, {"bits_changed": changed})


def _path(seed: int, steps: int, ema: float) -> np.ndarray:
    """Return the path ``[steps, values]`` of a training."""
    seed_everything(seed, "weights")
    module = Perceptron()
    draws = torch.Generator().manual_seed(seed)
    data = {"x": torch.randn(256, 8, generator=draws), "label": torch.randint(3, (256,), generator=draws)}
    recipe = Recipe(batch_size=32, steps=steps, lr=0.1, ema=ema)
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage("train", module, DeviceBatches(data, 32, seed), recipe)
        train(stage, work=Path(folder), seed=seed, device="cpu")
    return torch.stack(module.path).numpy()
