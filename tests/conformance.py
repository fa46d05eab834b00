"""What every stage must pass, in one turn or in several; `test_conformance` asks it of every method, and of toys."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from replications.training.determinism import seed_everything
from replications.training.distribution import Distribution
from replications.training.loop import train
from replications.training.meter import Meter
from replications.training.moves import norm_names
from replications.training.stage import Batch, Stage
from replications.training.update import Updater

CPU = torch.device("cpu")
STEPS = 12


def trainable(module: nn.Module) -> list[nn.Parameter]:
    return [p for p in module.parameters() if p.requires_grad]


def updater_of(stage: Stage) -> Updater:
    return Updater(stage, CPU, Distribution(), STEPS, Meter(1, CPU, Distribution(), norm_names(stage)))


def check_moves(stage: Stage, batch: Batch) -> None:
    """Each turn's loss is finite, reaches every weight of its part and no other, and its step moves no other."""
    updater = updater_of(stage)
    stage.module.train()
    names = {id(parameter): name for name, parameter in stage.module.named_parameters()}
    for move in updater.moves:
        where = f"turn '{move.name}': " if move.name else ""
        updater.release()
        before = {name: parameter.detach().clone() for name, parameter in stage.module.named_parameters()}
        loss = updater.losses(batch, move)["loss"]
        assert torch.isfinite(loss), f"{where}the loss is {loss.item()}"
        loss.backward()
        own = {names[id(parameter)] for parameter in move.parameters}
        reached = {name for name, parameter in stage.module.named_parameters() if parameter.grad is not None}
        assert not own - reached, f"{where}no gradient reaches {sorted(own - reached)}"
        assert not reached - own, f"{where}a gradient reaches {sorted(reached - own)}"
        move.set_rate(STEPS // 2, STEPS)
        move.step()
        moved = {
            name for name, parameter in stage.module.named_parameters() if not torch.equal(parameter, before[name])
        }
        assert moved, f"{where}a step moves nothing"
        assert not moved - own, f"{where}a step moves {sorted(moved - own)}"
    updater.release()


def check_loss_falls(stage: Stage, batch: Batch) -> None:
    """Trained on one batch, each turn's loss falls while the parts of the others stand still."""
    start = copy.deepcopy(stage.module.state_dict())
    for number, move in enumerate(updater_of(stage).moves):
        stage.module.load_state_dict(start)
        updater, losses = updater_of(stage), []
        stage.module.train()
        optimizer = torch.optim.SGD(move.parameters, lr=0.02, momentum=0.9)
        for _ in range(STEPS):
            seed_everything(0)  # the same dropout at each step
            loss = updater.losses(batch, updater.moves[number])["loss"]
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(move.parameters, 5.0)
            optimizer.step()
            losses.append(loss.item())
        updater.release()
        assert min(losses[1:]) < losses[0] - 0.01 * abs(losses[0]), losses


class Killed(Exception):
    """Stands for a kill: nothing in the loop catches it."""


def check_resumes(make: Callable[[], Stage], folder: Path) -> None:
    """A training that is killed at its fourth batch and started again ends with the weights of one that was not."""

    def stage() -> Stage:
        found = make()
        changes = {"steps": 6, "epochs": None, "checkpoint_seconds": 0.0}
        return replace(found, recipe=found.recipe.model_copy(update=changes))

    whole, cut, again = stage(), stage(), stage()
    train(whole, work=folder / "whole", seed=7, device=CPU)
    original, calls = cut.batches.batch, []

    def failing(step, part=0, parts=1):
        calls.append(step)
        if len(calls) == 4:
            raise Killed
        return original(step, part, parts)

    cut.batches.batch = failing
    with pytest.raises(Killed):
        train(cut, work=folder / "cut", seed=7, device=CPU)
    result = train(again, work=folder / "cut", seed=7, device=CPU)
    assert result.resumed == 1
    for (name, a), b in zip(whole.module.state_dict().items(), again.module.state_dict().values(), strict=True):
        assert torch.equal(a, b), f"{name} differs after resuming"
