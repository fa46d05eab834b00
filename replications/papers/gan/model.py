"""Adversaries on images: alternating turns, a single loss, and a critic that encodes."""

from typing import ClassVar

import torch
from torch import Tensor

from replications.layers.generation.model import Generator, Sampler
from replications.papers.gan.networks import ImageNetwork, critic
from replications.training.stage import Batch, Turn

SHORTENED = 0.9  # of the code from which an image is made again (O-GAN's code)


class Adversaries(Generator):
    """Hinge losses (Miyato et al., ICLR 2018), one turn each a step."""

    turns: ClassVar[tuple[Turn, ...]] = (Turn("critic", part="critic"), Turn("generator", part="generator"))
    between = "once"

    def __init__(self, pixels: int, latent: int, width: int, *, modulated: bool = False):
        super().__init__(latent)
        self.generator = ImageNetwork(latent, width, pixels, modulated)
        self.critic = critic(pixels, width, 1, normed=True)

    def forward(self, batch: Batch, turn: str = "") -> dict[str, Tensor]:
        real = batch["image"]
        fake = self.generator(self.noise(len(real)))
        if turn == "generator":
            return {"loss": -self.critic(fake).mean()}
        scores = self.critic(torch.cat([real, fake.detach()]))
        return {"loss": hinge(*scores.chunk(2))}

    def samplers(self) -> dict[str, Sampler]:
        return {"once": self.draw}

    def draw(self, noise: Tensor) -> Tensor:
        self.passes += 1
        return self.generator(noise)


class SingleLoss(Adversaries):
    """One loss for both: the critic's hinge and ``rate (D(sg G(z)) - D(G(z)))``, whose value is always 0.

    All images pass through the critic at once: the power iteration of its spectral norm would make D(G(z)) of two
    passes differ.
    """

    turns = ()

    def __init__(self, pixels: int, latent: int, width: int, rate: float):
        super().__init__(pixels, latent, width)
        self.rate = rate

    def forward(self, batch: Batch, turn: str = "") -> dict[str, Tensor]:
        real = batch["image"]
        fake = self.generator(self.noise(len(real)))
        real_score, still, moved = self.critic(torch.cat([real, fake.detach(), fake])).chunk(3)
        return {"loss": hinge(real_score, still) + self.rate * (still - moved).mean()}


class OGAN(Generator):
    """The critic's outputs are a code; their mean is the score, and their correlation with the noise is rewarded.

    The score of real images is lowered and that of made ones raised, with the quadratic potential of GAN-QP.
    """

    between = "once"

    def __init__(self, pixels: int, latent: int, width: int, correlation: float):
        super().__init__(latent)
        self.correlation = correlation
        self.generator = ImageNetwork(latent, width, pixels, False)
        self.critic = critic(pixels, width, latent, normed=False)

    def forward(self, batch: Batch, turn: str = "") -> dict[str, Tensor]:
        real = batch["image"]
        noise = self.noise(len(real))
        fake = self.generator(noise)
        real_code, still_code, code = self.critic(torch.cat([real, fake.detach(), fake])).chunk(3)
        critic_loss = real_code.mean(1) - still_code.mean(1)
        generator_loss = code.mean(1) - still_code.mean(1)
        distance = (real - fake.detach()).square().mean(1)
        same = correlated(noise, code).mean()
        loss = (critic_loss + generator_loss + 0.25 * critic_loss**2 / distance).mean() - self.correlation * same
        return {"loss": loss, "correlation": same}

    def samplers(self) -> dict[str, Sampler]:
        return {"once": self.draw}

    def draw(self, noise: Tensor) -> Tensor:
        self.passes += 1
        return self.generator(noise)

    def encode(self, image: Tensor) -> Tensor:
        """Return codes ``[batch, latent]`` of mean 0 and standard deviation 1 over each image's numbers."""
        return standardised(self.critic(image))

    def rebuild(self, image: Tensor) -> Tensor:
        return self.generator(SHORTENED * self.encode(image))

    def measure(self, image: Tensor) -> dict[str, float]:
        noise = self.noise(len(image))
        rebuilt = self.rebuild(image)
        return {
            "code_correlation": correlated(noise, self.encode(self.generator(noise))).mean().item(),
            "reconstruction_mse": (rebuilt - image).square().mean().item(),
            "shuffled_mse": (rebuilt.roll(1, 0) - image).square().mean().item(),
        }


def hinge(real: Tensor, fake: Tensor) -> Tensor:
    return (1 - real).relu().mean() + (1 + fake).relu().mean()


def standardised(code: Tensor) -> Tensor:
    return (code - code.mean(1, keepdim=True)) / code.std(1, correction=0, keepdim=True).clamp_min(1e-6)


def correlated(one: Tensor, other: Tensor) -> Tensor:
    """Return Pearson's correlation of two codes over their numbers, ``[batch]``."""
    return (standardised(one) * standardised(other)).mean(1)


def build(shape: tuple[int, int], latent: int, width: int, *, modulated: bool = False) -> Adversaries:
    """Return adversaries in turns, whose generator is plain or ``modulated``."""
    return Adversaries(shape[0] * shape[1], latent, width, modulated=modulated)


def single(shape: tuple[int, int], latent: int, width: int, *, rate: float = 1.0) -> SingleLoss:
    """Return adversaries with a single loss; ``rate`` weighs the generator's part."""
    return SingleLoss(shape[0] * shape[1], latent, width, rate)


def ogan(shape: tuple[int, int], latent: int, width: int, *, correlation: float = 0.5) -> OGAN:
    """Return O-GAN; without ``correlation`` its critic is none that encodes."""
    return OGAN(shape[0] * shape[1], latent, width, correlation)
