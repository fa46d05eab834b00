"""Position of a feature in its image: sine encodings in two dimensions (DETR, Section 4 and Appendix A.4)."""

import math

import torch
from torch import Tensor

TEMPERATURE = 10000.0


def sine_positions(padding: Tensor, channels: int, temperature: float = TEMPERATURE) -> Tensor:
    """Return encodings ``[batch, height, width, channels]`` of a feature map; `padding` ``[batch, height, width]``.

    Half of the channels encode y, then half x. Each coordinate counts the rows (columns) that belong to the image and
    is normalised to (0, 2 pi], so that it means the same place in an image of any size and padding. Sines and cosines
    of geometrically falling frequencies take turns; the last falls by nearly `temperature`.
    """
    inside = (~padding).int()  # whole numbers: sums of floats have no deterministic CUDA version
    y = _normalised(inside, 1)
    x = _normalised(inside, 2)
    return torch.cat([_waves(y, channels // 2, temperature), _waves(x, channels // 2, temperature)], dim=-1)


def _normalised(inside: Tensor, dim: int) -> Tensor:
    count = inside.cumsum(dim).float()
    last = count.select(dim, -1).unsqueeze(dim)
    return count / (last + 1e-6) * (2 * math.pi)


def _waves(position: Tensor, channels: int, temperature: float) -> Tensor:
    index = torch.arange(channels, device=position.device, dtype=torch.float32)
    frequency = temperature ** (2 * torch.div(index, 2, rounding_mode="floor") / channels)
    angle = position[..., None] / frequency
    return torch.stack([angle[..., 0::2].sin(), angle[..., 1::2].cos()], dim=-1).flatten(-2)


def point_positions(points: Tensor, channels: int, temperature: float = TEMPERATURE) -> Tensor:
    """Return the encodings ``[..., channels]`` of points ``[..., 2]`` (x, y as fractions of the image), y first.

    The same waves as `sine_positions`, so that a point and a feature there are alike (Conditional DETR, Eq. 1).
    """
    angles = points * (2 * math.pi)
    return torch.cat(
        [_waves(angles[..., 1], channels // 2, temperature), _waves(angles[..., 0], channels // 2, temperature)], dim=-1
    )
