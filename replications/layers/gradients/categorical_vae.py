"""A variational autoencoder with one-hot latents and a uniform prior, on binary images."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from replications.layers.gradients.distributions import OneHot
from replications.layers.gradients.model import Estimator
from replications.training.stage import Batch


class CategoricalVAE(nn.Module):
    """Images ``[batch, pixels]`` of 0 and 1; latents ``[batch, variables, categories]``; one hidden layer each way.

    The encoder's gradient through the reconstruction is the estimator's; that of the KL term is exact. The decoder's
    output starts at `start` ``[pixels]``. Where it has to learn the pixels' means first, the KL term can close the
    latents meanwhile.
    """

    def __init__(self, estimator: Estimator, start: Tensor, variables: int, categories: int, hidden: int):
        super().__init__()
        self.estimator, self.shape = estimator, (variables, categories)
        pixels, latents = len(start), variables * categories
        self.encoder = nn.Sequential(nn.Linear(pixels, hidden), nn.Tanh(), nn.Linear(hidden, latents))
        self.decoder = nn.Sequential(nn.Linear(latents, hidden), nn.Tanh(), nn.Linear(hidden, pixels))
        with torch.no_grad():
            self.decoder[-1].bias.copy_(start.clamp(0.01, 0.99).logit())

    def posterior(self, image: Tensor) -> OneHot:
        return OneHot(self.encoder(image).unflatten(-1, self.shape))

    def reconstruction(self, image: Tensor, y: Tensor) -> Tensor:
        """Return -log p(x | y) ``[batch]`` in nats."""
        logits = self.decoder(y.flatten(-2))
        return F.binary_cross_entropy_with_logits(logits, image.expand_as(logits), reduction="none").sum(-1)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return minus the bound at the estimator's own draws, which a relaxed draw makes no bound, and its parts."""
        image = batch["image"]
        q = self.posterior(image)
        reconstruction = self.estimator.surrogate(lambda y: self.reconstruction(image, y), q)
        kl = q.kl_to_uniform()
        return {
            "loss": (reconstruction + kl).mean(),
            "reconstruction": reconstruction.detach().mean(),
            "kl": kl.detach().mean(),
        }

    def nelbo(self, image: Tensor, draws: int) -> tuple[Tensor, Tensor]:
        """Return minus the bound at `draws` hard draws, their mean ``[batch]``, and the KL term ``[batch]``."""
        q = self.posterior(image)
        kl = q.kl_to_uniform()
        return sum(self.reconstruction(image, q.sample()) for _ in range(draws)) / draws + kl, kl
