import math
import os
import random
import signal

import numpy as np
import pytest
import torch
from torch import nn
from training_toys import (
    BATCH,
    SAMPLES,
    Classifier,
    SignalAt,
    arrays,
    assert_same_bits,
    cnn,
    history_of,
    make_stage,
    mlp,
    run_stage,
    validation_loss,
    weights,
)

from replications.errors import RunFailure, UserError
from replications.training.batches import DeviceBatches
from replications.training.checkpoint import Checkpoints
from replications.training.determinism import deterministic, float32_precision, seed_everything
from replications.training.distribution import Distribution
from replications.training.interruption import Interruption
from replications.training.loop import HISTORY_POINTS, count_steps
from replications.training.meter import Meter


def train_losses(result) -> list[float]:
    return [point.values["loss"] for point in result.history if point.split == "train"]


def test_the_loop_is_the_textbook_loop(tmp_path):
    """SGD with Nesterov momentum and a cosine, written out."""
    stage = make_stage(mlp, validate=None, momentum=0.8)
    reference = make_stage(mlp).module
    result = run_stage(stage, tmp_path)
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.05, momentum=0.8, nesterov=True)
    losses = []
    for step in range(12):
        optimizer.param_groups[0]["lr"] = 0.05 * 0.5 * (1 + math.cos(math.pi * step / 12))
        loss = reference(stage.batches.batch(step))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    torch.testing.assert_close(weights(stage.module), weights(reference))
    assert train_losses(result) == pytest.approx(losses)


@pytest.mark.parametrize("clip", [None, 0.05])
@pytest.mark.parametrize("accumulate", [2, 8])
def test_accumulation_equals_the_whole_batch(tmp_path, accumulate, clip):
    whole, split = (make_stage(mlp, accumulate=n, clip_norm=clip, optimizer="adamw") for n in (1, accumulate))
    one, other = run_stage(whole, tmp_path / "whole"), run_stage(split, tmp_path / "split")
    for a, b in zip(one.history, other.history, strict=True):
        assert a.values == pytest.approx(b.values, rel=1e-4)
    torch.testing.assert_close(weights(whole.module), weights(split.module), rtol=1e-4, atol=1e-5)


def test_clipping_bounds_the_update_and_logs_the_norm_before_it(tmp_path):
    stage = make_stage(mlp, steps=1, validate=None, optimizer="momentum", momentum=0.0, clip_norm=0.01, lr=1.0)
    before = weights(stage.module)
    result = run_stage(stage, tmp_path)
    moved = torch.cat([(stage.module.state_dict()[name] - before[name]).flatten() for name in before]).norm()
    assert moved.item() == pytest.approx(0.01, rel=1e-3)
    assert result.history[0].values["grad_norm"] > 0.1


def test_weights_that_are_best_on_validation_are_kept(tmp_path):
    def scored(module):
        scores.append(next(values))
        seen.append(weights(module))
        return {"loss": scores[-1]}

    values, scores, seen = iter([3.0, 1.0, 2.0, 1.0]), [], []
    stage = make_stage(cnn, validate=scored, steps=24, validate_every=1, select="best", ema=0.5)
    run_stage(stage, tmp_path)
    assert len(scores) == 4
    assert_same_bits(weights(stage.module), seen[1])  # the first of the two best


def test_selection_needs_its_metric(tmp_path):
    with pytest.raises(UserError, match="needs a validation"):
        run_stage(make_stage(validate=None, select="best"), tmp_path)
    with pytest.raises(UserError, match=r"no 'loss' to select by .did you mean 'losses'"):
        run_stage(make_stage(validate=lambda module: {"losses": 1.0}, select="best"), tmp_path)


def test_how_often_one_validates_changes_nothing_else(tmp_path):
    def hungry(module):
        assert not module.training and not torch.is_grad_enabled()
        torch.rand(100), np.random.rand(100), random.random()
        return validation_loss(module)

    often, never = make_stage(validate=hungry, validate_every=0.5), make_stage(validate=None)
    result = run_stage(often, tmp_path / "often")
    run_stage(never, tmp_path / "never")
    assert [point.step for point in result.history if point.split == "validation"] == [3, 6, 9, 12]
    assert_same_bits(weights(often.module), weights(never.module))


