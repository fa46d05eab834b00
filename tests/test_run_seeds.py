"""A run's seed reaches everything that is drawn in it: weights, the order of the data, and what training draws."""

import types

import torch
from torch import nn
from training_toys import make_stage

from replications import catalogue, running
from replications.spec import Recipe, RunSpec

CPU = torch.device("cpu")


class Drawing(nn.Module):
    """Keeps what it draws at each step, as dropout or random masks would."""

    def __init__(self):
        super().__init__()
        self.weight, self.drawn = nn.Parameter(torch.zeros(3)), []

    def forward(self, batch):
        self.drawn.append(torch.rand(3))
        return {"loss": (self.weight * self.drawn[-1]).sum()}


def context(seed, work, method="one"):
    recipe = Recipe(batch_size=16, steps=4, lr=0.1)
    spec = RunSpec(
        paper="toy", method=method, tier="smoke", seed=seed, task="toy", data={}, build="model:build", options={},
        recipe=recipe, task_options={}, threads=1,
    )  # fmt: skip
    return running.RunContext(spec, CPU, work, work / f"{method}{seed}")


def drawn(seed, work, method="one", stage="train"):
    made = make_stage(Drawing, validate=None, steps=4, epochs=None)
    made.name = stage
    context(seed, work, method).train(made)
    return torch.stack(made.module.drawn[-4:])


def test_training_draws_by_the_runs_own_seed(tmp_path):
    """Other seeds draw otherwise, else all seeds of a row share their noise; one seed draws alike in two methods."""
    runs = [drawn(seed, tmp_path) for seed in (0, 1, 2)]
    assert all(not torch.equal(runs[i], runs[j]) for i in range(3) for j in range(i))
    assert torch.equal(drawn(1, tmp_path, "other"), runs[1]), "methods of one seed are paired"
    assert not torch.equal(drawn(1, tmp_path, "third", "another stage"), runs[1]), "stages do not repeat each other"


def test_weights_are_drawn_by_the_runs_own_seed(tmp_path, monkeypatch):
    monkeypatch.setattr(running.context, "find_function", lambda spec, name: lambda: nn.Linear(4, 4))
    monkeypatch.setattr(catalogue, "task_tiers", lambda task: {"smoke": types.SimpleNamespace(options={})})
    weights = [context(seed, tmp_path).build("stage").weight for seed in (0, 1, 2)]
    assert all(not torch.equal(weights[i], weights[j]) for i in range(3) for j in range(i))
    assert torch.equal(context(1, tmp_path, "other").build("stage").weight, weights[1])
    assert not torch.equal(context(1, tmp_path).build("another").weight, weights[1])
