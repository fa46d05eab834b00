"""Generative latent nearest neighbours: a latent for each training image (GLO), and noise mapped to latents (IMLE)."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from replications.errors import UserError
from replications.layers.generation.model import Generator, Sampler
from replications.training.stage import Batch

SLOTS = 1 << 16
# Of the latents' numbers before they are brought to length 1. Adam's steps do not scale with it: a tenth of the usual
# deviation turns latents ten times as fast, as their own rate does in the authors' configuration.
START = 0.1
MOMENTUM = 0.99  # of the latents' mean and covariance


class Nearest(Generator):
    """Images of noise by implicit maximum likelihood (IMLE; Li and Malik 2018), in the space of the pixels.

    Each step draws ``candidates`` images for a real one; every real image pulls the nearest to itself.
    """

    between = "once"

    def __init__(self, noise_numbers: int, width: int, pixels: int, candidates: int):
        super().__init__(noise_numbers)
        if candidates < 1:
            raise UserError(f"{candidates} candidates for an image: give at least 1")
        self.candidates = candidates
        self.mapping = perceptron(noise_numbers, width, pixels)

    def forward(self, batch: Batch, turn: str = "") -> dict[str, Tensor]:
        image = batch["image"]
        chosen = nearest(image, self.mapping, self.noise(self.candidates * len(image)))
        return {"loss": (self.mapping(chosen) - image).square().sum(1).mean()}

    def samplers(self) -> dict[str, Sampler]:
        return {"once": self.draw}

    def draw(self, noise: Tensor) -> Tensor:
        self.passes += 1
        return self.mapping(noise)


class GLANN(Generator):
    """A generator from latents on the unit sphere to images, and a mapping from noise to latents.

    An image's latent is found by a hash of its pixels: equal images share it. Generator and latents learn to rebuild
    the training images; the mapping learns by IMLE, in the same steps, from latents without gradient.
    """

    between = "mapped"

    def __init__(self, pixels: int, latent: int, noise_numbers: int, width: int, candidates: int):
        super().__init__(noise_numbers)
        if candidates < 1:
            raise UserError(f"{candidates} candidates for a latent: give at least 1")
        self.candidates = candidates
        self.latents = nn.Embedding(SLOTS, latent)
        nn.init.normal_(self.latents.weight, std=START)
        self.generator = perceptron(latent, width, pixels)
        self.mapping = perceptron(noise_numbers, width, latent)
        keys = torch.randint(1, 1 << 30, (pixels,), generator=torch.Generator().manual_seed(0))
        self.register_buffer("keys", keys, persistent=False)
        self.register_buffer("mean", torch.zeros(latent))
        self.register_buffer("covariance", torch.eye(latent))

    def latent_of(self, image: Tensor) -> Tensor:
        """Return the latents ``[batch, latent]``, of length 1, of training images ``[batch, pixels]``."""
        return F.normalize(self.latents(self.slots(image)))

    def slots(self, image: Tensor) -> Tensor:
        """Return the place of each image's latent, int64 ``[batch]``: a multiplicative hash of its grey levels."""
        grey = ((image + 1) * 127.5).round().long()
        mixed = ((grey + 1) * self.keys).sum(1)
        return ((mixed * 0x9E3779B1) >> 16) % SLOTS

    def forward(self, batch: Batch, turn: str = "") -> dict[str, Tensor]:
        image = batch["image"]
        latent = self.latent_of(image)
        rebuilt = (self.generator(latent) - image).abs().sum(1).mean()
        if self.training:
            self._follow(latent.detach())
        chosen = nearest(latent.detach(), self.mapped, self.noise(self.candidates * len(image)))
        mapping = (self.mapped(chosen) - latent.detach()).square().sum(1).mean()
        return {"loss": rebuilt + mapping, "reconstruction": rebuilt, "mapping": mapping}

    def mapped(self, noise: Tensor) -> Tensor:
        """Return latents of length 1, ``[batch, latent]``, of noise."""
        return F.normalize(self.mapping(noise))

    @torch.no_grad()
    def _follow(self, latent: Tensor) -> None:
        apart = latent - latent.mean(0)
        self.mean.lerp_(latent.mean(0), 1 - MOMENTUM)
        self.covariance.lerp_(apart.T @ apart / len(latent), 1 - MOMENTUM)

    def samplers(self) -> dict[str, Sampler]:
        """Return images of mapped noise, and of a Gaussian with the latents' mean and covariance (GLO)."""
        return {"mapped": self.draw, "gaussian": self._fit}

    def draw(self, noise: Tensor) -> Tensor:
        self.passes += 1
        return self.generator(self.mapped(noise))

    def _fit(self, noise: Tensor) -> Tensor:
        self.passes += 1
        latent = self.mean + torch.randn(len(noise), len(self.mean), device=noise.device) @ self._root().T
        return self.generator(F.normalize(latent))

    def _root(self) -> Tensor:
        return torch.linalg.cholesky(self.covariance + 1e-6 * torch.eye(len(self.mean), device=self.mean.device))


@torch.no_grad()
def nearest(target: Tensor, mapping: nn.Module, noise: Tensor) -> Tensor:
    """Return the noise ``[batch, numbers]`` whose image under `mapping` is nearest to each target ``[batch, D]``."""
    candidates = mapping(noise)
    return noise[(candidates.square().sum(1) - 2 * target @ candidates.T).argmin(1)]


def perceptron(inputs: int, width: int, outputs: int) -> nn.Sequential:
    """Return two hidden layers with leaky ReLU between `inputs` and `outputs`."""
    sizes = [inputs, width, width]
    layers = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.LeakyReLU(0.2))]
    return nn.Sequential(*layers, nn.Linear(width, outputs))


def build(shape: tuple[int, int], latent: int, width: int, *, noise_numbers: int = 16, candidates: int = 8) -> GLANN:
    """Return GLO with latents of ``latent`` numbers, and IMLE from ``noise_numbers`` to them."""
    return GLANN(shape[0] * shape[1], latent, noise_numbers, width, candidates)


def pixels(shape: tuple[int, int], width: int, *, noise_numbers: int = 16, candidates: int = 8) -> Nearest:
    """Return IMLE on pixels, without latents of images."""
    return Nearest(noise_numbers, width, shape[0] * shape[1], candidates)
