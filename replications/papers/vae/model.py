"""The variational autoencoder (Kingma and Welling, ICLR 2014) on binary images."""

import torch
from torch import Tensor

from replications.layers.density.latent import LatentDensity, closed_kl
from replications.layers.density.model import Measures
from replications.papers.vae.gradients import gradient_variances

GRADIENT_IMAGES = 50


class VAE(LatentDensity):
    """Trained on the ELBO with the closed-form KL (eq. 10) and one sample an image; `beta` weighs the KL.

    `gradient_draws`: so often each estimator of the encoder's gradient is drawn after training, for its variance.
    """

    def __init__(self, pixels: int, latents: int, hidden: int, beta: float, autoregressive: bool, gradient_draws: int):
        super().__init__(pixels, latents, hidden, autoregressive)
        self.beta, self.gradient_draws = beta, gradient_draws

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return ``loss``, nats an image, and its parts."""
        image = batch["image"]
        mean, log_std = self.encode(image)
        z = mean + log_std.exp() * torch.randn_like(mean)
        reconstruction = -self.log_likelihood(image, z).mean()
        kl = closed_kl(mean, log_std).mean()
        return {"loss": reconstruction + self.beta * kl, "reconstruction": reconstruction, "kl": kl}

    def measure(self, image: Tensor) -> Measures:
        found = super().measure(image)
        if self.gradient_draws:
            variances = gradient_variances(self, image[:GRADIENT_IMAGES], self.gradient_draws)
            found.metrics |= {f"gradient_variance_{name}": value for name, value in variances.items()}
        return found


def build(
    shape: tuple[int, int],
    *,
    hidden: int,
    latents: int = 8,
    beta: float = 1.0,
    autoregressive: bool = False,
    gradient_draws: int = 0,
) -> VAE:
    """Return a VAE; with `autoregressive` a pixel also sees those before it."""
    return VAE(shape[0] * shape[1], latents, hidden, beta, autoregressive, gradient_draws)
