"""Latent diffusion: an autoencoder, and a chain on its latents (Rombach et al., CVPR 2022)."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from replications.errors import UserError
from replications.layers.diffusion.chain import Chain, Denoise, ancestral
from replications.layers.diffusion.schedules import linear_betas
from replications.layers.diffusion.states import last
from replications.layers.generation.denoiser import ImageDenoiser
from replications.layers.generation.model import Generator, Sampler
from replications.training.stage import Batch

DROPPED = 0.1  # share of labels that are left out, for guidance
MOMENTUM = 0.99  # of the latents' mean and covariance


class Conditional(ImageDenoiser):
    """A denoiser of latents that is given a label, int64 ``[batch]``; the label `classes` stands for none."""

    def __init__(self, latent: int, width: int, depth: int, chain: Chain, classes: int):
        super().__init__(latent, width, depth, chain, "noise")
        self.classes = classes
        self.embedding = nn.Embedding(classes + 1, width)
        self.label: Tensor | None = None

    def output(self, x: Tensor, index: Tensor) -> Tensor:
        self.passes += 1
        hidden = self.net[0](torch.cat([x, self.time[index]], 1)) + self.embedding(self.label)
        return self.net[1:](hidden)

    def given(self, label: Tensor) -> "Conditional":
        """Return this denoiser, given labels until others are given."""
        self.label = label
        return self


class LatentDiffusion(Generator):
    """Autoencoder and chain learn in the same steps: the latents that the chain sees carry no gradient.

    Latents are scaled to a standard deviation of 1 by running averages, unless not `scaled`. The last number of the
    noise draws the label. Raises UserError for a set without labels.
    """

    def __init__(
        self,
        pixels: int,
        latent: int,
        width: int,
        depth: int,
        chain: Chain,
        classes: int,
        guidance: float,
        scaled: bool,
    ):
        if not classes:
            raise UserError("guidance needs a conditional model, and this data set has no labels")
        super().__init__(latent + 1)
        self.chain, self.guidance, self.scaled = chain, guidance, scaled
        self.encoder = perceptron(pixels, width, latent)
        self.decoder = perceptron(latent, width, pixels)
        self.denoiser = Conditional(latent, width, depth, chain, classes)
        self.register_buffer("mean", torch.zeros(latent))
        self.register_buffer("covariance", torch.eye(latent))

    @property
    def passes(self) -> int:
        return self.denoiser.passes

    def forward(self, batch: Batch, turn: str = "") -> dict[str, Tensor]:
        image, label = batch["image"], batch["label"]
        latent = self.encoder(image)
        rebuilt = (self.decoder(latent) - image).square().sum(1).mean()
        if self.training:
            self._follow(latent.detach())
        left_out = torch.rand(len(label), device=label.device) < DROPPED
        self.denoiser.given(label.masked_fill(left_out, self.denoiser.classes))
        chain = self.denoiser.error((latent.detach() - self.mean) / self.scale())
        return {
            "loss": rebuilt + 1e-3 * latent.square().sum(1).mean() + chain,
            "reconstruction": rebuilt,
            "chain": chain,
        }

    @torch.no_grad()
    def _follow(self, latent: Tensor) -> None:
        missed = latent - latent.mean(0)
        self.mean.lerp_(latent.mean(0), 1 - MOMENTUM)
        self.covariance.lerp_(missed.T @ missed / len(latent), 1 - MOMENTUM)

    def scale(self) -> Tensor:
        """Return the latents' standard deviations ``[latent]``, or ones where they are not scaled."""
        deviation = self.covariance.diagonal().clamp_min(1e-12).sqrt()
        return deviation if self.scaled else torch.ones_like(deviation)

    def samplers(self) -> dict[str, Sampler]:
        """Return the chain's samples, guided ones, and those of a Gaussian with the latents' mean and covariance."""
        return {
            "ancestral": self._chain,
            "guided": lambda noise: self._chain(noise, self.guidance),
            "gaussian": self._fit,
        }

    def _chain(self, noise: Tensor, guidance: float = 1.0) -> Tensor:
        latent, label = noise[:, :-1], self.labels(noise)
        return self._decode(last(ancestral(self.chain, self.denoise(label, guidance), latent)))

    def _fit(self, noise: Tensor) -> Tensor:
        root = torch.linalg.cholesky(self.covariance + 1e-6 * torch.eye(len(self.mean), device=noise.device))
        return self.decoder(self.mean + noise[:, :-1] @ root.T)

    def _decode(self, latent: Tensor) -> Tensor:
        return self.decoder(self.mean + self.scale() * latent)

    def labels(self, noise: Tensor) -> Tensor:
        """Return even labels by the quantile of the last number."""
        classes = self.denoiser.classes
        return (torch.special.ndtr(noise[:, -1]) * classes).long().clamp_max(classes - 1)

    def denoise(self, label: Tensor, guidance: float) -> Denoise:
        """Return x_0 of x_t: without a label, and from there `guidance` times the way to that with it."""
        none = torch.full_like(label, self.denoiser.classes)

        def predict(x: Tensor, i: int) -> Tensor:
            conditional = self.denoiser.given(label)(x, i)
            if guidance == 1:
                return conditional
            return torch.lerp(self.denoiser.given(none)(x, i), conditional, guidance)

        return predict

    def rebuild(self, image: Tensor) -> Tensor:
        return self.decoder(self.encoder(image))

    def measure(self, image: Tensor) -> dict[str, float]:
        return {"reconstruction_mse": F.mse_loss(self.rebuild(image), image).item()}


def perceptron(inputs: int, width: int, outputs: int) -> nn.Sequential:
    """Return two hidden layers with SiLU between `inputs` and `outputs`."""
    sizes = [inputs, width, width]
    layers = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.SiLU())]
    return nn.Sequential(*layers, nn.Linear(width, outputs))


def build(
    shape: tuple[int, int],
    classes: int,
    timesteps: int,
    width: int,
    depth: int,
    *,
    latent_numbers: int = 12,
    guidance: float = 3.0,
    scaled: bool = True,
) -> LatentDiffusion:
    """Return a chain on ``latent_numbers`` of an image, ``scaled`` or not, with samples also by ``guidance``."""
    chain = Chain(linear_betas(timesteps))
    return LatentDiffusion(shape[0] * shape[1], latent_numbers, width, depth, chain, classes, guidance, scaled)
