"""PointConv on images (Section 5.4): pixels are points of a grid; and the image convolution that it is compared with.

Both networks have five layers of equal widths and strides; the point network sees positions and values only.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from replications.errors import UserError
from replications.layers.points.model import ClassifierHead, PointClassifier, scaled
from replications.layers.points.neighbours import gather, knn
from replications.papers.pointconv.operator import PointConv
from replications.training.stage import Batch

WIDTHS = (64, 64, 128, 128, 256)
STRIDES = (1, 1, 2, 1, 2)
NEIGHBOURS = 9  # of a pixel with itself: a 3 x 3 window


def build_point(
    num_classes: int,
    channels: int,
    points: int,
    *,
    width: float = 1.0,
    weight_widths: Sequence[int] = (8, 8, 16),
    dropout: float = 0.0,
) -> PointClassifier:
    """Five PointConv layers on the pixels; no density, which is the same everywhere."""
    return PointImageNet(num_classes, channels, points, scaled(WIDTHS, width), weight_widths, dropout)


def build_image(
    num_classes: int, channels: int, points: int, *, width: float = 1.0, dropout: float = 0.0
) -> PointClassifier:
    """Five 3 x 3 convolutions with batch norm and ReLU."""
    return ImageNet(num_classes, channels, points, scaled(WIDTHS, width), dropout)


def side_of(points: int) -> int:
    """Return the side of a square image of `points` pixels; raises UserError where there is none."""
    side = math.isqrt(points)
    if side * side != points:
        raise UserError(f"pointconv: {points} points do not form a square: set the task option 'points' to side x side")
    return side


class PointImageNet(PointClassifier):
    """PointConv layers; neighbours and kept pixels are those of the grid, so they are found once for all images."""

    def __init__(
        self,
        num_classes: int,
        channels: int,
        points: int,
        widths: Sequence[int],
        weight_widths: Sequence[int],
        dropout: float,
    ):
        super().__init__()
        self.side = side_of(points)
        layers = []
        for width in widths:
            layers.append(PointConv(channels, [], width, weight_widths=weight_widths, density="none"))
            channels = width
        self.layers = nn.ModuleList(layers)
        self.head = ClassifierHead(channels, (), num_classes, dropout)

    def logits(self, cloud: Batch) -> Tensor:
        points, features, side = cloud["points"], cloud["features"], self.side
        for layer, stride in zip(self.layers, STRIDES, strict=True):
            kept = torch.arange(side * side, device=points.device).view(side, side)[::stride, ::stride]
            centres = points[:, kept.flatten()]
            side = len(kept)
            index = knn(centres[:1], points[:1], min(NEIGHBOURS, points.shape[1]))[1].expand(len(points), -1, -1)
            offset = gather(points, index) - centres[:, :, None]
            # In pixels of the layer's own grid, as a window of weights is.
            offset = offset / (points[:1, 1] - points[:1, 0]).norm().clamp_min(1e-6)
            features, points = layer(offset, gather(features, index), None), centres
        return self.head(features.mean(1))


class ImageNet(PointClassifier):
    """The same with convolutions of the image."""

    def __init__(self, num_classes: int, channels: int, points: int, widths: Sequence[int], dropout: float):
        super().__init__()
        self.side = side_of(points)
        layers: list[nn.Module] = []
        for width, stride in zip(widths, STRIDES, strict=True):
            layers += [nn.Conv2d(channels, width, 3, stride, 1), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        self.layers = nn.Sequential(*layers)
        self.head = ClassifierHead(channels, (), num_classes, dropout)

    def logits(self, cloud: Batch) -> Tensor:
        image = cloud["features"].transpose(1, 2).unflatten(2, (self.side, self.side))
        return self.head(self.layers(image).mean((2, 3)))
