"""DCGAN (Radford et al., ICLR 2016), whose generator doubles sides by transposed convolutions or by resizing."""

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from replications.errors import UserError
from replications.layers.generation.model import Generator, Sampler
from replications.layers.images.spectrum import nyquist_share
from replications.training.stage import Batch, Turn

Doubling = Literal["transposed", "resized"]
WEIGHT_STD = 0.02
UNTRAINED = 256  # images of the untrained generator


class DCGAN(Generator):
    """Convolutional adversaries with the non-saturating loss, one turn each a step.

    Raises UserError for sides that are no multiples of 4.
    """

    turns: ClassVar[tuple[Turn, ...]] = (Turn("critic", part="critic"), Turn("generator", part="generator"))
    between = "once"

    def __init__(self, shape: tuple[int, int], latent: int, channels: int, doubling: Doubling):
        if any(side % 4 for side in shape):
            raise UserError(f"images of {shape[0]} x {shape[1]} pixels: two halvings need multiples of 4")
        super().__init__(latent)
        self.shape = shape
        self.generator = generator(shape, latent, channels, doubling)
        self.critic = critic(shape, channels)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(module.weight, std=WEIGHT_STD)
        with torch.no_grad():
            untrained = self.generator(torch.randn(UNTRAINED, latent))
        self.register_buffer("untrained", torch.tensor(self.pair_share(untrained)))

    def forward(self, batch: Batch, turn: str = "") -> dict[str, Tensor]:
        real = batch["image"]
        fake = self.generator(self.noise(len(real)))
        if turn == "generator":
            return {"loss": F.softplus(-self.score(fake)).mean()}
        return {"loss": F.softplus(-self.score(real)).mean() + F.softplus(self.score(fake.detach())).mean()}

    def score(self, image: Tensor) -> Tensor:
        """Return the critic's logits ``[batch]``."""
        return self.critic(image.unflatten(1, (1, *self.shape)))[:, 0]

    def samplers(self) -> dict[str, Sampler]:
        return {"once": self.draw}

    def draw(self, noise: Tensor) -> Tensor:
        self.passes += 1
        return self.generator(noise)

    def measure(self, image: Tensor) -> dict[str, float]:
        """Measure the pattern of two pixels in made images, in those before training, and in real ones."""
        made = self.generator(self.noise(len(image)))
        return {
            "pair_share": self.pair_share(made),
            "pair_share_untrained": self.untrained.item(),
            "pair_share_real": self.pair_share(image),
        }

    def pair_share(self, image: Tensor) -> float:
        """Return the share of the energy of images ``[batch, pixels]`` that repeats every two pixels."""
        return nyquist_share(image.double().unflatten(1, self.shape))


def generator(shape: tuple[int, int], latent: int, channels: int, doubling: Doubling) -> nn.Sequential:
    """Return layers from noise ``[batch, latent]`` to images ``[batch, pixels]`` in [-1, 1] by two doublings."""
    rows, columns = shape[0] // 4, shape[1] // 4
    return nn.Sequential(
        nn.Linear(latent, 2 * channels * rows * columns),
        nn.Unflatten(1, (2 * channels, rows, columns)),
        nn.BatchNorm2d(2 * channels),
        nn.ReLU(),
        doubled(2 * channels, channels, doubling),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        doubled(channels, 1, doubling),
        nn.Tanh(),
        nn.Flatten(),
    )


def doubled(inputs: int, outputs: int, doubling: Doubling) -> nn.Module:
    """Return a layer that doubles both sides; raises UserError for an unknown one."""
    if doubling == "transposed":
        return nn.ConvTranspose2d(inputs, outputs, 4, 2, 1)
    if doubling != "resized":
        raise UserError(f"doubling '{doubling}': give transposed or resized")
    return nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(inputs, outputs, 3, padding=1))


def critic(shape: tuple[int, int], channels: int) -> nn.Sequential:
    """Return two halvings by strided convolutions, and a logit."""
    return nn.Sequential(
        nn.Conv2d(1, channels, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(channels, 2 * channels, 4, 2, 1),
        nn.BatchNorm2d(2 * channels),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear(2 * channels * shape[0] * shape[1] // 16, 1),
    )


def build(shape: tuple[int, int], latent: int, channels: int, *, doubling: Doubling = "transposed") -> DCGAN:
    """Return DCGAN with sides doubled by ``transposed`` convolutions, or ``resized`` and then convolved."""
    return DCGAN(shape, latent, channels, doubling)
