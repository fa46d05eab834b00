"""Variances of estimators of the ELBO's gradient by the encoder's weights (section 2.2 to 2.4, appendix B)."""

from collections.abc import Callable

import torch
from torch import Tensor

from replications.layers.density.latent import LatentDensity, closed_kl

BASELINE_SAMPLES = 50


def gradient_variances(model: LatentDensity, image: Tensor, draws: int) -> dict[str, float]:
    """Return the trace of the covariance over `draws` draws of each estimator, of the images' mean ELBO.

    ``path``: through z = mean + std * noise, closed KL. ``path_sampled``: the same with log q(z|x) - log p(z) in the
    KL's place. ``score``: log p(x|z) times the gradient of log q(z|x), closed KL. ``score_baseline``: log p(x|z)
    less its mean over 50 other samples of the image.
    """
    weights = list(model.encoder.parameters())
    found = {}
    with torch.enable_grad():
        for name, surrogate in estimators(model, image).items():
            total = squares = 0.0
            for _ in range(draws):
                grads = torch.autograd.grad(surrogate(), weights)
                flat = torch.cat([grad.flatten() for grad in grads]).double()
                total, squares = total + flat, squares + flat.square().sum()
            found[name] = ((squares - total.square().sum() / draws) / (draws - 1)).item()
    return found


def estimators(model: LatentDensity, image: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Return functions by name that draw a scalar whose gradient by the encoder is an unbiased one of the ELBO."""

    def draw() -> tuple[Tensor, Tensor, Tensor]:
        mean, log_std = model.encode(image)
        return mean, log_std, mean + log_std.exp() * torch.randn_like(mean)

    def path() -> Tensor:
        mean, log_std, z = draw()
        return (model.log_likelihood(image, z) - closed_kl(mean, log_std)).mean()

    def path_sampled() -> Tensor:
        mean, log_std, z = draw()
        return (model.log_likelihood(image, z) - 0.5 * (z**2).sum(-1) - log_normal(z, mean, log_std)).mean()

    def score(baseline: bool) -> Tensor:
        mean, log_std, z = draw()
        z = z.detach()
        with torch.no_grad():
            reward = model.log_likelihood(image, z)
            if baseline:
                noise = torch.randn(BASELINE_SAMPLES, *mean.shape, dtype=mean.dtype, device=mean.device)
                reward = reward - model.log_likelihood(image, mean + log_std.exp() * noise).mean(0)
        return (reward * log_normal(z, mean, log_std) - closed_kl(mean, log_std)).mean()

    return {
        "path": path,
        "path_sampled": path_sampled,
        "score": lambda: score(False),
        "score_baseline": lambda: score(True),
    }


def log_normal(z: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Return the log-density of a diagonal normal, without its constant, ``[batch]``."""
    return (-0.5 * ((z - mean) / log_std.exp()) ** 2 - log_std).sum(-1)
