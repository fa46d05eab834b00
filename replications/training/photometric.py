"""Augmentations that change colours or paint over: jitter and random erasing, on the images' device."""

import torch
from torch import Generator, Tensor

from replications.training.augment import Draws, constant
from replications.training.stage import Batch

GREY = (0.2989, 0.587, 0.114)  # of ITU-R 601, as in PIL and torchvision


class ColourJitter:
    """Change brightness, contrast and saturation, in this order, each by a factor uniform in ``1 ± amount``.

    As torchvision's ``adjust_*`` on float images, without its random order and without hue. uint8 in, uint8 out.
    """

    def __init__(self, amount: float, key: str = "image"):
        self.amount, self.key = amount, key

    def draw(self, n: int, generator: Generator) -> Draws:
        return {"factor": 1 + self.amount * (2 * torch.rand(n, 3, generator=generator) - 1)}

    def apply(self, batch: Batch, draws: Draws) -> Batch:
        image = batch[self.key].float()
        brightness, contrast, saturation = draws["factor"][:, :, None, None, None].unbind(1)
        image = (image * brightness).clamp(0, 255)
        image = _blend(image, _grey(image).mean((1, 2, 3), keepdim=True), contrast)
        image = _blend(image, _grey(image), saturation)
        return {**batch, self.key: image.round().to(torch.uint8)}


def _grey(image: Tensor) -> Tensor:
    return (image * constant(GREY, image.device)).sum(-1, keepdim=True)


def _blend(image: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return (other + factor * (image - other)).clamp(0, 255)


class RandomErasing:
    """Paint over a random rectangle, with probability `probability`, in one random colour (Zhong et al., AAAI 2020).

    The rectangle's area is uniform in `area` of the image, its aspect ratio log-uniform in `ratio`; what would reach
    over the edge is cut. uint8 in, uint8 out.
    """

    def __init__(
        self,
        probability: float,
        area: tuple[float, float] = (0.02, 1 / 3),
        ratio: tuple[float, float] = (0.3, 1 / 0.3),
        key: str = "image",
    ):
        self.probability, self.area, self.ratio, self.key = probability, area, ratio, key

    def draw(self, n: int, generator: Generator) -> Draws:
        low, high = torch.tensor(self.ratio).log()
        return {
            "erase": torch.rand(n, generator=generator) < self.probability,
            "area": self.area[0] + torch.rand(n, generator=generator) * (self.area[1] - self.area[0]),
            "ratio": (low + torch.rand(n, generator=generator) * (high - low)).exp(),
            "position": torch.rand(n, 2, generator=generator),
            "colour": torch.randint(256, (n, 3), generator=generator, dtype=torch.uint8),
        }

    def apply(self, batch: Batch, draws: Draws) -> Batch:
        image = batch[self.key]
        height, width = image.shape[1:3]
        area = draws["area"] * (height * width)
        inside = rectangle(
            draws["position"],
            (area / draws["ratio"]).sqrt().round().clamp(1, height),
            (area * draws["ratio"]).sqrt().round().clamp(1, width),
            (height, width),
        )
        painted = (inside & draws["erase"][:, None, None])[..., None]
        return {**batch, self.key: torch.where(painted, draws["colour"][:, None, None], image)}


def rectangle(position: Tensor, height: Tensor, width: Tensor, size: tuple[int, int]) -> Tensor:
    """Return which pixels ``[n, *size]`` lie in rectangles placed by `position` ``[n, 2]`` in [0, 1), whole inside."""
    top = (position[:, 0] * (size[0] - height + 1)).floor()
    left = (position[:, 1] * (size[1] - width + 1)).floor()
    row, column = (torch.arange(side, device=position.device) for side in size)
    rows = (row >= top[:, None]) & (row < (top + height)[:, None])
    columns = (column >= left[:, None]) & (column < (left + width)[:, None])
    return rows[:, :, None] & columns[:, None, :]
