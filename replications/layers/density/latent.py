"""Densities with latents: an encoder q(z|x), a decoder p(x|z), and the bounds between them (VAE, IWAE)."""

import math

import torch
from torch import Tensor, nn

from replications.layers.density.masked import MaskedLinear, before
from replications.layers.density.model import Density, Measures, log_bernoulli

ACTIVE = 0.01  # variance of the posterior mean over the data, Burda et al. 2016, section 5
GRID = 6.0, 241  # half the width and the points of each axis: prior mass beyond it is below 1e-8
PLANE = 2.5, 15
SILENT = 0.01  # what a mean pixel is clipped to before its logit


class LatentDensity(Density):
    """z ~ N(0, I), p(x|z) of independent pixels or, `autoregressive`, of pixels that also see those before them.

    q(z|x) is normal with a diagonal covariance. Both networks have one hidden layer of tanh units. A subclass gives
    `forward`.
    """

    kind = "bound"

    def __init__(self, pixels: int, latents: int, hidden: int, autoregressive: bool = False):
        super().__init__()
        self.pixels, self.latents = pixels, latents
        self.encoder = nn.Sequential(nn.Linear(pixels, hidden), nn.Tanh(), nn.Linear(hidden, 2 * latents))
        self.decoder = nn.Sequential(nn.Linear(latents, hidden), nn.Tanh(), nn.Linear(hidden, pixels))
        self.context = MaskedLinear(pixels, pixels, before(pixels), bias=False) if autoregressive else None

    def fit(self, image: Tensor) -> None:
        """Start the output's bias at the logit of the mean pixel, as the authors of IWAE do."""
        with torch.no_grad():
            self.decoder[-1].bias.copy_(image.mean(0).clamp(SILENT, 1 - SILENT).logit())

    def encode(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log standard deviation of q(z|x), ``[batch, latents]`` each."""
        mean, log_std = self.encoder(image).chunk(2, -1)
        return mean, log_std

    def log_likelihood(self, image: Tensor, z: Tensor) -> Tensor:
        """Return log p(x|z): images ``[..., pixels]`` and latents ``[..., latents]`` broadcast."""
        logits = self.decoder(z)
        return log_bernoulli(logits if self.context is None else logits + self.context(image), image)

    def log_weights(self, image: Tensor, samples: int) -> Tensor:
        """Return log p(x|z) + log p(z) - log q(z|x), ``[batch, samples]``."""
        self.passes += samples
        mean, log_std = (part[:, None] for part in self.encode(image))
        noise = torch.randn(len(image), samples, self.latents, dtype=mean.dtype, device=mean.device)
        z = mean + log_std.exp() * noise
        # The constants of both normal densities cancel.
        prior_less_posterior = (0.5 * (noise**2 - z**2) + log_std).sum(-1)
        return self.log_likelihood(image[:, None], z) + prior_less_posterior

    @torch.no_grad()
    def sample(self, count: int) -> Tensor:
        first = self.decoder[0].weight
        logits = self.decoder(torch.randn(count, self.latents, dtype=first.dtype, device=first.device))
        if self.context is None:
            self.passes += 1
            return torch.bernoulli(logits.sigmoid())
        image = torch.zeros_like(logits)
        for pixel in range(self.pixels):
            self.passes += 1
            image[:, pixel] = torch.bernoulli((logits + self.context(image))[:, pixel].sigmoid())
        return image

    @torch.no_grad()
    def measure(self, image: Tensor) -> Measures:
        """Return ``kl`` and ``active_units``; of two latents log p(x) by a grid and the decoder's means on a plane."""
        mean, log_std = self.encode(image)
        found = Measures(
            {
                "kl": closed_kl(mean, log_std).mean().item(),
                "active_units": float((mean.var(0) > ACTIVE).sum()),
            }
        )
        if self.latents == 2:
            found.arrays["latent_mean"] = mean.float().cpu().numpy()
            found.arrays["grid_log_prob"] = self.grid_log_prob(image).double().cpu().numpy()
            found.arrays["plane"] = self.decoder(square_grid(*PLANE, like=mean)).sigmoid().float().cpu().numpy()
        return found

    def grid_log_prob(self, image: Tensor, chunk: int = 8192) -> Tensor:
        """Return log p(x) by a sum over a square grid of z, ``[batch]``: exact but for its spacing of 0.05."""
        half, points = GRID
        spacing = 2 * half / (points - 1)
        total = image.new_full((len(image),), -math.inf)
        for z in square_grid(half, points, like=image).split(chunk):
            log_prior = -0.5 * (z**2).sum(-1) - math.log(2 * math.pi) + 2 * math.log(spacing)
            logits = self.decoder(z)
            if self.context is None:  # one matrix product for all images and points
                each = image @ logits.T - nn.functional.softplus(logits).sum(-1)
            else:
                each = torch.stack([self.log_likelihood(one, z) for one in image])
            total = torch.logaddexp(total, torch.logsumexp(each + log_prior, 1))
        return total


def closed_kl(mean: Tensor, log_std: Tensor) -> Tensor:
    """Return KL(N(mean, std^2) || N(0, I)), ``[batch]`` (Kingma and Welling 2014, appendix B)."""
    return 0.5 * (mean**2 + (2 * log_std).exp() - 1 - 2 * log_std).sum(-1)


def square_grid(half: float, points: int, like: Tensor) -> Tensor:
    """Return the points of a square grid, ``[points^2, 2]``, the second axis fastest."""
    axis = torch.linspace(-half, half, points, dtype=like.dtype, device=like.device)
    return torch.cartesian_prod(axis, axis)
