"""Importance weighted autoencoders: the VAE's networks, trained on a tighter bound (Burda et al., ICLR 2016)."""

from torch import Tensor

from replications.layers.density.latent import LatentDensity
from replications.layers.density.model import log_mean_exp


class IWAE(LatentDensity):
    """Trained on L_k = E log (1/k) sum_i p(x, z_i) / q(z_i|x) (eq. 8), or, not `inside`, on the mean of k ELBOs."""

    def __init__(self, pixels: int, latents: int, hidden: int, samples: int, inside: bool):
        super().__init__(pixels, latents, hidden)
        self.samples, self.inside = samples, inside

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return ``loss``, nats an image. Automatic differentiation gives the normalised weights of eq. 14."""
        weights = self.log_weights(batch["image"], self.samples)
        return {"loss": -(log_mean_exp(weights, 1) if self.inside else weights.mean(1)).mean()}


def build(shape: tuple[int, int], *, hidden: int, latents: int = 8, samples: int = 5, inside: bool = True) -> IWAE:
    """Return the model; `inside` False has the mean outside of the log, a VAE of several samples."""
    return IWAE(shape[0] * shape[1], latents, hidden, samples, inside)
