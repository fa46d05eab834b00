"""Image augmentation of whole batches, on their device.

Images are uint8 ``[batch, height, width, channels]`` until `ToFloat` makes them float ``[batch, channels, height,
width]``. Every transform works on all samples at once, with each sample's own random numbers.
"""

import functools
from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from replications.errors import UserError
from replications.training.stage import Batch

Draws = dict[str, Tensor]
# Mean and standard deviation of ImageNet's red, green and blue, as shares of 255.
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@functools.cache
def constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Return numbers as a tensor on a device: they are copied there once, not at each step. Do not write to it."""
    return torch.tensor(values, device=device)


class Augment(Protocol):
    """A random transform in two halves, so that a batch can be split without changing what happens to a sample."""

    def draw(self, n: int, generator: Generator) -> Draws:
        """Draw the random numbers for `n` samples: tensors ``[n, ...]`` on the CPU."""
        ...

    def apply(self, batch: Batch, draws: Draws) -> Batch:
        """Transform a slice of the batch with its slice of the numbers, on the batch's device."""
        ...


class Compose:
    """Transforms one after the other."""

    def __init__(self, transforms: Sequence[Augment]):
        self.transforms = tuple(transforms)

    def draw(self, n: int, generator: Generator) -> Draws:
        return {
            f"{index}.{name}": numbers
            for index, transform in enumerate(self.transforms)
            for name, numbers in transform.draw(n, generator).items()
        }

    def apply(self, batch: Batch, draws: Draws) -> Batch:
        for index, transform in enumerate(self.transforms):
            prefix = f"{index}."
            own = {name.removeprefix(prefix): draw for name, draw in draws.items() if name.startswith(prefix)}
            batch = transform.apply(batch, own)
        return batch


class CentreCrop:
    """The middle ``size x size`` of images of `prepared` pixels; raises UserError where they are smaller."""

    def __init__(self, prepared: int, size: int):
        if size > prepared:
            raise UserError(f"task option 'image_size': {size} pixels, but the images are prepared at {prepared}")
        self.start, self.size = (prepared - size) // 2, size

    def __call__(self, image: Tensor) -> Tensor:
        span = slice(self.start, self.start + self.size)
        return image[:, span, span]

    def draw(self, n: int, generator: Generator) -> Draws:
        return {}

    def apply(self, batch: Batch, draws: Draws) -> Batch:
        return {**batch, "image": self(batch["image"])}


class HorizontalFlip:
    """Mirror an image left to right with probability `probability`."""

    def __init__(self, probability: float = 0.5, key: str = "image"):
        self.probability, self.key = probability, key

    def draw(self, n: int, generator: Generator) -> Draws:
        return {"flip": torch.rand(n, generator=generator) < self.probability}

    def apply(self, batch: Batch, draws: Draws) -> Batch:
        image = batch[self.key]
        flip = draws["flip"][:, None, None, None]
        return {**batch, self.key: torch.where(flip, image.flip(2), image)}


