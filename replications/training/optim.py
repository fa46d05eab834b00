"""Optimisers and learning-rate schedules of a recipe.

Names are timm's. Four of them are plain torch classes and are made here without importing timm; schedules are a
pure function of the step. Importing timm and torch's compiler (which ``torch.optim`` pulls in at the first call)
takes 4 of the 6 seconds before a run's first step, and neither does anything for an eager SGD or AdamW. Tests
hold both paths to timm's results.
"""

import fnmatch
import functools
import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from replications.errors import UserError, nearest
from replications.spec import Recipe

# timm's registry: 'sgd' is SGD with Nesterov momentum, 'momentum' is SGD with the classical one.
TORCH_OPTIMIZERS: dict[str, type[Optimizer]] = {
    "sgd": torch.optim.SGD,
    "momentum": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}

LARS = ("lars", "nlars")


def create_optimizer(
    module: nn.Module,
    recipe: Recipe,
    parameter_groups: Callable[[nn.Module, Recipe], list[dict]] | None = None,
) -> Optimizer:
    """Return the recipe's optimiser over the module's trainable parameters.

    torch's own optimisers update all tensors in one fused kernel, unless the options say ``fused`` or ``foreach``.

    `recipe.optimizer_options` go to the optimiser (``betas``, ``eps``, ``nesterov``, ``fused``, ...; null is its
    default), except timm's grouping options: ``filter_bias_and_bn: true`` takes weight decay off biases, norms and
    every other vector (default false: everything decays, as in torch), ``layer_decay`` scales the rate by depth. The
    names in the module's ``no_weight_decay()`` never decay. LARS scales and decays matrices and kernels only, whatever
    the options (`lars_groups`). `parameter_groups` replaces all of that.

    Raises UserError for an unknown optimiser or option, and where nothing is trainable.
    """
    options = {name: value for name, value in recipe.optimizer_options.items() if value is not None}
    name = recipe.optimizer.lower()
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise UserError("nothing to train: every parameter of the module is frozen")
    _keep_compiler_out()
    if name in TORCH_OPTIMIZERS and not {"fused", "foreach"} & options.keys() and _can_fuse(module):
        options["fused"] = True
    try:
        if name in TORCH_OPTIMIZERS and "layer_decay" not in options:
            exclude_vectors = options.pop("filter_bias_and_bn", False)
            groups = (
                parameter_groups(module, recipe)
                if parameter_groups
                else weight_decay_groups(module, recipe.weight_decay, exclude_vectors)
            )
            if TORCH_OPTIMIZERS[name] is torch.optim.SGD:
                options.setdefault("momentum", recipe.momentum)
                options.setdefault("nesterov", name == "sgd" and options["momentum"] > 0)
            return TORCH_OPTIMIZERS[name](groups, lr=recipe.lr, weight_decay=recipe.weight_decay, **options)
        return _create_with_timm(module, recipe, name, options, parameter_groups)
    except UserError:
        raise
    except Exception as error:  # of any kind: the options are a person's, the optimiser a library's
        why = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"optimizer '{recipe.optimizer}' with options {recipe.optimizer_options}: {why}") from error


def _create_with_timm(module, recipe: Recipe, name: str, options: dict[str, Any], parameter_groups) -> Optimizer:
    import timm.optim

    known = timm.optim.list_optimizers()
    if name.rpartition("_")[2] not in known:
        raise UserError(f"unknown optimizer '{recipe.optimizer}'{nearest(name, known)}")
    options.setdefault("filter_bias_and_bn", False)
    target = module
    if parameter_groups:
        target = parameter_groups(module, recipe)
    elif name in LARS:
        target = lars_groups(module, recipe.weight_decay)
    return timm.optim.create_optimizer_v2(
        target, opt=name, lr=recipe.lr, weight_decay=recipe.weight_decay, momentum=recipe.momentum, **options
    )


