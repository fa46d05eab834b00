"""Small stages for the training tests: a few hundred coloured squares and models of a thousand weights."""

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from replications.spec import Recipe
from replications.training.augment import Compose, HorizontalFlip, RandomCrop, ToFloat
from replications.training.batches import DeviceBatches
from replications.training.determinism import seed_everything, set_threads
from replications.training.loop import train
from replications.training.stage import Batch, Stage, StageResult, Turn

SAMPLES, CLASSES, SIZE, BATCH = 96, 4, 8, 16
AUGMENT = Compose([RandomCrop(2), HorizontalFlip(), ToFloat()])


class Classifier(nn.Module):
    def __init__(self, *layers: nn.Module):
        super().__init__()
        self.net = nn.Sequential(*layers)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        logits = self.net(batch["image"])
        accuracy = (logits.argmax(1) == batch["label"]).float().mean()
        return {"loss": F.cross_entropy(logits, batch["label"]), "accuracy": accuracy}


def cnn() -> Classifier:
    """Everything with state: dropout (random generator), BatchNorm (buffers)."""
    head = (nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.3), nn.Linear(32, CLASSES))
    return Classifier(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), *head)


def mlp() -> Classifier:
    """Nothing that depends on how a batch is split."""
    return Classifier(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 16), nn.Tanh(), nn.Linear(16, CLASSES))


def arrays() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(CLASSES, (SAMPLES,), generator=generator)
    noise = torch.rand(SAMPLES, SIZE, SIZE, 3, generator=generator)
    return {"image": (noise * 120 + label[:, None, None, None] * 40).to(torch.uint8), "label": label}


def validation_loss(module: nn.Module) -> dict[str, float]:
    data = arrays()
    return {"loss": float(module({"image": ToFloat()(data["image"]), "label": data["label"]})["loss"])}


def make_stage(build: Callable[[], nn.Module] = cnn, batches=None, validate=validation_loss, **recipe) -> Stage:
    """A stage of 6 steps an epoch; its weights are the same at each call."""
    seed_everything(0, "weights")
    recipe = Recipe(**{"batch_size": BATCH, "steps": 12, "lr": 0.05, **recipe})
    batches = batches or DeviceBatches(arrays(), BATCH, seed=0, augment=AUGMENT)
    return Stage("train", build(), batches, recipe, validate, select_metric="loss", higher_is_better=False)


def run_stage(stage: Stage, work: Path, **options) -> StageResult:
    return train(stage, work=work, seed=0, device="cpu", **options)


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def assert_same_bits(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), f"{name} differs by {(one[name] - other[name]).abs().max()}"


def history_of(result: StageResult) -> list[dict]:
    return [point.model_dump() for point in result.history]


class SignalAt:
    """Batches that send this process a signal while step `step` asks for its batch."""

    def __init__(self, batches: DeviceBatches, step: int, number: signal.Signals):
        self.inner, self.step, self.number = batches, step, number
        self.samples, self.batch_size = batches.samples, batches.batch_size

    def batch(self, step: int, part: int = 0, parts: int = 1) -> Batch:
        if step == self.step:
            os.kill(os.getpid(), self.number)
        return self.inner.batch(step, part, parts)


@contextlib.contextmanager
def processes(*calls: tuple) -> Iterator[list[multiprocessing.Process]]:
    """Start one process for each (function, *arguments), forked from a server that has torch loaded already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["replications.training.loop", "torch._dynamo"])
    started = [context.Process(target=single_threaded, args=call, daemon=True) for call in calls]
    try:
        for process in started:
            process.start()
        yield started
    finally:
        for process in started:
            process.kill()
            process.join()


def single_threaded(function: Callable, *arguments) -> None:
    set_threads(1)
    function(*arguments)


TURNS = (Turn("critic", "critic", {"lr": 0.02, "clip_norm": 0.5}), Turn("generator", "generator", {"lr": 0.01}))
RECIPE = {"optimizer": "adam", "lr": 0.05, "steps": 12, "checkpoint_seconds": 0.0, "ema": 0.9, "accumulate": 2}


class Adversaries(nn.Module):
    """A critic that tells pictures from what a generator makes of their blurred copies."""

    def __init__(self):
        super().__init__()
        self.generator = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 3, 3, padding=1))
        self.critic = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(36, 1))

    def forward(self, batch: Batch, turn: str) -> dict[str, Tensor]:
        image = batch["image"]
        made = self.generator(image.mean((2, 3), keepdim=True).expand_as(image))
        if turn == "critic":
            gap = self.critic(made.detach()) - self.critic(image)
            return {"loss": nn.functional.softplus(gap).mean(), "gap": gap.mean()}
        return {"loss": -self.critic(made).mean()}


def turns_batches() -> DeviceBatches:
    return DeviceBatches(arrays(), BATCH, seed=0, augment=AUGMENT)


def turns_stage(turns: tuple[Turn, ...] = TURNS, build: Callable[[], nn.Module] = Adversaries, **recipe) -> Stage:
    """A stage in two turns; its weights are the same at each call."""
    seed_everything(0, "weights")
    return Stage("game", build(), turns_batches(), Recipe(batch_size=BATCH, **RECIPE | recipe), turns=turns)
