"""A run from its spec to its evaluation: the denoiser is trained on points, then samples and densities are compared."""

import numpy as np
import torch
from torch import Tensor

from replications.errors import RunFailure
from replications.layers.diffusion.states import last
from replications.layers.planar.density import PlanarDensity, planar_density
from replications.layers.planar.model import PointModel, Sampler
from replications.tasks.run import Context, Evaluation
from replications.tasks.toy_density.rescore import rescore
from replications.tasks.toy_density.truth import category_of, truth_of
from replications.training.batches import DeviceBatches
from replications.training.determinism import generator_for, scoring, seed_everything
from replications.training.stage import Stage, Workload

SCORE_LEVELS = np.geomspace(0.05, 5, 9).tolist()  # sigma of y = x + sigma eps
FRAMES = 6


def execute(context: Context) -> Evaluation:
    """Train the denoiser, draw by each sampler, and compare with the density."""
    options = context.options
    density = planar_density(options.density).to(context.device)
    stage = make_stage(context, density)
    model = stage.module
    if any(parameter.requires_grad for parameter in model.parameters()):
        context.train(stage)
    model.eval()
    truth = truth_of(options.density, density, options.samples)
    test = points(context, density, "test", options.test_points)
    evaluation = Evaluation({}, category=category_of(density, truth), arrays=truth)
    for place, (name, sampler) in enumerate(model.samplers().items()):
        suffix = f"_{name}" if place else ""
        evaluation.arrays[f"samples{suffix}"] = draw(context, model, name, sampler)
        before = model.denoiser.passes
        with torch.no_grad():
            last(sampler.states(torch.zeros(1, 2, device=context.device)))
        evaluation.metrics[f"evaluations{suffix}"] = float(model.denoiser.passes - before)
    seed_everything(context.spec.seed, "test")
    with scoring(context.spec.recipe.precision, context.device):
        evaluation.arrays["log_prob"] = density.log_prob(test).cpu().numpy()
        for name, values in model.log_probs(test).items():
            evaluation.arrays[f"log_prob_{name}"] = values.double().cpu().numpy()
        evaluation.metrics |= model.measure(test) | {"score_error": score_error(model, test)}
        evaluation.arrays |= pictured(context, model)
        evaluation.count(model, lambda: model.denoiser(test[:1], 1.0))
    evaluation.metrics |= rescore(evaluation.arrays)
    evaluation.data["points"] = {"train": options.train_points, "test": options.test_points, "real": options.samples}
    return evaluation


def workload(context: Context) -> Workload:
    """Return a training step, and inference: the denoised points of one noise level."""
    density = planar_density(context.options.density).to(context.device)
    stage = make_stage(context, density)
    inputs = {"x": points(context, density, "test", context.options.test_points)}
    return Workload(
        stage, stage.batches.batch(0), lambda model, batch: model.denoiser(batch["x"], 1.0), inputs, context.device
    )


def make_stage(context: Context, density: PlanarDensity) -> Stage:
    """Return what is trained: batches have ``x`` float32 [n, 2]; validation is the score's error on other points."""
    model = context.build("model", density=density).to(context.device)
    seed, recipe = context.spec.seed, context.spec.recipe
    train = density.sample(context.options.train_points, generator_for("toy", "train", seed))
    batches = DeviceBatches({"x": train}, recipe.batch_size, seed, device=context.device)

    def validate(model: PointModel) -> dict[str, float]:
        with scoring(recipe.precision, context.device):
            return {"score_error": score_error(model, points(context, density, "validation", 1000))}

    return Stage("train", model, batches, recipe, validate=validate)


def points(context: Context, density: PlanarDensity, use: str, count: int) -> Tensor:
    """Return real points for a use, the same for all seeds, float32 ``[count, 2]``."""
    return density.sample(count, generator_for("toy", context.options.density, use)).to(context.device)


def draw(context: Context, model: PointModel, name: str, sampler: Sampler) -> np.ndarray:
    """Return samples [N, 2]; raises RunFailure ``diverged`` where some are not finite."""

    def chunk(count: int) -> Tensor:
        return sampler.draw(torch.randn(count, 2, device=context.device))

    found = context.sample(name, context.options.samples, chunk, context.options.sample_batch).numpy()
    lost = int((~np.isfinite(found)).any(1).sum())
    if lost:
        raise RunFailure("diverged", f"sampler '{name}': {lost} of {len(found)} samples are not finite")
    return found


def score_error(model: PointModel, x: Tensor) -> float:
    """Return the mean over levels, points and coordinates of ``sigma^2 (score - exact score)^2``."""
    generator, errors = generator_for("toy", "score"), []
    for sigma in SCORE_LEVELS:
        y = x + sigma * torch.randn(x.shape, generator=generator).to(x.device)
        missed = (model.denoiser(y, sigma) - model.density.denoise(y, sigma)) / sigma
        errors.append(missed.double().square().mean().item())
    return float(np.mean(errors))


def pictured(context: Context, model: PointModel) -> dict[str, np.ndarray]:
    """Return what pictures show of the first sampler and the ODE: ``strip`` [frames, N, 2], ``path`` [states, n, 2]."""
    noise = torch.randn(context.options.samples, 2, generator=generator_for("toy", "shown")).to(context.device)
    sampler = next(iter(model.samplers().values()))
    states = list(sampler.states(sampler.start * noise[:1000]))
    kept = np.linspace(0, len(states) - 1, FRAMES).round().astype(int)
    found = {"strip": torch.stack([states[place] for place in kept]).cpu().numpy().astype(np.float32)}
    path = model.path(noise[: context.options.shown])
    if path is not None:
        found["path"] = torch.stack(list(path)).cpu().numpy().astype(np.float32)
    return found
