"""What a method of the image generation task must offer.

A paper's ``build`` gets ``shape`` (rows and columns of an image) and ``classes`` (0: the set has no labels), of which
it takes what it needs, and returns a `Generator`. Images are rows of pixels, float in [-1, 1]: ``[batch, pixels]``.
"""

from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from replications.training.stage import Batch, Turn

Sampler = Callable[[Tensor], Tensor]  # noise [n, noise_size] -> images [n, pixels]


class Generator(nn.Module):
    """Makes images of normal noise ``[batch, noise_size]``.

    `turns` are the moves of a training step, without any one optimiser moves the module. `passes` counts how often the
    network that makes images was run. `between` names the sampler whose images follow continuously from the noise
    alone, for interpolations; empty where there is none.
    """

    turns: ClassVar[tuple[Turn, ...]] = ()
    passes: int = 0
    between: str = ""

    def __init__(self, noise_size: int):
        super().__init__()
        self.noise_size = noise_size

    def forward(self, batch: Batch, turn: str = "") -> dict[str, Tensor]:
        """Return ``loss`` of a turn; `batch` has ``image`` and, where the set has labels, ``label``."""
        raise NotImplementedError

    def samplers(self) -> Mapping[str, Sampler]:
        """Return the ways to draw by name: the first gives the method's samples, a further one metrics of its own."""
        raise NotImplementedError

    def states(self, noise: Tensor) -> list[Tensor]:
        """Return images on the way from noise to sample, each ``[n, pixels]``; none where there is no such way."""
        return []

    def measure(self, image: Tensor) -> dict[str, float]:
        """Measure the trained model on the test images."""
        return {}

    def rebuild(self, image: Tensor) -> Tensor | None:
        """Return images ``[batch, pixels]`` made of the codes of images; None where images have no codes."""
        return None

    def vocabulary(self) -> Tensor | None:
        """Return for each discrete code the image that has it everywhere, ``[codes, pixels]``; None without such."""
        return None

    def noise(self, count: int) -> Tensor:
        return torch.randn(count, self.noise_size, device=next(self.parameters()).device)

    @torch.no_grad()
    def sample(self, count: int, sampler: str = "") -> Tensor:
        """Draw images, ``[count, pixels]``, by torch's generator of the module's device."""
        found = self.samplers()
        return found[sampler or next(iter(found))](self.noise(count))