class RandomCrop:
    """Shift an image by up to `padding` pixels each way; pixels from outside are black.

    The usual "pad by p, crop at random to the old size" of CIFAR recipes.
    """

    def __init__(self, padding: int, key: str = "image"):
        self.padding, self.key = padding, key

    def draw(self, n: int, generator: Generator) -> Draws:
        return {"shift": torch.randint(-self.padding, self.padding + 1, (n, 2), generator=generator)}

    def apply(self, batch: Batch, draws: Draws) -> Batch:
        image = batch[self.key]
        n, height, width, channels = image.shape
        border, stride = self.padding, width + 2 * self.padding
        padded = F.pad(image, (0, 0, border, border, border, border))
        # Every run of `width` pixels of the padded batch, overlapping: a crop is `height` of them, copied whole.
        runs = padded.flatten().as_strided((padded.numel() // channels - width + 1, width * channels), (channels, 1))
        y, x = (draws["shift"] + border).unbind(1)
        corner = (torch.arange(n, device=image.device) * (height + 2 * border) + y) * stride + x
        first = corner[:, None] + torch.arange(height, device=image.device) * stride
        return {**batch, self.key: runs.index_select(0, first.flatten()).view(image.shape)}


class RandomResizedCrop:
    """Cut a random rectangle out of an image and resize it to `size` x `size` (Inception crops, as in torchvision).

    The area is uniform in `scale` of the image's, the aspect ratio log-uniform in `ratio`; where the rectangle would
    not fit, it is cut to the image's edges. Bilinear with antialiasing, as two small matrix products for each
    image, so the cost of a crop does not depend on its size. Returns uint8, rounded.
    """

    def __init__(
        self,
        size: int,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        key: str = "image",
    ):
        self.size, self.scale, self.ratio, self.key = size, scale, ratio, key

    def draw(self, n: int, generator: Generator) -> Draws:
        low, high = torch.tensor(self.ratio).log()
        area = self.scale[0] + torch.rand(n, generator=generator) * (self.scale[1] - self.scale[0])
        ratio = (low + torch.rand(n, generator=generator) * (high - low)).exp()
        return {"area": area, "ratio": ratio, "position": torch.rand(n, 2, generator=generator)}

    def apply(self, batch: Batch, draws: Draws) -> Batch:
        image = batch[self.key]
        height, width = image.shape[1:3]
        area, ratio = draws["area"] * (height * width), draws["ratio"]
        crop_height = (area / ratio).sqrt().round().clamp(1, height)
        crop_width = (area * ratio).sqrt().round().clamp(1, width)
        top = (draws["position"][:, 0] * (height - crop_height + 1)).floor()
        left = (draws["position"][:, 1] * (width - crop_width + 1)).floor()
        rows = resize_weights(top, crop_height, height, self.size)
        columns = resize_weights(left, crop_width, width, self.size)
        resized = torch.einsum("nyh,nhwc->nywc", rows, image.float())
        resized = torch.einsum("nxw,nywc->nyxc", columns, resized)
        return {**batch, self.key: resized.round().clamp(0, 255).to(torch.uint8)}


def resize_weights(start: Tensor, length: Tensor, source: int, target: int) -> Tensor:
    """Return the antialiased linear weights ``[n, target, source]`` that resize an interval to `target` pixels.

    The interval of sample i is ``[start[i], start[i] + length[i])``. The filter is a triangle as wide as one target
    pixel, or one source pixel where that is wider, cut at the interval's ends and normalised: what PIL and torchvision
    do with ``antialias=True``.
    """
    scale = length / target  # source pixels to a target pixel
    reach = scale.clamp(min=1)[:, None, None]
    centre = (torch.arange(target, device=start.device) + 0.5) * scale[:, None] + start[:, None]  # [n, target]
    pixel = torch.arange(source, device=start.device) + 0.5
    weights = (1 - (pixel - centre[..., None]).abs() / reach).clamp(min=0)
    inside = (pixel > start[:, None]) & (pixel < (start + length)[:, None])
    weights = weights * inside[:, None, :]
    return weights / weights.sum(-1, keepdim=True)


class ToFloat:
    """Turn uint8 ``[n, height, width, channels]`` into float32 ``[n, channels, height, width]``.

    Values become ``(v / 255 - mean) / std``: with the defaults, [-1, 1]. The result is a channels-last view: no copy
    but the conversion.
    """

    def __init__(self, mean: float | Sequence[float] = 0.5, std: float | Sequence[float] = 0.5, key: str = "image"):
        mean, std = torch.tensor(mean), torch.tensor(std)
        self.factor, self.offset, self.key = 1 / (255 * std), -mean / std, key

    def __call__(self, image: Tensor) -> Tensor:
        if self.factor.device != image.device:
            self.factor, self.offset = self.factor.to(image.device), self.offset.to(image.device)
        return image.float().mul_(self.factor).add_(self.offset).permute(0, 3, 1, 2)

    def draw(self, n: int, generator: Generator) -> Draws:
        return {}

    def apply(self, batch: Batch, draws: Draws) -> Batch:
        return {**batch, self.key: self(batch[self.key])}
