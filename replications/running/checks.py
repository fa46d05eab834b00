"""The checks of `doctor`, one function per group: a training step on a device against the CPU, determinism, resuming.

A figure is a relative error in the Euclidean norm unless its name says otherwise.
"""

import math
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from replications.layers.points import checks as host
from replications.layers.points.interpolation import interpolate
from replications.layers.points.neighbours import ball_query, gather, knn
from replications.layers.points.pooling import maximum
from replications.layers.points.sampling import farthest_point_sample
from replications.measurement.syncs import HostWaits
from replications.running.context import make_workload
from replications.running.equal_draws import equal_draws
from replications.spec import RunSpec
from replications.training.determinism import deterministic, float32_precision, seed_everything
from replications.training.distribution import Distribution
from replications.training.loop import train
from replications.training.meter import Meter
from replications.training.moves import norm_names
from replications.training.stage import Batch, Stage
from replications.training.update import Updater

CPU = torch.device("cpu")
STEPS = 1000  # training after which a single step is checked
LOSS, GRADIENT, BATCH = 1e-4, 1e-3, 1e-4  # error that rounding explains in a well-conditioned step
AWAKE = 0.02  # standard deviation for parameters initialised to zero
NUDGE = 1e-6  # relative random perturbation of all weights, to measure the sensitivity of loss and gradient to rounding
MOST = 0.1  # upper limit of the tolerance, however ill-conditioned the step
BF16 = 0.1  # error of the loss against float32, mostly from a few proposals that change class
RESUMED_AT, RESUME_STEPS = 3, 6


@dataclass
class Finding:
    """One line of the doctor: ``ok``, ``differs``, or ``declared`` where the stage says that its bits vary."""

    check: str
    verdict: str
    figure: float | None = None
    details: dict[str, Any] = field(default_factory=dict)


def relative_error(found: Tensor, wanted: Tensor) -> float:
    """Return the norm of the difference over the norm of the expected value."""
    found, wanted = found.detach().double().cpu(), wanted.detach().double().cpu()
    return float((found - wanted).norm() / wanted.norm().clamp_min(1e-12))


def step(spec: RunSpec, data_root: Path, device: torch.device) -> list[Finding]:
    """Compare a method's batch, loss and gradients with the CPU's, check bfloat16, and repeat a step.

    Returns nothing for a method that trains no weights.
    """
    load = make_workload(spec, data_root, device)
    stage = load.stage
    if not any(parameter.requires_grad for parameter in stage.module.parameters()):
        return []
    wanted = make_workload(spec, data_root, CPU).batch
    state = _awake(stage.module)
    with deterministic(not stage.nondeterministic):
        found = [_batches(load.batch, wanted), *_gradients(stage, state, wanted, device)]
        found.append(_repeat(stage, state, device))
    return found


def _awake(module: nn.Module) -> Batch:
    """Return a module's state on the CPU; parameters initialised to zero are perturbed, so that gradients pass them."""
    generator = torch.Generator().manual_seed(0)
    state = {name: value.to("cpu", copy=True) for name, value in module.state_dict().items()}
    for name, parameter in module.named_parameters():
        if name in state and parameter.is_floating_point() and not state[name].any():
            state[name] += AWAKE * torch.randn(parameter.shape, generator=generator)
    return state


def _batches(found: Batch, wanted: Batch) -> Finding:
    errors = {
        name: relative_error(found[name], value)
        if value.is_floating_point()
        else (found[name].cpu() != value).double().mean().item()
        for name, value in wanted.items()
    }
    worst = max(errors, key=errors.get)
    return Finding("batch", _verdict(errors[worst] <= BATCH), errors[worst], {"worst": worst})


@dataclass
class Taken:
    """Losses and gradients of a step, by name; names of a turn include it."""

    losses: dict[str, float]
    gradients: dict[str, Tensor]

    @property
    def loss(self) -> Tensor:
        return torch.tensor([value for name, value in self.losses.items() if name.endswith("loss")])

    @property
    def gradient(self) -> Tensor:
        return torch.cat([value.flatten().double() for value in self.gradients.values()])

    @property
    def finite(self) -> bool:
        return all(map(math.isfinite, self.losses.values())) and bool(self.gradient.isfinite().all())


