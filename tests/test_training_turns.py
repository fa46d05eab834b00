"""Turns: several optimisers within a step, against the same training written out by hand."""

import os
import signal
import socket
from pathlib import Path

import pytest
import torch
from torch import nn
from training_toys import (
    TURNS,
    Adversaries,
    SignalAt,
    assert_same_bits,
    history_of,
    processes,
    run_stage,
    turns_batches,
    turns_stage,
    weights,
)

from replications.errors import RunFailure, UserError
from replications.measurement.protocol import Effort
from replications.measurement.timing import measure
from replications.training.determinism import seed_everything
from replications.training.distribution import Distribution, join, leave
from replications.training.meter import Meter
from replications.training.moves import turn_recipe
from replications.training.stage import Turn, Workload
from replications.training.update import Updater


def by_hand(steps: int, critic_times: int = 1) -> Adversaries:
    """The same training without the loop: each optimiser over its own parameters, gradients taken one by one."""
    seed_everything(0, "weights")
    module, source = Adversaries(), turns_batches()
    optimizers = {
        "critic": torch.optim.Adam(module.critic.parameters(), lr=0.02),
        "generator": torch.optim.Adam(module.generator.parameters(), lr=0.01),
    }
    for step in range(steps):
        for turn, times in (("critic", critic_times), ("generator", 1)):
            own = list(getattr(module, turn).parameters())
            for repeat in range(times):
                loss = module(source.batch(step * critic_times + repeat), turn)["loss"]
                for parameter, gradient in zip(own, torch.autograd.grad(loss, own), strict=True):
                    parameter.grad = gradient
                if turn == "critic":
                    nn.utils.clip_grad_norm_(own, 0.5)
                optimizers[turn].step()
    return module


@pytest.mark.parametrize("times", [1, 3])
def test_turns_are_the_moves_written_out_by_hand(tmp_path, times):
    turns = (Turn("critic", "critic", TURNS[0].recipe, times=times), TURNS[1])
    stage = turns_stage(turns, steps=5, ema=0.0, accumulate=1, schedule="constant")
    result = run_stage(stage, tmp_path)
    expected = by_hand(5, times).state_dict()
    for name, value in stage.module.state_dict().items():
        assert torch.allclose(value, expected[name], rtol=0, atol=1e-6), name
    values = result.history[-1].values
    assert {"loss", "critic_loss", "critic_gap", "generator_loss", "critic_grad_norm"} <= set(values)
    assert values["loss"] == values["critic_loss"] and values["lr"] == 0.02


@pytest.mark.parametrize(("number", "moved"), [(0, "critic"), (1, "generator")])
def test_a_turn_moves_its_own_part_only(number, moved):
    stage = turns_stage(accumulate=1)
    meter = Meter(1, torch.device("cpu"), Distribution(), ("critic_grad_norm",))
    updater = Updater(stage, torch.device("cpu"), Distribution(), 12, meter)
    before = weights(stage.module)
    updater.losses(turns_batches().batch(0), updater.moves[number])["loss"].backward()
    asked = {name for name, parameter in stage.module.named_parameters() if parameter.grad is not None}
    assert asked == {name for name, _ in stage.module.named_parameters() if name.startswith(moved)}
    updater.moves[number].set_rate(0, 12)
    updater.moves[number].step()
    changed = {name for name, value in weights(stage.module).items() if not torch.equal(value, before[name])}
    assert changed and changed <= asked  # the last bias cancels in the gap of two scores
    updater.release()
    assert all(p.requires_grad and p.grad is None for p in stage.module.parameters())


def test_a_stopped_training_in_turns_resumes_to_the_bit(tmp_path):
    whole = turns_stage()
    expected = run_stage(whole, tmp_path / "whole")
    stopped = turns_stage()
    stopped.batches = SignalAt(stopped.batches, 7, signal.SIGTERM)
    with pytest.raises(RunFailure, match="step 8 of 12"):
        run_stage(stopped, tmp_path / "parts")
    again = turns_stage()
    result = run_stage(again, tmp_path / "parts")
    assert result.resumed == 1 and history_of(result) == history_of(expected)
    assert_same_bits(weights(again.module), weights(whole.module))


def train_as_rank(rank: int, port: int, folder: Path) -> None:
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_WORLD_SIZE": "2"}
    os.environ.update(address, RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2")
    distribution, _ = join("cpu")
    stage = turns_stage(accumulate=1)
    run_stage(stage, folder / "work", distribution=distribution)
    torch.save(weights(stage.module), folder / f"rank{rank}.pt")
    leave()


def test_turns_in_two_processes_reach_the_weights_of_one(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with processes(*[(train_as_rank, rank, port, tmp_path) for rank in range(2)]) as started:
        for process in started:
            process.join()
            assert process.exitcode == 0
    alone = turns_stage(accumulate=1)
    run_stage(alone, tmp_path / "alone")
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2))
    assert_same_bits(first, second)
    for name, value in weights(alone.module).items():
        assert torch.allclose(value, first[name], rtol=0, atol=1e-5), name


def test_a_step_in_turns_is_timed_and_counted():
    stage = turns_stage(accumulate=1)
    batch = stage.batches.batch(0)
    workload = Workload(stage, batch, lambda module, own: module.generator(own["image"]), batch, torch.device("cpu"))
    once = measure(workload, Effort(warmup=1, stamps=2, seconds=0.0))
    thrice = turns_stage((Turn("critic", "critic", times=3), TURNS[1]), accumulate=1)
    workload = Workload(thrice, batch, workload.forward, batch, torch.device("cpu"))
    more = measure(workload, Effort(warmup=1, stamps=2, seconds=0.0))
    assert 0 < once.train_flops < more.train_flops < 3 * once.train_flops


def test_a_turn_keeps_the_options_that_it_does_not_change():
    turn = Turn("generator", "generator", {"optimizer_options": {"eps": 1e-6}})
    stage = turns_stage((TURNS[0], turn), optimizer_options={"betas": [0.5, 0.9]})
    assert turn_recipe(stage, turn).optimizer_options == {"betas": [0.5, 0.9], "eps": 1e-6}


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        ((TURNS[0],), "no turn trains generator.0.weight"),
        ((TURNS[0], TURNS[0], TURNS[1]), "need names of their own"),
        ((TURNS[0], Turn("generator", "generator", times=0)), "once or more"),
        ((TURNS[0], Turn("generator", "generator", {"batch_size": 4})), "cannot change the recipe's batch_size"),
        ((TURNS[0], Turn("generator", "generator", {"lr": -1.0})), "turn 'generator': lr"),
        ((TURNS[0], Turn("generator", "generateur")), "no part 'generateur'"),
    ],
)
def test_turns_that_do_not_fit_are_one_line(tmp_path, turns, message):
    with pytest.raises(UserError, match=message) as raised:
        run_stage(turns_stage(turns), tmp_path)
    assert "\n" not in str(raised.value)
