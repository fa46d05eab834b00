"""DDPM on images, sampled by the chain (Ho, Jain, Abbeel, NeurIPS 2020) and in fewer steps (DDIM, ICLR 2021)."""

from collections.abc import Iterator, Sequence
from typing import Literal

from torch import Tensor

from replications.errors import UserError
from replications.layers.diffusion.chain import Chain, Denoise, ancestral
from replications.layers.diffusion.implicit import implicit
from replications.layers.diffusion.predictions import Prediction
from replications.layers.diffusion.schedules import linear_betas, spaced_steps
from replications.layers.diffusion.states import last
from replications.layers.generation.denoiser import ImageDenoiser
from replications.layers.generation.model import Generator, Sampler
from replications.layers.generation.unet import UNetDenoiser
from replications.training.stage import Batch


class DDPM(Generator):
    """A chain whose network is trained with the simple loss.

    Sampled by algorithm 2 with x_0 clipped to the range of pixels, as in the authors' code; without clipping; and, at
    each number of `sampler_steps`, without noise (DDIM, eta 0) and with the posterior's (eta 1).
    """

    def __init__(self, pixels: int, denoiser: ImageDenoiser, chain: Chain, sampler_steps: Sequence[int]):
        super().__init__(pixels)
        self.chain, self.sampler_steps, self.denoiser = chain, tuple(sampler_steps), denoiser
        for steps in self.sampler_steps:
            spaced_steps(steps, chain.steps)  # raises before the training rather than after it

    @property
    def passes(self) -> int:
        return self.denoiser.passes

    @property
    def between(self) -> str:
        """The longest sampler without noise: its images follow from x_T (DDIM, section 5.3)."""
        return f"eta0_{max(self.sampler_steps)}" if self.sampler_steps else ""

    def forward(self, batch: Batch, turn: str = "") -> dict[str, Tensor]:
        return {"loss": self.denoiser.error(batch["image"])}

    def denoise(self, clip: bool) -> Denoise:
        if not clip:
            return self.denoiser
        return lambda x, i: self.denoiser(x, i).clamp(-1, 1)

    def samplers(self) -> dict[str, Sampler]:
        found = {
            "ancestral": lambda noise: last(self._chain(noise)),
            "unclipped": lambda noise: last(ancestral(self.chain, self.denoise(False), noise)),
        }
        for steps in self.sampler_steps:
            for name, eta in (("eta0", 0.0), ("eta1", 1.0)):
                found[f"{name}_{steps}"] = lambda noise, steps=steps, eta=eta: last(
                    implicit(self.chain, self.denoise(True), noise, steps, eta)
                )
        return found

    def states(self, noise: Tensor) -> list[Tensor]:
        return list(self._chain(noise))

    def _chain(self, noise: Tensor) -> Iterator[Tensor]:
        return ancestral(self.chain, self.denoise(True), noise)


def build(
    shape: tuple[int, int],
    timesteps: int,
    sampler_steps: Sequence[int],
    width: int,
    depth: int,
    channels: int,
    *,
    prediction: Prediction = "noise",
    network: Literal["dense", "unet"] = "dense",
    multipliers: Sequence[int] = (1, 2, 2),
    blocks: int = 2,
) -> DDPM:
    """Return a chain for images of so many rows and columns whose network predicts ``noise`` or ``data``.

    It is ``dense``, a perceptron of `width` and `depth`, or a ``unet`` with `blocks` a level, each `channels` times its
    multiplier wide. Raises UserError for another network.
    """
    if network not in ("dense", "unet"):
        raise UserError(f"a network '{network}': give dense or unet")
    chain, pixels = Chain(linear_betas(timesteps)), shape[0] * shape[1]
    if network == "unet":
        denoiser = UNetDenoiser(shape, channels, multipliers, blocks, chain, prediction)
    else:
        denoiser = ImageDenoiser(pixels, width, depth, chain, prediction)
    return DDPM(pixels, denoiser, chain, sampler_steps)