def _gradients(stage: Stage, state: Batch, batch: Batch, device: torch.device) -> list[Finding]:
    with float32_precision("float32"):
        generator = torch.Generator().manual_seed(0)
        nudged = {
            name: value * (1 + NUDGE * torch.randn(value.shape, generator=generator))
            if value.is_floating_point()
            else value
            for name, value in state.items()
        }
        wanted, moved = (take_losses(stage, weights, batch, CPU) for weights in (state, nudged))
        with as_on(device):
            found = take_losses(stage, state, batch, device)
            half = take_losses(stage, state, batch, device, "bf16")
    loss, gradient = relative_error(found.loss, wanted.loss), relative_error(found.gradient, wanted.gradient)
    shaken = relative_error(moved.loss, wanted.loss), relative_error(moved.gradient, wanted.gradient)
    limits = [min(MOST, max(least, 10 * size)) for least, size in zip((LOSS, GRADIENT), shaken, strict=True)]
    worst = max(wanted.gradients, key=lambda name: relative_error(found.gradients[name], wanted.gradients[name]))
    halved = relative_error(half.loss, found.loss)
    rounded = {"finite": half.finite, "gradients": relative_error(half.gradient, found.gradient)}
    about = {"loss": wanted.losses, "error": loss, "limit": limits[0], "nudged": shaken[0]}
    return [
        Finding("loss", _verdict(loss <= limits[0] and found.finite), loss, about),
        Finding(
            "gradients",
            _verdict(gradient <= limits[1] and found.finite),
            gradient,
            {"limit": limits[1], "nudged": shaken[1], "worst": worst},
        ),
        Finding("bf16", _verdict(half.finite and halved <= BF16), halved, rounded),
    ]


def take_losses(stage: Stage, state: Batch, batch: Batch, device: torch.device, precision: str = "float32") -> Taken:
    """Return losses and gradients of each update of a step from `state`, with equal random draws on all devices."""
    recipe = stage.recipe.model_copy(update={"precision": precision, "compile": False})
    updater = _updater(replace(stage, recipe=recipe), state, device)
    batch = {name: value.to(device) for name, value in batch.items()}
    names = {id(parameter): name for name, parameter in stage.module.named_parameters()}
    taken = Taken({}, {})
    for move in updater.moves:
        seed_everything(0, "doctor", move.name)
        with equal_draws():
            losses = updater.losses(batch, move)
        losses["loss"].backward()
        label = f"{move.name}_" if move.name else ""
        taken.losses |= {f"{label}{name}": float(value.detach()) for name, value in losses.items()}
        taken.gradients |= {
            f"{label}{names[id(p)]}": p.grad.to("cpu", copy=True) for p in move.parameters if p.grad is not None
        }
        updater.release()
    return taken


def _updater(stage: Stage, state: Batch, device: torch.device) -> Updater:
    module = stage.module.to(device)
    if stage.recipe.channels_last:
        module.to(memory_format=torch.channels_last)
    module.load_state_dict(state)
    module.train()
    if hasattr(module, "on_step"):
        module.on_step(0, STEPS)
    meter = Meter(2, device, Distribution(), norm_names(stage))
    return Updater(stage, device, Distribution(), STEPS, meter)


def _repeat(stage: Stage, state: Batch, device: torch.device) -> Finding:
    """Take two steps from one state, twice; count at the second how often the host waited for the device."""
    ends, waits = [], 0
    with float32_precision(stage.recipe.precision):
        for _ in range(2):
            updater = _updater(stage, state, device)
            seed_everything(0, "doctor", "repeat")
            updater.take(0)
            with counted_waits(device) as counted:
                updater.take(1)
            waits = counted["waits"]
            ends.append({name: value.to("cpu", copy=True) for name, value in stage.module.state_dict().items()})
    return _same_bits("repeat", *ends, stage, {"waits": waits})


def _same_bits(check: str, one: Batch, other: Batch, stage: Stage, details: dict[str, Any]) -> Finding:
    apart = [name for name in one if not torch.equal(one[name], other[name])]
    if not apart:
        return Finding(check, "ok", 0.0, details)
    error = max(relative_error(one[name], other[name]) for name in apart)
    declared = {"declared": stage.nondeterministic} if stage.nondeterministic else {}
    return Finding(check, "declared" if declared else "differs", error, {**details, "worst": apart[0], **declared})


