"""PointNet++ (Qi et al. 2017): set abstraction at two levels and over the whole, at one scale (SSG) or three (MSG)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from replications.errors import UserError
from replications.layers.points.model import (
    ClassifierHead,
    PartSegmenter,
    PointClassifier,
    scaled,
    with_class,
)
from replications.layers.points.pointnet2 import MultiScaleSetAbstraction, SetAbstraction
from replications.layers.points.propagation import FeaturePropagation
from replications.training.stage import Batch

SSG_WIDTHS = ((64, 64, 128), (128, 128, 256))
MSG_WIDTHS = (((32, 32, 64), (64, 64, 128), (64, 96, 128)), ((64, 64, 128), (128, 128, 256), (128, 128, 256)))
MSG_RADII = (0.5, 1.0, 2.0)  # of the level's radius


def build(
    num_classes: int,
    channels: int,
    num_parts: int | None = None,
    *,
    width: float = 1.0,
    counts: Sequence[int] = (512, 128),
    radii: Sequence[float] = (0.2, 0.4),
    neighbours: Sequence[int] = (32, 64),
    scales: Sequence[Sequence[int]] | None = None,
    dropout: float = 0.4,
) -> PointClassifier | PartSegmenter:
    """PointNet++. `counts`, `radii`, `neighbours` are of the two levels.

    `scales` makes it MSG: each level's numbers of neighbours in balls of half, one and two times its radius.
    Raises UserError for another number of levels or balls.
    """
    check_levels(counts, radii, neighbours, scales)
    levels: list[MultiScaleSetAbstraction] = []
    for level, (count, radius, k) in enumerate(zip(counts, radii, neighbours, strict=True)):
        channels_in = levels[-1].channels if levels else channels
        if scales is None:
            layer = SetAbstraction(count, radius, k, channels_in, scaled(SSG_WIDTHS[level], width))
        else:
            widths = (scaled(own, width) for own in MSG_WIDTHS[level])
            balls = [(radius * factor, n, w) for factor, n, w in zip(MSG_RADII, scales[level], widths, strict=True)]
            layer = MultiScaleSetAbstraction(count, balls, channels_in)
        levels.append(layer)
    levels.append(SetAbstraction(None, None, None, levels[-1].channels, scaled([256, 512, 1024], width)))
    if num_parts is not None:
        return PointNet2Segmenter(levels, channels, num_classes, num_parts, width)
    return PointNet2(levels, num_classes, width, dropout)


def check_levels(counts: Sequence, radii: Sequence, neighbours: Sequence, scales: Sequence[Sequence] | None) -> None:
    """Raise UserError unless there is one of each for both levels, and three balls a level in `scales`."""
    given = {"counts": counts, "radii": radii, "neighbours": neighbours} | ({"scales": scales} if scales else {})
    for name, values in given.items():
        if len(values) != len(SSG_WIDTHS):
            raise UserError(f"pointnet2: {name} needs a value for each of {len(SSG_WIDTHS)} levels, not {len(values)}")
    for balls in scales or ():
        if len(balls) != len(MSG_RADII):
            wanted = f"{len(MSG_RADII)} numbers of neighbours"
            raise UserError(f"pointnet2: a level of scales needs {wanted}, not {len(balls)}")


class PointNet2(PointClassifier):
    """The classification network."""

    def __init__(self, levels: list[MultiScaleSetAbstraction], num_classes: int, width: float, dropout: float):
        super().__init__()
        self.levels = nn.ModuleList(levels)
        self.head = ClassifierHead(levels[-1].channels, tuple(scaled([512, 256], width)), num_classes, dropout)

    def logits(self, cloud: Batch) -> Tensor:
        points, features = cloud["points"], cloud.get("features")
        for level in self.levels:
            points, features, _ = level(points, features)
        return self.head(features[:, 0])


class PointNet2Segmenter(PartSegmenter):
    """The part segmentation network: feature propagation back to every point (Section 3.4)."""

    def __init__(
        self, levels: list[MultiScaleSetAbstraction], channels: int, num_classes: int, num_parts: int, width: float
    ):
        super().__init__()
        self.levels, self.num_classes = nn.ModuleList(levels), num_classes
        skips = [num_classes + 3 + channels, *(level.channels for level in levels[:-1])]
        widths = [scaled(w, width) for w in ([128, 128, 128], [256, 128], [256, 256])]
        up, carried = [], levels[-1].channels
        for skip, own in zip(reversed(skips), reversed(widths), strict=True):
            up.append(FeaturePropagation(carried + skip, own))
            carried = up[-1].channels
        self.up = nn.ModuleList(up)
        top = scaled([128], width)[0]
        self.head = nn.Sequential(nn.Linear(carried, top, bias=False), nn.BatchNorm1d(top), nn.ReLU(), nn.Dropout(0.5))
        self.classifier = nn.Linear(top, num_parts)

    def part_logits(self, cloud: Batch) -> Tensor:
        points, features = [cloud["points"]], [cloud.get("features")]
        for level in self.levels:
            centres, found, _ = level(points[-1], features[-1])
            points.append(centres)
            features.append(found)
        own = [with_class(cloud, self.num_classes, points[0].dtype), points[0]]
        features[0] = torch.cat([*own, *([] if features[0] is None else [features[0]])], dim=-1)
        carried = features[-1]
        for up, level in zip(self.up, range(len(self.levels) - 1, -1, -1), strict=True):
            carried = up(points[level], points[level + 1], features[level], carried)
        return self.classifier(self.head(carried.flatten(0, 1))).view(*points[0].shape[:2], -1)
