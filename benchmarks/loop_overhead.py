"""What the training loop costs over a bare PyTorch loop, side by side: ``python -m benchmarks.loop_overhead``.

Both train the same small models on the same batches on the CPU, turn by turn. Reported: CPU microseconds a step of
each, as the least of the turns (a busy machine does not count), and their ratio. Beside the steps themselves the loop
is deterministic, measures its data wait, watches for non-finite losses and keeps its history.
"""

import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from replications.spec import Recipe
from replications.training.augment import ToFloat
from replications.training.batches import DeviceBatches
from replications.training.determinism import seed_everything, set_threads
from replications.training.loop import train
from replications.training.stage import Batch, Stage

TURNS = 5


class Classifier(nn.Module):
    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        logits = self.net(batch["image"])
        accuracy = (logits.argmax(1) == batch["label"]).float().mean()
        return {"loss": F.cross_entropy(logits, batch["label"]), "accuracy": accuracy}


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 32), nn.ReLU(), nn.Linear(32, 10))


def cnn() -> nn.Module:
    layers: list[nn.Module] = []
    for channels_in, channels in ((3, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(channels_in, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 4, 10))


def make_stage(net: nn.Module, steps: int) -> Stage:
    generator = torch.Generator().manual_seed(0)
    arrays = {
        "image": torch.randint(256, (1024, 16, 16, 3), generator=generator, dtype=torch.uint8),
        "label": torch.randint(10, (1024,), generator=generator),
    }
    recipe = Recipe(batch_size=64, steps=steps, lr=0.01)
    return Stage("benchmark", Classifier(net), DeviceBatches(arrays, 64, seed=0, augment=ToFloat()), recipe)


def bare_loop(stage: Stage) -> float:
    module, steps = stage.module.to(memory_format=torch.channels_last).train(), stage.recipe.steps
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9, nesterov=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    started = time.process_time()
    for step in range(steps):
        loss = module(stage.batches.batch(step))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return time.process_time() - started


def suite_loop(stage: Stage) -> float:
    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        train(stage, work=Path(folder), seed=0, device="cpu")
        return time.process_time() - started


def main() -> None:
    set_threads(1)
    print("model   bare us/step   suite us/step   ratio")
    for make_net, steps in ((mlp, 2000), (cnn, 200)):
        times: dict[str, list[float]] = {"bare": [], "suite": []}
        for _ in range(TURNS):
            for name, loop in (("bare", bare_loop), ("suite", suite_loop)):
                seed_everything(0)
                times[name].append(loop(make_stage(make_net(), steps)) / steps * 1e6)
        bare, suite = min(times["bare"]), min(times["suite"])
        print(f"{make_net.__name__:<8}{bare:>12.0f}{suite:>16.0f}{suite / bare:>8.2f}")


if __name__ == "__main__":
    main()
