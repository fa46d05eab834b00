"""A run: the estimator on problems with a known gradient; then, for one-hot variables, in an autoencoder."""

import numpy as np
import torch

from replications.errors import UserError
from replications.layers.gradients.categorical_vae import CategoricalVAE
from replications.layers.gradients.distributions import OneHot
from replications.layers.gradients.leave_one_out import LeaveOneOut
from replications.layers.gradients.model import Estimator
from replications.spec import Recipe
from replications.tasks.data import Splits, open_prepared, set_key
from replications.tasks.gradient_estimation.measures import measure
from replications.tasks.gradient_estimation.rescore import rescore
from replications.tasks.run import Context, Evaluation, changed_recipe
from replications.training.batches import DeviceBatches
from replications.training.determinism import seed_everything
from replications.training.stage import Stage, Workload

CHECKPOINT = LeaveOneOut(2)  # trains the network at which all gradients of a seed are compared: it has no bias


class Digits(Splits):
    """Grey images of a prepared set, binarised at half: float ``[n, pixels]`` of 0 and 1 on a device."""

    def __init__(self, context: Context):
        self.key = set_key(context, "images")
        found = open_prepared(self.key, context.data_root, "images", ("images", "split"))
        self.images, self.split = found.arrays["images"], np.asarray(found.arrays["split"])
        self.device, self.shrink = context.device, context.options.network.shrink

    def part(self, split: str) -> torch.Tensor:
        grey = np.asarray(self.images[self.rows(split, needed=True)], np.float32)[..., 0]
        n, side, s = len(grey), grey.shape[1] // self.shrink, self.shrink
        if not side:
            raise UserError(f"task option network: shrink {s} leaves no pixel of images of {grey.shape[1]}")
        grey = grey[:, : side * s, : side * s].reshape(n, side, s, side, s).mean((2, 4))
        return torch.from_numpy((grey > 127.5).astype(np.float32).reshape(n, -1)).to(self.device)


def execute(context: Context) -> Evaluation:
    """Measure the estimator where the gradient is known; train and judge the network by it where it can."""
    estimator = context.build("estimator")
    evaluation = Evaluation({"evaluations": float(estimator.evaluations)}, category="gradients of expectations")
    evaluation.arrays = measure(estimator, context.options, context.spec.seed)
    if context.options.network and OneHot in estimator.families:
        _network(context, estimator, evaluation)
    evaluation.metrics |= rescore(evaluation.arrays)
    return evaluation


def workload(context: Context) -> Workload | None:
    """Return a training step of the network, and inference: the posterior's logits. None where none is trained."""
    estimator = context.build("estimator")
    if not context.options.network or OneHot not in estimator.families:
        return None
    digits = Digits(context)
    stage = _stage("train", context, digits, estimator, context.spec.recipe)
    image = {"image": digits.part("test")[: context.spec.recipe.batch_size]}
    return Workload(
        stage, stage.batches.batch(0), lambda m, x: m.posterior(x["image"]).parameter, image, context.device
    )


def _stage(name: str, context: Context, digits: Digits, estimator: Estimator, recipe: Recipe) -> Stage:
    images, options, seed = digits.part("train"), context.options.network, context.spec.seed
    seed_everything(seed, name, "weights")  # whatever the estimator drew when it was built
    start = images.mean(0).cpu() if options.start_at_mean else torch.full(images.shape[1:], 0.5)
    module = CategoricalVAE(estimator, start, options.variables, options.categories, options.hidden)
    batches = DeviceBatches({"image": images}, recipe.batch_size, seed, device=context.device)

    def validate(module: CategoricalVAE) -> dict[str, float]:
        seed_everything(seed, "validation")
        with torch.no_grad():
            return {"nelbo": float(module.nelbo(digits.part("validation"), options.bound_draws)[0].mean())}

    has_validation = len(digits.rows("validation")) > 0
    return Stage(name, module.to(context.device), batches, recipe, validate if has_validation else None, "nelbo", False)


def _network(context: Context, estimator: Estimator, evaluation: Evaluation) -> None:
    digits, options = Digits(context), context.options.network
    changes = {"steps": options.checkpoint_steps, "lr": options.checkpoint_lr, "validate_every": None}
    recipe = changed_recipe(context.spec.recipe, changes, "checkpoint")
    checkpoint = _stage("checkpoint", context, digits, CHECKPOINT, recipe)
    context.train(checkpoint)
    checkpoint.module.estimator = estimator
    batch = checkpoint.batches.batch(0)
    seed_everything(context.spec.seed, "variance")
    variance = encoder_variance(checkpoint.module, batch["image"], options.variance_draws) * estimator.evaluations

    stage = _stage("train", context, digits, estimator, context.spec.recipe)
    context.train(stage)
    test, module = digits.part("test"), stage.module
    seed_everything(context.spec.seed, "test")
    with torch.no_grad():
        nelbo, kl = module.nelbo(test, options.bound_draws)
    own = np.mean([module({"image": test})["loss"].item() for _ in range(options.bound_draws)])
    evaluation.arrays |= {"nelbo": nelbo.double().cpu().numpy(), "kl": kl.detach().double().cpu().numpy()}
    evaluation.metrics |= {"nelbo_gap": float(nelbo.double().mean() - own), "encoder_variance": variance}
    evaluation.data["images"] = {"pixels": test.shape[1], "test": len(test)}
    evaluation.count(module, lambda: module.posterior(test[:1]).parameter)


def encoder_variance(module: CategoricalVAE, image: torch.Tensor, draws: int) -> float:
    """Return the variance of the encoder's gradient on one batch, summed over the weights, from so many gradients."""
    weights = list(module.encoder.parameters())
    gradients = []
    for _ in range(draws):
        found = torch.autograd.grad(module({"image": image})["loss"], weights)
        gradients.append(torch.cat([part.flatten() for part in found]))
    return float(torch.stack(gradients).double().var(0).sum())
