"""A captured step, rehearsed on the CPU: a replay that calls the function stands for the CUDA graph.

What it rehearses: static batch, values and gradients, warm-up, and that nothing outside of the graph changes. As a real
capture does, the stand-in's leaves buffers and random generators as they were; only a replay computes.
"""

from typing import ClassVar

import pytest
import torch
from training_toys import (
    SIZE,
    assert_same_bits,
    cnn,
    history_of,
    make_stage,
    mlp,
    run_stage,
    weights,
)

from replications.errors import RunFailure, UserError
from replications.training import capture
from replications.training.determinism import preserved_rng
from replications.training.stage import Turn

RECIPES = (
    {},
    {"optimizer": "adamw", "weight_decay": 0.1, "clip_norm": 0.5, "ema": 0.9, "warmup": 0.2},
    {"optimizer": "lars", "schedule": "constant", "lr": 0.5},
    {"precision": "bf16", "validate_every": 0.5, "select": "best"},
)


class Replay:
    """Stands for `capture.CudaGraph`: memory is static after the capture, as a graph's is."""

    log: ClassVar[list[str]] = []

    def __init__(self, device):
        self.log.clear()

    def warm_up(self, function):
        self.log.append("warm-up")
        return function()

    def capture(self, function):
        self.log.append("capture")
        self.function, self.step = function, function.__self__
        assert all(p.grad is None for p in self.step._parameters), "else each replay would add to the last one's"
        module = self.step._function.__self__.module
        buffers = [(buffer, buffer.clone()) for buffer in module.buffers()]
        with preserved_rng(torch.device("cpu")):
            found = function()
        for buffer, before in buffers:
            buffer.copy_(before)
        for tensor in (*found.values(), *(p.grad for p in self.step._parameters)):
            tensor.fill_(float("nan"))  # nothing has run
        return found

    def replay(self):
        self.log.append("replay")
        self.step._drop_gradients()
        found = self.function()
        for name, value in found.items():
            self.step._found[name].copy_(value)
        for parameter, gradient in zip(self.step._parameters, self.step._gradients, strict=True):
            gradient.copy_(parameter.grad)
        self.step._drop_gradients()  # a graph fills memory and knows nothing of whose it is


@pytest.fixture
def on_cpu(monkeypatch):
    monkeypatch.setattr(capture, "CudaGraph", Replay)
    monkeypatch.setattr(capture, "DEVICES", ("cpu",))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.get("optimizer", "sgd"))
def test_equals_the_eager_step_to_the_bit(tmp_path, on_cpu, recipe):
    eager, captured = make_stage(cnn, **recipe), make_stage(cnn, capture=True, **recipe)
    told = [history_of(run_stage(stage, tmp_path / name)) for name, stage in (("a", eager), ("b", captured))]
    assert told[0] == told[1]
    assert_same_bits(weights(eager.module), weights(captured.module))
    assert Replay.log == ["warm-up"] * capture.WARM_UP + ["capture"] + ["replay"] * (12 - capture.WARM_UP)


def test_resumed_equals_uninterrupted(tmp_path, on_cpu):
    whole, cut, again = (make_stage(cnn, capture=True, checkpoint_seconds=0.0) for _ in range(3))
    run_stage(whole, tmp_path / "whole")
    original = cut.batches.batch

    def failing(step, *rest):
        if step == 7:
            raise KeyError
        return original(step, *rest)

    cut.batches.batch = failing
    with pytest.raises(KeyError):
        run_stage(cut, tmp_path / "cut")
    assert run_stage(again, tmp_path / "cut").resumed == 1
    assert_same_bits(weights(whole.module), weights(again.module))


def test_never_left_out_in_silence(tmp_path):
    with pytest.raises(UserError, match=r"recipe.capture needs a CUDA GPU, not cpu: leave capture out"):
        run_stage(make_stage(mlp, capture=True), tmp_path)


@pytest.mark.parametrize(
    ("recipe", "told"), [({"accumulate": 2}, "without micro-batches"), ({"compile": True}, "compile exclude")]
)
def test_what_cannot_be_captured_is_refused(tmp_path, on_cpu, recipe, told):
    with pytest.raises(UserError, match=told):
        run_stage(make_stage(mlp, capture=True, **recipe), tmp_path)


def test_a_module_that_changes_with_the_step_is_refused(tmp_path, on_cpu):
    stage = make_stage(mlp, capture=True)
    stage.module.on_step = lambda step, total: None
    with pytest.raises(UserError, match="on_step"):
        run_stage(stage, tmp_path)
    turns = make_stage(mlp, capture=True)
    turns.turns = (Turn("all", "net"),)
    with pytest.raises(UserError, match="without turns"):
        run_stage(turns, tmp_path)


def test_a_step_that_waits_for_the_device_is_told(tmp_path, on_cpu, monkeypatch):
    def capturing(self, function):
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\ndetails")

    monkeypatch.setattr(Replay, "capture", capturing)
    with pytest.raises(UserError, match=r"waits for the device or copies.*not permitted when stream is capturing"):
        run_stage(make_stage(mlp, capture=True), tmp_path)


def test_out_of_memory_stays_what_it_is(tmp_path, on_cpu, monkeypatch):
    def capturing(self, function):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Replay, "capture", capturing)
    with pytest.raises(RunFailure) as found:
        run_stage(make_stage(mlp, capture=True), tmp_path)
    assert found.value.reason == "out of memory"


def test_batches_of_another_form_are_refused(tmp_path, on_cpu):
    stage = make_stage(mlp, capture=True)
    original = stage.batches.batch

    def growing(step, *rest):
        batch = original(step, *rest)
        return batch if step < 5 else {**batch, "image": batch["image"].double()}

    stage.batches.batch = growing
    told = rf"'image' of a batch is float64 \[16, 3, {SIZE}, {SIZE}\], and was float32"
    with pytest.raises(UserError, match=told):
        run_stage(stage, tmp_path)