def _can_fuse(module: nn.Module) -> bool:
    """Return whether torch has a fused update for every trainable parameter: floating point, on a CPU or a CUDA GPU."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in trained)


def weight_decay_groups(module: nn.Module, weight_decay: float, exclude_vectors: bool) -> list[dict]:
    """Split the trainable parameters into those without and those with weight decay, by timm's rule.

    Without: the names in ``module.no_weight_decay()`` and, where `exclude_vectors`, vectors, scalars and biases.
    """
    never = module.no_weight_decay() if hasattr(module, "no_weight_decay") else ()
    without: list[Tensor] = []
    with_decay: list[Tensor] = []
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        vector = exclude_vectors and (parameter.ndim <= 1 or name.endswith(".bias"))
        excluded = not weight_decay or vector or any(fnmatch.fnmatch(name, pattern) for pattern in never)
        (without if excluded else with_decay).append(parameter)
    groups = ({"params": without, "weight_decay": 0.0}, {"params": with_decay, "weight_decay": weight_decay})
    return [group for group in groups if group["params"]]


def lars_groups(module: nn.Module, weight_decay: float) -> list[dict]:
    """Split the trainable parameters for LARS: vectors and biases take plain SGD steps, without trust ratio and decay.

    All others are scaled by ``trust_coeff * |w| / |g|`` even where nothing decays, which timm's LARS leaves out then
    (LARS as MoCo v3 and MAE use it for linear probes).
    """
    without, scaled = (
        {"params": [], "weight_decay": 0.0, "always_adapt": False},
        {"params": [], "weight_decay": weight_decay, "always_adapt": True},
    )
    for parameter in filter(lambda p: p.requires_grad, module.parameters()):
        (without if parameter.ndim <= 1 else scaled)["params"].append(parameter)
    return [group for group in (without, scaled) if group["params"]]


def step_optimizer(optimizer: Optimizer) -> None:
    """Update the parameters: ``optimizer.step()`` without torch's wrappers, which only serve hooks and the compiler."""
    with torch.no_grad():
        _plain_step(type(optimizer))(optimizer)


@functools.cache
def _plain_step(optimizer_class: type[Optimizer]) -> Callable[[Optimizer], None]:
    return inspect.unwrap(optimizer_class.step)


def _keep_compiler_out() -> None:
    """Stop ``torch.optim`` from importing torch._dynamo to shield four methods from a compiler nobody started.

    The mark is the one that torch sets itself after that import; the optimiser is never compiled here.
    """
    for method in (
        Optimizer.add_param_group,
        Optimizer.state_dict,
        Optimizer.load_state_dict,
        Optimizer.zero_grad,
    ):
        plain = inspect.unwrap(method)
        if plain is not method and not hasattr(plain, "__dynamo_disable"):
            setattr(plain, "__dynamo_disable", plain)


def learning_rate_factor(recipe: Recipe, step: int, total_steps: int) -> float:
    """Return the learning-rate factor of step `step` (from 0): in (0, 1].

    Warm-up rises linearly over ``round(warmup * total_steps)`` steps, from 1 / (warm-up steps + 1). After it,
    cosine and linear fall from 1 towards 0, which they would reach at `total_steps`; ``step`` drops tenfold at each
    milestone, a fraction of all steps. (timm's schedulers with ``warmup_prefix``, except that ``step`` counts its
    milestones from the start of training.)
    """
    warmup_steps = round(recipe.warmup * total_steps)
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    progress = (step - warmup_steps) / (total_steps - warmup_steps)
    if recipe.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    if recipe.schedule == "linear":
        return 1 - progress
    if recipe.schedule == "step":
        return 0.1 ** sum(round(milestone * total_steps) <= step for milestone in recipe.schedule_milestones)
    return 1.0


def set_learning_rate(optimizer: Optimizer, factor: float) -> None:
    """Set each group's rate to `factor` times its initial one (and its ``lr_scale``, where timm set one)."""
    for group in optimizer.param_groups:
        group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor * group.get("lr_scale", 1.0)