@contextmanager
def counted_waits(device: torch.device) -> Iterator[dict[str, int]]:
    """Count how often a block synchronises with the device, by CUDA's warnings; on a CPU by the device's code paths."""
    counted = {"waits": 0}
    if device.type == "cuda":
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                yield counted
            finally:
                torch.cuda.set_sync_debug_mode("default")
        counted["waits"] = sum("synchronizing CUDA operation" in str(warning.message) for warning in said)
    else:
        with as_on(device), HostWaits() as waits:
            yield counted
        counted["waits"] = sum(waits.found.values())


@contextmanager
def as_on(device: torch.device) -> Iterator[None]:
    """On a CPU, let point operations take their accelerator code paths, so that these are tested."""
    if device.type != "cpu":
        yield
        return
    with mock.patch.object(host, "on_host", lambda tensor: False):
        yield


def resume(spec: RunSpec, data_root: Path, device: torch.device) -> list[Finding]:
    """Train six steps without and with an interruption; weights and losses must be bit-identical."""

    class Stop(Exception):
        pass

    def stage() -> Stage:
        found = make_workload(spec, data_root, device).stage
        recipe = found.recipe.model_copy(update={"steps": RESUME_STEPS, "epochs": None, "checkpoint_seconds": 0.0})
        return replace(found, recipe=recipe.model_copy(update={"select": "last"}), validate=None)

    def stop(point, steps: int) -> None:
        if point.step > RESUMED_AT:  # its checkpoint is not yet written, so the previous one is the last
            raise Stop

    whole, cut, again = stage(), stage(), stage()
    if not any(parameter.requires_grad for parameter in whole.module.parameters()):
        return []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        one = train(whole, work=work / "whole", seed=7, device=device)
        with suppress(Stop):
            train(cut, work=work / "cut", seed=7, device=device, on_progress=stop)
        two = train(again, work=work / "cut", seed=7, device=device)
    if two.resumed != 1:
        return [Finding("resume", "differs", None, {"why": "it was not resumed"})]
    ends = []
    for trained, result in ((whole, one), (again, two)):
        history = torch.tensor([value for point in result.history for value in point.values.values()])
        ends.append({**trained.module.state_dict(), "history": history})
    return [_same_bits("resume", *ends, whole, {"steps": two.steps})]


def point_operations(device: torch.device) -> list[Finding]:
    """Compare point operations with the CPU's on clouds with ties, duplicates and borders: indices must be equal."""
    found = []
    sizes = [(64, 16, 8), (1024, 256, 32), (4100, 300, 64)]
    for n, m, k in sizes if device.type == "cpu" else [*sizes, (20000, 2048, 64)]:
        clouds = _awkward_clouds(n)
        wanted = _operate(clouds, m, k)
        with as_on(device):
            other = _operate({name: value.to(device) for name, value in clouds.items()}, m, k)
        for name, value in wanted.items():
            if value.is_floating_point():
                error, limit = relative_error(other[name], value), 1e-6
            else:
                error, limit = (other[name].cpu() != value).double().mean().item(), 0.0
            found.append(Finding(f"{name} of {n}", _verdict(error <= limit), error))
    return found


def _awkward_clouds(n: int) -> dict[str, Tensor]:
    """Return a cloud on a grid, where distances tie and meet the radius, one with duplicates, and features."""
    generator = torch.Generator().manual_seed(n)
    grid = torch.randint(0, 17, (1, n, 3), generator=generator) / 16
    loose = torch.rand(1, n, 3, generator=generator)
    loose[:, n // 2 :: 7] = loose[:, : len(range(n // 2, n, 7))]
    features = torch.randint(0, 4, (2, n, 5), generator=generator).float()
    return {"points": torch.cat([grid, loose]), "features": features}


def _operate(clouds: dict[str, Tensor], m: int, k: int) -> dict[str, Tensor]:
    points, features = clouds["points"], clouds["features"].clone().requires_grad_()
    chosen = farthest_point_sample(points, m)
    centres = gather(points, chosen)
    lost = torch.cat([centres[:, : m // 2], centres[:, m // 2 :] + 3.0], dim=1)  # half of them far from any point
    distance, near = knn(centres, points, k)
    pooled = maximum(gather(features, near), 2)
    pooled.square().sum().backward()
    return {
        "farthest points": chosen, "nearest": near, "distances": distance,
        "ball": ball_query(lost, points, 0.125, k), "interpolation": interpolate(centres, points, clouds["features"]),
        "maximum": pooled.detach(), "gradient of the maximum": features.grad,
    }  # fmt: skip


def _verdict(good: bool) -> str:
    return "ok" if good else "differs"
