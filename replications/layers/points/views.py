"""Point clouds as depth images from a ring of cameras, and the convolutions that read them (Su et al. 2015)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from replications.errors import UserError
from replications.layers.points import checks
from replications.layers.points.pooling import maximum

ELEVATION = 30.0  # degrees above the horizon (section 3.1)


def cameras(count: int, elevation: float = ELEVATION) -> Tensor:
    """Return axes of cameras ``[count, 3, 3]``, evenly spaced about z from +x on: rows are right, up, towards it."""
    angle = torch.arange(count, dtype=torch.float64) * (2 * math.pi / count)
    sin, cos = angle.sin(), angle.cos()
    high, wide = math.sin(math.radians(elevation)), math.cos(math.radians(elevation))
    right = torch.stack([-sin, cos, torch.zeros_like(sin)], 1)
    up = torch.stack([-high * cos, -high * sin, torch.full_like(sin, wide)], 1)
    towards = torch.stack([wide * cos, wide * sin, torch.full_like(sin, high)], 1)
    return torch.stack([right, up, towards], 1)


@torch.no_grad()
def depth_views(points: Tensor, axes: Tensor, resolution: int, splat: int, extent: float) -> Tensor:
    """Return orthographic depth images, float32 ``[batch, views, resolution, resolution]``.

    `points` ``[batch, points, 3]``, `axes` ``[views, 3, 3]`` of `cameras`. An image shows -extent to extent; its first
    row is on top. A pixel has the nearness of the nearest point in it: 1 at `extent` towards the camera, 0 at
    -extent and where there is no point. A point covers a square of `splat` pixels (odd) around its own; points outside
    are not drawn. No gradient. Raises UserError for clouds of another form or an even splat.
    """
    checks.check_points(points)
    if splat % 2 == 0:
        raise UserError(f"a splat of {splat} pixels has no middle: give an odd number")
    seen = torch.einsum("bpc,vdc->bvpd", points.float(), axes.to(points.device, torch.float32)) / extent
    column = torch.floor((seen[..., 0] + 1) * (resolution / 2))
    row = torch.floor((1 - seen[..., 1]) * (resolution / 2))
    inside = (column >= 0) & (column < resolution) & (row >= 0) & (row < resolution)
    index = (row * resolution + column).clamp(0, resolution**2 - 1).long()
    nearness = ((1 + seen[..., 2]) / 2).clamp(0, 1) * inside
    images = torch.zeros(*index.shape[:2], resolution**2, device=points.device)
    images = images.scatter_reduce(2, index, nearness, "amax").unflatten(2, (resolution, resolution))
    return F.max_pool2d(images, splat, 1, splat // 2)


class ViewFeatures(nn.Module):
    """A network on each view, one maximum or mean over the views, and fully connected layers (section 3.2).

    `layers` are convolutions (channels, kernel, stride, pool): batch norm and ReLU follow each, and a maximum over
    `pool` pixels with stride 2 where it is not 0. Input ``[batch, views, R, R]``, output ``[batch, hidden[-1]]``.
    Raises UserError where `resolution` is too small for the strides.
    """

    def __init__(
        self, resolution: int, layers: Sequence[Sequence[int]], hidden: Sequence[int], pool: str, dropout: float
    ):
        super().__init__()
        self.pool = pool
        side, channels, convolutions = resolution, 1, []
        for width, kernel, stride, window in layers:
            convolutions += [
                nn.Conv2d(channels, width, kernel, stride, kernel // 2, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            ]
            side, channels = (side - 1) // stride + 1, width
            if window:
                convolutions.append(nn.MaxPool2d(window, 2))
                side = (side - window) // 2 + 1
            if side < 1:
                raise UserError(f"resolution {resolution} is too small for the strides of {len(layers)} convolutions")
        self.convolutions = nn.Sequential(*convolutions)
        connected: list[nn.Module] = []
        channels *= side**2
        for width in hidden:
            connected += [nn.Linear(channels, width), nn.ReLU(inplace=True), nn.Dropout(dropout)]
            channels = width
        self.connected = nn.Sequential(*connected)

    def forward(self, images: Tensor) -> Tensor:
        each = self.convolutions(images.flatten(0, 1)[:, None]).unflatten(0, images.shape[:2])
        pooled = maximum(each, 1) if self.pool == "max" else each.mean(1)
        return self.connected(pooled.flatten(1))
