import math
import subprocess
import sys

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from training_toys import make_stage, mlp, run_stage, weights

from replications.errors import UserError
from replications.spec import Recipe
from replications.training.ema import AveragedModule
from replications.training.optim import (
    create_optimizer,
    learning_rate_factor,
    set_learning_rate,
    step_optimizer,
)


def recipe(**changes) -> Recipe:
    return Recipe(**{"batch_size": 8, "steps": 100, "lr": 0.1, **changes})


def test_cosine_and_linear_fall_from_one_to_zero_at_the_end():
    cosine, linear = recipe(schedule="cosine"), recipe(schedule="linear")
    assert learning_rate_factor(cosine, 0, 100) == 1
    assert learning_rate_factor(cosine, 50, 100) == pytest.approx(0.5)
    assert learning_rate_factor(cosine, 25, 100) == pytest.approx(0.5 + math.sqrt(0.5) / 2)
    assert [learning_rate_factor(linear, step, 100) for step in (0, 30, 99)] == pytest.approx([1, 0.7, 0.01])
    assert learning_rate_factor(cosine, 100, 100) == learning_rate_factor(linear, 100, 100) == 0


def test_step_schedule_drops_tenfold_at_each_fraction():
    drops = recipe(schedule="step", schedule_milestones=(0.5, 0.75))
    factors = [learning_rate_factor(drops, step, 100) for step in (0, 49, 50, 74, 75, 99)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_warmup_rises_linearly_to_the_full_rate():
    warm = recipe(schedule="constant", warmup=0.1)
    assert [learning_rate_factor(warm, step, 100) for step in (0, 4, 9, 10, 99)] == pytest.approx(
        [1 / 11, 5 / 11, 10 / 11, 1, 1]
    )


@pytest.mark.parametrize("warmup", [0.0, 0.13])
@pytest.mark.parametrize("schedule", ["cosine", "linear", "step", "constant"])
def test_schedules_are_timms(schedule, warmup):
    import timm.scheduler

    total, milestones = 60, (0.4, 0.8)
    made = recipe(schedule=schedule, warmup=warmup, schedule_milestones=milestones if schedule == "step" else ())
    warm = round(warmup * total)
    optimizer = torch.optim.SGD(mlp().parameters(), lr=0.1)
    common = {"warmup_t": warm, "warmup_lr_init": 0.1 / (warm + 1), "t_in_epochs": False}
    if schedule in ("cosine", "linear"):
        classes = {"cosine": timm.scheduler.CosineLRScheduler, "linear": timm.scheduler.PolyLRScheduler}
        power = {"power": 1.0} if schedule == "linear" else {}
        theirs = classes[schedule](optimizer, total - warm, warmup_prefix=True, **power, **common)
    else:
        drops = [round(m * total) + 1 for m in milestones] if schedule == "step" else []  # timm drops a step early
        theirs = timm.scheduler.MultiStepLRScheduler(optimizer, drops, 0.1, warmup_prefix=False, **common)
    for step in range(total):
        theirs.step_update(step)
        assert 0.1 * learning_rate_factor(made, step, total) == pytest.approx(optimizer.param_groups[0]["lr"])


def test_milestones_belong_to_the_step_schedule():
    with pytest.raises(ValidationError, match="needs schedule_milestones"):
        recipe(schedule="step")
    with pytest.raises(ValidationError, match="no other schedule"):
        recipe(schedule="cosine", schedule_milestones=(0.5,))
    for wrong in ((20.0,), (0.0,), (1.0,), (0.5, 0.25), (0.5, 0.5)):
        with pytest.raises(ValidationError, match="schedule_milestones"):
            recipe(schedule="step", schedule_milestones=wrong)


@pytest.mark.parametrize("exclude", [True, False])
@pytest.mark.parametrize("name", ["sgd", "momentum", "adam", "adamw"])
def test_optimizers_are_timms(name, exclude):
    import timm.optim

    made = recipe(optimizer=name, weight_decay=0.05, momentum=0.8, optimizer_options={"filter_bias_and_bn": exclude})
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    module.no_weight_decay = lambda: {"3.weight"}
    ours = create_optimizer(module, made)
    theirs = timm.optim.create_optimizer_v2(
        module, name, lr=0.1, weight_decay=0.05, momentum=0.8, filter_bias_and_bn=exclude, fused=True
    )
    assert type(ours) is type(theirs)
    assert len(ours.param_groups) == len(theirs.param_groups)
    for mine, other in zip(ours.param_groups, theirs.param_groups, strict=True):
        assert [id(p) for p in mine["params"]] == [id(p) for p in other["params"]]
        assert {k: v for k, v in mine.items() if k != "params"} == {k: v for k, v in other.items() if k != "params"}


@pytest.mark.parametrize("options", [{}, {"layer_decay": 0.5}])
@pytest.mark.parametrize("name", ["sgd", "momentum", "adam", "adamw"])
def test_the_update_is_fused_unless_the_recipe_or_the_parameters_say_otherwise(name, options):
    def flags(module, **more):
        module.group_matcher = lambda coarse: {"stem": r"net\.1", "blocks": r"net\.(\d+)"}
        group = create_optimizer(module, recipe(optimizer=name, optimizer_options={**options, **more})).param_groups[0]
        return bool(group["fused"]), bool(group["foreach"])

    assert flags(mlp()) == (True, False)
    assert flags(mlp(), fused=False) == (False, False)
    assert flags(mlp(), foreach=True) == (False, True)
    assert flags(mlp().to("meta")) == (False, False)


def test_other_optimizers_come_from_timm_and_know_layer_decay():
    import timm.optim

    assert isinstance(create_optimizer(mlp(), recipe(optimizer="lamb")), timm.optim.Lamb)
    module = mlp()
    module.group_matcher = lambda coarse: {"stem": r"net\.1", "blocks": r"net\.(\d+)"}
    scaled = create_optimizer(module, recipe(optimizer="adamw", optimizer_options={"layer_decay": 0.5}))
    set_learning_rate(scaled, 0.5)
    assert {group["lr"] for group in scaled.param_groups} == {0.05 * group["lr_scale"] for group in scaled.param_groups}
    assert len({group["lr_scale"] for group in scaled.param_groups}) > 1


def test_an_unknown_optimizer_or_option_is_named():
    with pytest.raises(UserError, match="did you mean 'adamw'"):
        create_optimizer(mlp(), recipe(optimizer="adamww"))
    with pytest.raises(UserError, match="betaz"):
        create_optimizer(mlp(), recipe(optimizer="adamw", optimizer_options={"betaz": (0.9, 0.9)}))
    with pytest.raises(UserError, match="frozen"):
        create_optimizer(mlp().requires_grad_(False), recipe())


def test_groups_keep_their_own_rates_in_proportion():
    def groups(module, recipe):
        first, *rest = module.parameters()
        return [{"params": [first], "lr": recipe.lr * 10}, {"params": rest}]

    optimizer = create_optimizer(mlp(), recipe(), groups)
    for factor in (0.5, 0.25):
        set_learning_rate(optimizer, factor)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([factor, 0.1 * factor])


@pytest.mark.parametrize("name", ["sgd", "adamw", "lamb"])
def test_a_step_is_the_optimizers_own(name):
    modules = [mlp(), mlp()]
    modules[1].load_state_dict(modules[0].state_dict())
    optimizers = [create_optimizer(module, recipe(optimizer=name)) for module in modules]
    for _ in range(3):
        for module in modules:
            module.zero_grad()
            sum(p.square().sum() for p in module.parameters()).backward()
        step_optimizer(optimizers[0])
        optimizers[1].step()
    for one, other in zip(modules[0].parameters(), modules[1].parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_run_starts_without_timm_and_without_torchs_compiler(tmp_path):
    code = (
        "import sys, pathlib; sys.path.insert(0, 'tests')\n"
        "from training_toys import make_stage, run_stage\n"
        f"run_stage(make_stage(steps=2, ema=0.9, clip_norm=1.0), pathlib.Path({str(tmp_path)!r}))\n"
        "print(sorted({'timm', 'torchvision', 'torch._dynamo', 'sympy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_average_is_the_formula_and_timms():
    from timm.utils import ModelEmaV3

    module = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    start, final = weights(module), {}
    ours, theirs = AveragedModule(module, decay=0.75), ModelEmaV3(module, decay=0.75)
    for step in range(4):
        module(torch.randn(5, 3, generator=torch.Generator().manual_seed(step)))  # moves the running statistics
        with torch.no_grad():
            module[0].weight.add_(1)
        ours.update()
        theirs.update(module)
        final = weights(module)
    # a_n = d^n w_0 + sum_k (1 - d) d^(n-k) w_k with w_k = w_0 + k
    shift = sum(0.25 * 0.75 ** (4 - k) * k for k in range(1, 5))
    torch.testing.assert_close(ours.module[0].weight, start["0.weight"] + shift)
    torch.testing.assert_close(ours.module.state_dict(), theirs.module.state_dict())
    assert ours.module[1].num_batches_tracked == final["1.num_batches_tracked"] == 4


def test_average_follows_a_buffer_that_was_replaced():
    module = nn.BatchNorm1d(2)
    averaged = AveragedModule(module, decay=0.5)
    module.running_mean = torch.tensor([2.0, 4.0])
    averaged.update()
    assert averaged.module.running_mean.tolist() == [1.0, 2.0]


def test_training_ends_with_the_averaged_weights(tmp_path):
    seen = []

    class Recording(type(mlp())):
        def on_step(self, step, total_steps):
            seen.append(weights(self))

    plain = make_stage(mlp, steps=6, validate=None)
    plain.module.__class__ = Recording
    run_stage(plain, tmp_path / "plain")
    trajectory = [*seen, weights(plain.module)]
    averaged = make_stage(mlp, steps=6, validate=None, ema=0.8)
    run_stage(averaged, tmp_path / "averaged")
    expected = trajectory[0]
    for step in trajectory[1:]:
        expected = {name: 0.8 * expected[name] + 0.2 * step[name] for name in step}
    torch.testing.assert_close(weights(averaged.module), expected)


def test_lars_scales_matrices_even_without_weight_decay_and_takes_plain_steps_on_vectors():
    """Two steps against NumPy in float64: the formula of the official linear probe, momentum before the rate."""
    import numpy as np

    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(3, 5)), rng.normal(size=3)
    gradients = [(rng.normal(size=(3, 5)), rng.normal(size=3)) for _ in range(2)]
    module = nn.Linear(5, 3).double()
    module.load_state_dict({"weight": torch.tensor(weight), "bias": torch.tensor(bias)})
    made = recipe(optimizer="lars", lr=6.4, momentum=0.9, weight_decay=0.0, optimizer_options={"eps": 0.0})
    optimizer = create_optimizer(module, made)
    moved_weight, moved_bias = np.zeros((3, 5)), np.zeros(3)
    for of_weight, of_bias in gradients:
        module.weight.grad, module.bias.grad = torch.tensor(of_weight), torch.tensor(of_bias)
        step_optimizer(optimizer)
        ratio = 0.001 * np.sqrt((weight**2).sum()) / np.sqrt((of_weight**2).sum())
        moved_weight = 0.9 * moved_weight + ratio * of_weight
        moved_bias = 0.9 * moved_bias + of_bias
        weight, bias = weight - 6.4 * moved_weight, bias - 6.4 * moved_bias
        torch.testing.assert_close(module.weight.detach(), torch.tensor(weight), rtol=1e-12, atol=0)
        torch.testing.assert_close(module.bias.detach(), torch.tensor(bias), rtol=1e-12, atol=0)