def test_training_leaves_the_callers_generators_and_settings_alone(tmp_path):
    def draw():
        return torch.rand(1).item(), np.random.rand(), random.random()

    settings = torch.get_deterministic_debug_mode(), torch.get_float32_matmul_precision()
    stages = make_stage(), make_stage()
    expected = None
    for stage in stages:  # trained, then loaded
        seed_everything(5)
        run_stage(stage, tmp_path)
        drawn = draw()
        expected = expected or drawn
        assert drawn == expected
    seed_everything(5)
    assert draw() == expected
    assert settings == (torch.get_deterministic_debug_mode(), torch.get_float32_matmul_precision())
    assert not any(signal.getsignal(number) is None for number in (signal.SIGTERM, signal.SIGINT))


def test_same_seed_same_bits_and_another_seed_other_dropout(tmp_path):
    from replications.training.loop import train

    ends = []
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        stage = make_stage()
        torch.rand(17)  # what the process drew before does not matter
        train(stage, work=tmp_path / folder, seed=seed, device="cpu")
        ends.append(weights(stage.module))
    assert_same_bits(ends[0], ends[1])
    assert any(not torch.equal(ends[0][name], ends[2][name]) for name in ends[0])


def test_a_finished_stage_is_loaded_not_trained(tmp_path):
    first = make_stage(ema=0.5, validate_every=1)
    result = run_stage(first, tmp_path)

    def must_not_run(*_):
        raise AssertionError("trained again")

    second = make_stage(ema=0.5, validate_every=1)
    second.batches.batch = second.validate = must_not_run
    again = run_stage(second, tmp_path)
    assert again == result and result.seconds > result.data_wait_seconds > 0
    assert (again.steps, again.samples, again.resumed) == (12, 12 * BATCH, 0)
    assert_same_bits(weights(first.module), weights(second.module))
    assert not second.module.training
    assert [path.name for path in tmp_path.iterdir()] == ["train.ckpt"]


class Exploding(Classifier):
    """The value `name` is NaN at step `step`."""

    def __init__(self, name: str, step: int):
        super().__init__(*mlp().net)
        self.name, self.step = name, step

    def on_step(self, step, total_steps):
        self.now = step

    def forward(self, batch):
        values = super().forward(batch)
        return {**values, self.name: values[self.name] * math.nan} if self.now == self.step else values


@pytest.mark.parametrize("name", ["loss", "accuracy"])
def test_a_loss_that_is_not_finite_stops_the_run_and_is_named(tmp_path, name):
    stage = make_stage(lambda: Exploding(name, step=6), checkpoint_seconds=0, validate=None)
    with pytest.raises(RunFailure, match=f"stage 'train': {name} is nan at step 7") as caught:
        run_stage(stage, tmp_path)
    assert caught.value.reason == "diverged"


def test_gradients_weights_and_metrics_that_are_not_finite_stop_it_too(tmp_path):
    class NoGradient(Classifier):
        def forward(self, batch):
            bias = self.net[1].bias
            kink = (bias - bias.detach()).square().sum().sqrt()  # 0, with the derivative 0 / 0
            return {"loss": super().forward(batch)["loss"] + kink}

    def build():
        return NoGradient(*mlp().net)

    for folder, recipe, message in (
        ("norm", {"clip_norm": 1.0, "steps": 2}, "grad_norm is nan at step 1"),
        ("weights", {"steps": 1}, "weights are not finite after step 1"),
    ):
        with pytest.raises(RunFailure, match=message):
            run_stage(make_stage(build, validate=None, **recipe), tmp_path / folder)
    with pytest.raises(RunFailure, match="validation loss is inf at step 12"):
        run_stage(make_stage(validate=lambda module: {"loss": math.inf}), tmp_path / "metric")


