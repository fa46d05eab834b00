"""A run from its spec to its evaluation: the generator is trained, then its images are judged, once."""

import math
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from replications.errors import RunFailure
from replications.layers.generation.averaged import WithAverage
from replications.layers.generation.model import Generator, Sampler
from replications.tasks.data import set_key
from replications.tasks.image_generation.data import ImageSet, as_grey, open_images
from replications.tasks.image_generation.rescore import judge, rescore
from replications.tasks.run import Context, Evaluation
from replications.training.batches import DeviceBatches
from replications.training.determinism import generator_for, scoring, seed_everything
from replications.training.stage import Batch, Stage, Workload

FRAMES = 8
PAIRS, BETWEEN = 2, 16
TIMED = 1000


def execute(context: Context) -> Evaluation:
    """Train the generator, draw by each sampler, and compare with the test images."""
    data, options = open_images(set_key(context, "images"), context.data_root), context.options
    stage = make_stage(context, data)
    module = stage.module
    result = context.train(stage)
    module.eval()
    truth = {"reference": data.grey("test", options.reference)} | data.network
    evaluation = Evaluation({}, category=category_of(data, truth, options.samples), arrays=truth)
    with scoring(context.spec.recipe.precision, context.device):
        for name, (model, sampler) in drawn_by(module).items():
            evaluation.arrays[f"samples{name}"] = draw(context, name, model, sampler)
            before = model.passes
            sampler(model.noise(1))
            evaluation.metrics[f"evaluations{name}"] = float(model.passes - before)
        seed_everything(context.spec.seed, "test")
        model = module.averaged
        evaluation.metrics |= model.measure(data.batch("test")["image"].to(context.device))
        noise = torch.randn(options.shown, model.noise_size, generator=generator_for("generation", "shown"))
        test = data.batch("test")["image"][: options.shown]
        evaluation.arrays |= pictured(model, noise.to(context.device), test.to(context.device))
        evaluation.metrics["seconds_per_1000"] = _seconds(lambda: model.sample(TIMED), options.timed_runs)
        evaluation.count(model, lambda: model.sample(1))
    evaluation.metrics["step_ms"] = 1000 * result.seconds / result.steps
    evaluation.metrics |= rescore(evaluation.arrays)
    evaluation.data["images"] = {"set": data.key} | {split: len(data.rows(split)) for split in ("train", "validation")}
    evaluation.data["images"]["test"] = len(truth["reference"])
    evaluation.extra["shape"] = list(data.shape)
    return evaluation


def workload(context: Context) -> Workload:
    """Return a training step, and inference: images of noise."""
    data = open_images(set_key(context, "images"), context.data_root)
    stage = make_stage(context, data)
    noise = stage.module.raw.noise(context.options.sample_batch)

    def forward(module: WithAverage, inputs: Batch) -> Tensor:
        return next(iter(module.averaged.samplers().values()))(inputs["noise"])

    return Workload(stage, stage.batches.batch(0), forward, {"noise": noise}, context.device)


def make_stage(context: Context, data: ImageSet) -> Stage:
    """Return what is trained; validation compares images drawn at the end with the validation images."""
    options, seed = context.options, context.spec.seed
    generator = context.build("generator", shape=data.shape, classes=data.classes)
    module = WithAverage(generator, options.ema).to(context.device)
    train = {name: value.to(context.device) for name, value in data.batch("train").items()}
    batches = DeviceBatches(train, context.spec.recipe.batch_size, seed, device=context.device)

    def validate(module: WithAverage) -> dict[str, float]:
        truth, found = {"reference": data.grey("validation")} | data.network, {}
        module.eval()
        with scoring(context.spec.recipe.precision, context.device):
            for name, (model, sampler) in drawn_by(module).items():
                images = checked(sampler(model.noise(options.validation_samples)), name)
                found[f"frechet{name}"] = judge(as_grey(images), truth)["frechet"]
        return found

    return Stage("train", module, batches, context.spec.recipe, validate=validate, turns=module.turns)


def drawn_by(module: WithAverage) -> dict[str, tuple[Generator, Sampler]]:
    """Return model and sampler by the suffix of their metrics; the first sampler is judged with raw weights too."""
    first, *others = module.averaged.samplers().items()
    raw = next(iter(module.raw.samplers().values()))
    found = {"": (module.averaged, first[1]), "_raw": (module.raw, raw)}
    return found | {f"_{name}": (module.averaged, sampler) for name, sampler in others}


def draw(context: Context, name: str, model: Generator, sampler: Sampler) -> np.ndarray:
    """Return images uint8 [N, pixels]; raises RunFailure ``diverged`` where some are not finite."""
    options = context.options
    drawn = context.sample(
        f"images{name}", options.samples, lambda count: sampler(model.noise(count)), options.sample_batch
    )
    return as_grey(checked(drawn, name))


def checked(images: Tensor, name: str) -> Tensor:
    lost = int((~images.isfinite()).any(1).sum())
    if lost:
        raise RunFailure("diverged", f"sampler '{name.strip('_') or 'first'}': {lost} of {len(images)} are not finite")
    return images


def category_of(data: ImageSet, truth: dict[str, np.ndarray], samples: int) -> str:
    """Name set, counts and feature network, and the floor: what real images, of the training split, reach."""
    real = data.grey("train", samples)
    floor = judge(real, truth)
    return (
        f"{data.title}: {samples:,} samples, {len(truth['reference']):,} test images, features {data.features}; "
        f"{len(real):,} training images reach: Fréchet {floor['frechet']:.2f}, precision {floor['precision']:.2f}, "
        f"recall {floor['recall']:.2f}, sliced W1 {floor['sliced_wasserstein']:.3f}"
    )


@torch.no_grad()
def pictured(model: Generator, noise: Tensor, test: Tensor) -> dict[str, np.ndarray]:
    """Return images for pictures, uint8, of noise that methods share; those that the method has no way to are left out.

    * ``shown`` [n, pixels]; ``strip`` [frames, n, pixels] on the way from noise;
    * ``between`` [pairs, BETWEEN, pixels]: from one noise to another, on a great circle as both are normal;
    * ``pairs`` [2, n, pixels]: test images, and the same made of their codes; ``codes`` [codes, pixels].
    """
    found = {"shown": as_grey(next(iter(model.samplers().values()))(noise))}
    states = model.states(noise[:8])
    if states:
        kept = np.linspace(0, len(states) - 1, FRAMES).round().astype(int)
        found["strip"] = np.stack([as_grey(states[place]) for place in kept])
    if model.between:
        angle = torch.linspace(0, math.pi / 2, BETWEEN, device=noise.device)[:, None]
        one, other = noise[: 2 * PAIRS].unflatten(0, (-1, 2)).unbind(1)
        way = angle.cos() * one[:, None] + angle.sin() * other[:, None]
        images = model.samplers()[model.between](way.flatten(0, 1))
        found["between"] = as_grey(images).reshape(len(one), BETWEEN, -1)
    rebuilt, vocabulary = model.rebuild(test), model.vocabulary()
    if rebuilt is not None:
        found["pairs"] = np.stack([as_grey(test), as_grey(rebuilt)])
    if vocabulary is not None:
        found["codes"] = as_grey(vocabulary)
    return found


def _seconds(call: Callable[[], Tensor], runs: int) -> float:
    seconds = []
    for _ in range(runs + 1):  # the first warms up
        started = time.perf_counter()
        call().cpu()  # the copy waits for the device
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])
