"""Effective receptive fields: how much each pixel of a unit's square moves the unit (Luo et al. 2016, section 2)."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from replications.papers.receptive_field.fields import Layer, field

MARGIN = 2  # pixels around the theoretical square, to see that nothing reaches them
TWO_SIGMA = 1 - 0.9545  # a pixel belongs to the effective field where it has this share of the largest value


def gradient_maps(
    layers: Sequence[Layer], draws: int, channels: int, *, weights: str, relu: bool = False, skip: bool = False
) -> Tensor:
    """Return d(unit) / d(pixel), float64 ``[draws, channels, side, side]``, one network and one image a draw.

    ``side`` is the theoretical field and `MARGIN` on each side. `weights` are ``uniform`` (all equal; a mean) or
    ``random`` (normal, of a variance that keeps a layer's scale). Nothing is padded: the unit is the one whose square
    is the middle of the image. `skip` adds to each layer's output its input. Raises ValueError for a skip over a
    stride.
    """
    side = field(layers).size + 2 * MARGIN
    image = torch.randn(1, draws * channels, side, side, dtype=torch.float64, requires_grad=True)
    hidden = image
    for number, layer in enumerate(layers):
        fan_in = channels * layer.kernel**2
        shape = (draws * channels, channels, layer.kernel, layer.kernel)
        if weights == "uniform":
            kernel = torch.full(shape, 1 / fan_in, dtype=torch.float64)
        else:
            kernel = torch.randn(shape, dtype=torch.float64) * ((2 if relu else 1) / fan_in) ** 0.5
        out = F.conv2d(hidden, kernel, stride=layer.stride, dilation=layer.dilation, groups=draws)
        if skip:
            if layer.stride != 1:
                raise ValueError("a skip connection needs stride 1")
            cut = layer.dilation * (layer.kernel - 1) // 2
            out = out + hidden[..., cut : cut + out.shape[-2], cut : cut + out.shape[-1]]
        hidden = out.relu() if relu and number < len(layers) - 1 else out
    unit = -(-MARGIN // field(layers).jump)  # the first whose square lies wholly in the image
    outputs = hidden[0, ::channels, unit, unit]
    (gradient,) = torch.autograd.grad(outputs.sum(), image)
    return gradient.reshape(draws, channels, side, side)


def square(layers: Sequence[Layer]) -> Tensor:
    """Return which pixels of a gradient map the formula gives to the unit, bool ``[side, side]``."""
    found = field(layers)
    first = -(-MARGIN // found.jump) * found.jump
    inside = torch.zeros(found.size + 2 * MARGIN, dtype=torch.bool)
    inside[first : first + found.size] = True
    return inside[:, None] & inside[None]


def importance(gradients: Tensor, weights: str) -> np.ndarray:
    """Return a map ``[side, side]`` that sums to 1: gradients of equal sign, or the mean of random ones' squares.

    The mean of random gradients themselves is zero at every pixel.
    """
    values = gradients.abs() if weights == "uniform" else gradients.square()
    values = values.sum((0, 1)).numpy()
    return values / values.sum()


def spread(values: np.ndarray) -> float:
    """Return the standard deviation of a map along an axis in pixels, mean of both axes by variance."""
    places = np.arange(len(values))
    variances = []
    for axis in (0, 1):
        profile = values.sum(axis)
        mean = (profile * places).sum()
        variances.append((profile * (places - mean) ** 2).sum())
    return float(np.mean(variances)) ** 0.5


def effective_area(values: np.ndarray) -> int:
    """Return the pixels with at least `TWO_SIGMA` of the largest value."""
    return int((values >= TWO_SIGMA * values.max()).sum())


def gaussian_distance(values: np.ndarray) -> float:
    """Return the total variation between the profile along an axis and the normal of its mean and spread, on pixels."""
    places, distances = np.arange(len(values)), []
    for axis in (0, 1):
        profile = values.sum(axis)
        mean = (profile * places).sum()
        variance = (profile * (places - mean) ** 2).sum()
        normal = np.exp(-((places - mean) ** 2) / (2 * variance))
        distances.append(0.5 * np.abs(profile - normal / normal.sum()).sum())
    return float(np.mean(distances))