def test_a_check_every_few_steps_still_names_the_first_bad_step():
    meter = Meter(rows=10, device=torch.device("cpu"), distribution=Distribution())
    for step in range(10):
        bad = math.inf if step in (3, 7) else 1.0
        meter.add({"loss": torch.tensor(1.0), "angle": torch.tensor(bad)}, 0, 1)
        meter.end_step()
    with pytest.raises(RunFailure, match="angle is inf at step 24;"):
        meter.flush(30, "stage 'x'")


def test_means_do_not_depend_on_when_the_meter_was_flushed():
    values = torch.rand(20, generator=torch.Generator().manual_seed(0))
    means = []
    for flushes in ({19}, {3, 4, 11, 19}, set(range(20))):
        meter = Meter(rows=20, device=torch.device("cpu"), distribution=Distribution())
        for step, value in enumerate(values):
            meter.add({"loss": value}, 0, 1)
            meter.end_step()
            if step in flushes:
                meter.flush(step + 1, "stage")
        means.append(meter.take_means()["loss"])
    assert means[0] == means[1] == means[2] == pytest.approx(values.mean().item())


def test_a_module_must_return_scalars_and_a_loss(tmp_path):
    class Wrong(Classifier):
        def forward(self, batch):
            return self.wrong(super().forward(batch))

    for wrong, message in (
        (lambda values: {"accuracy": values["accuracy"]}, "as 'loss'"),
        (lambda values: {"loss": values["loss"].expand(3)}, "must be a scalar"),
    ):
        stage = make_stage(lambda: Wrong(*mlp().net))
        stage.module.wrong = wrong
        with pytest.raises(ValueError, match=message):
            run_stage(stage, tmp_path)


def test_out_of_memory_is_a_failure_with_a_remedy(tmp_path):
    class Huge(Classifier):
        def forward(self, batch):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 TiB")

    with pytest.raises(RunFailure, match=r"at step 1 \(batch of 16 in 2 parts.*accumulate to 4") as caught:
        run_stage(make_stage(lambda: Huge(*mlp().net), accumulate=2), tmp_path)
    assert caught.value.reason == "out of memory"

    class Allocates(Classifier):
        def forward(self, batch):
            return {"loss": torch.empty(2**60).sum()}  # the real message of torch's CPU allocator

    with pytest.raises(RunFailure, match="out of cpu memory"):
        run_stage(make_stage(lambda: Allocates(*mlp().net)), tmp_path)

    class Bug(Classifier):
        def forward(self, batch):
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        run_stage(make_stage(lambda: Bug(*mlp().net)), tmp_path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_a_checkpoint_from_which_it_goes_on(tmp_path, number):
    whole, cut, resumed = (make_stage(steps=204) for _ in range(3))  # a point each 3 steps: the cut is within one
    expected = run_stage(whole, tmp_path / "whole")
    cut.batches = SignalAt(cut.batches, 7, number)
    with pytest.raises(RunFailure, match=f"step 8 of 204: interrupted by {number.name}") as caught:
        run_stage(cut, tmp_path / "cut")
    assert caught.value.reason == "interrupted"
    asked = []
    batch = resumed.batches.batch
    resumed.batches.batch = lambda step, *parts: asked.append(step) or batch(step, *parts)
    result = run_stage(resumed, tmp_path / "cut")
    assert asked[0] == 8 and result.resumed == 1
    assert history_of(result) == history_of(expected)
    assert_same_bits(weights(whole.module), weights(resumed.module))


def test_a_signal_ends_a_long_validation_which_is_done_again(tmp_path):
    def signalled(module):
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("went on")

    whole, cut, resumed = (make_stage(validate_every=1) for _ in range(3))
    expected = run_stage(whole, tmp_path / "whole")
    cut.validate = signalled
    with pytest.raises(RunFailure, match="validation at step 6"):
        run_stage(cut, tmp_path / "cut")
    assert history_of(run_stage(resumed, tmp_path / "cut")) == history_of(expected)
    assert_same_bits(weights(whole.module), weights(resumed.module))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("write", [-2, -1])  # the last step's checkpoint, and that of the finished stage
def test_a_signal_during_the_last_checkpoints_is_honoured(tmp_path, monkeypatch, number, write):
    whole, cut, resumed = (make_stage(steps=4, checkpoint_seconds=0) for _ in range(3))
    written, save = [], Checkpoints.write
    monkeypatch.setattr(Checkpoints, "write", lambda self, *a, **k: written.append(0) or save(self, *a, **k))
    expected = run_stage(whole, tmp_path / "whole")
    last = len(written) + write

    def signalled(self, *arguments, **options):
        if len(written) == last:
            os.kill(os.getpid(), number)
        written.append(0)
        save(self, *arguments, **options)

    written.clear()
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "write", signalled)
        before = signal.getsignal(number)
        with pytest.raises(RunFailure, match=f"interrupted by {number.name}") as caught:
            run_stage(cut, tmp_path / "cut")
        assert signal.getsignal(number) is before
    assert caught.value.reason == "interrupted"
    assert history_of(run_stage(resumed, tmp_path / "cut")) == history_of(expected)
    assert_same_bits(weights(whole.module), weights(resumed.module))


def test_a_signal_before_a_validation_does_not_wait_for_its_end(tmp_path, monkeypatch):
    def long(module):
        raise AssertionError("went on")

    cut = make_stage(steps=4, checkpoint_seconds=0, validate=long)
    save = Checkpoints.write

    def signalled(self, state, **options):
        if state["step"] == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        save(self, state, **options)

    monkeypatch.setattr(Checkpoints, "write", signalled)
    with pytest.raises(RunFailure, match="validation at step 4"):
        run_stage(cut, tmp_path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_request_that_nobody_answered_goes_to_the_handler_from_before(number):
    got = []
    before = signal.signal(number, lambda *arguments: got.append(arguments[0]))
    try:
        with Interruption():
            os.kill(os.getpid(), number)
            assert got == []
        assert got == [number]
        with pytest.raises(RunFailure), Interruption() as interruption:
            os.kill(os.getpid(), number)
            raise interruption.failure("here")
        assert got == [number], "answered"
    finally:
        signal.signal(number, before)


def test_the_best_weights_from_before_an_interruption_are_kept(tmp_path):
    def rising(module):
        return {"loss": float(len(seen.append(weights(module)) or seen))}

    seen = []
    cut, resumed = (make_stage(validate=rising, steps=24, validate_every=1, select="best") for _ in range(2))
    cut.batches = SignalAt(cut.batches, 9, signal.SIGTERM)
    with pytest.raises(RunFailure, match="interrupted"):
        run_stage(cut, tmp_path)
    run_stage(resumed, tmp_path)
    assert len(seen) == 4
    assert_same_bits(weights(resumed.module), seen[0])


def test_the_module_is_told_each_step_before_it(tmp_path):
    told = []

    class Annealed(Classifier):
        def on_step(self, step, total_steps):
            told.append((step, total_steps))

        def forward(self, batch):
            assert told[-1] == (len(told) - 1, 12)
            return super().forward(batch)

    run_stage(make_stage(lambda: Annealed(*mlp().net), validate=None, accumulate=2), tmp_path)
    assert len(told) == 12


def test_history_is_means_at_no_more_than_a_hundred_points(tmp_path):
    told = []
    fine = make_stage(mlp, steps=90, validate=None)
    coarse = make_stage(mlp, steps=230, validate=None)
    result = run_stage(fine, tmp_path / "fine")
    assert [point.step for point in result.history] == list(range(1, 91))
    assert result.history[-1].epoch == 15
    result = run_stage(coarse, tmp_path / "coarse", on_progress=lambda point, total: told.append((point.step, total)))
    steps = [point.step for point in result.history]
    assert steps == [*range(3, 230, 3), 230] and len(steps) <= HISTORY_POINTS
    assert told == [(step, 230) for step in steps]


def test_points_are_means_since_the_last_one(tmp_path):
    singles = train_losses(run_stage(make_stage(mlp, steps=99, schedule="constant", validate=None), tmp_path / "a"))
    pairs = train_losses(run_stage(make_stage(mlp, steps=199, schedule="constant", validate=None), tmp_path / "b"))
    assert pairs[:49] == pytest.approx([(a + b) / 2 for a, b in zip(singles[:98:2], singles[1:98:2], strict=True)])


def test_length_in_epochs_and_steps():
    recipe = make_stage().recipe
    assert count_steps(recipe, SAMPLES) == 12
    in_epochs = recipe.model_copy(update={"steps": None, "epochs": 2.5})
    assert count_steps(in_epochs, SAMPLES) == 15
    assert count_steps(in_epochs, SAMPLES + 15) == 15  # an incomplete batch is dropped


def test_a_recipe_that_does_not_fit_its_batches_is_refused(tmp_path):
    with pytest.raises(UserError, match="batches of 8, but the recipe says 16"):
        run_stage(make_stage(batches=DeviceBatches(arrays(), 8, seed=0)), tmp_path)
    with pytest.raises(UserError, match="equal parts"):
        run_stage(make_stage(accumulate=2), tmp_path, distribution=Distribution(0, 3))


def test_bf16_computes_in_bf16_and_keeps_float32_weights(tmp_path):
    seen = []

    class Watching(Classifier):
        def forward(self, batch):
            seen.append(self.net(batch["image"]).dtype)
            return super().forward(batch)

    stage = make_stage(lambda: Watching(*mlp().net), precision="bf16", validate=None, steps=24)
    losses = train_losses(run_stage(stage, tmp_path))
    assert set(seen) == {torch.bfloat16} and losses[-1] < losses[0]
    assert all(p.dtype == torch.float32 for p in stage.module.parameters())


def test_channels_last_reaches_weights_and_images(tmp_path):
    layouts = []

    class Watching(Classifier):
        def forward(self, batch):
            weight = self.net[0].weight
            layouts.append([t.is_contiguous(memory_format=torch.channels_last) for t in (weight, batch["image"])])
            return super().forward(batch)

    batches = DeviceBatches({"image": torch.rand(32, 3, 8, 8), "label": torch.zeros(32, dtype=torch.long)}, 16, seed=0)
    for channels_last in (True, False):
        stage = make_stage(lambda: Watching(*cnn().net), batches, None, channels_last=channels_last, steps=1)
        run_stage(stage, tmp_path / str(channels_last))
    assert layouts == [[True, True], [False, False]]


def test_determinism_and_precision_are_settings_with_an_end():
    with deterministic():
        assert torch.are_deterministic_algorithms_enabled() and torch.backends.cudnn.deterministic
        with deterministic(False):
            assert not torch.are_deterministic_algorithms_enabled()
        assert torch.are_deterministic_algorithms_enabled()
    assert not torch.are_deterministic_algorithms_enabled()
    for precision, expected in (("tf32", True), ("float32", False), ("bf16", False)):
        with float32_precision(precision):
            assert torch.backends.cuda.matmul.allow_tf32 is torch.backends.cudnn.allow_tf32 is expected
    assert torch.backends.cudnn.allow_tf32  # torch's default is back


def test_a_stage_that_names_a_nondeterministic_operation_trains_without_the_check(tmp_path):
    enabled = []

    class Watching(Classifier):
        def forward(self, batch):
            enabled.append(torch.are_deterministic_algorithms_enabled())
            return super().forward(batch)

    for reason in (None, "upsample_bicubic2d_backward"):
        stage = make_stage(lambda: Watching(*mlp().net), steps=1, validate=None)
        stage.nondeterministic = reason
        run_stage(stage, tmp_path / str(reason))
    assert enabled == [True, False]


def test_frozen_weights_stay(tmp_path):
    stage = make_stage(validate=None, weight_decay=0.1, ema=0.9)
    stage.module.net[0].requires_grad_(False)
    before = weights(stage.module)
    run_stage(stage, tmp_path)
    assert torch.equal(before["net.0.weight"], stage.module.net[0].weight)
    assert not torch.equal(before["net.6.weight"], stage.module.net[6].weight)
    assert isinstance(stage.module.net[6], nn.Linear)
