"""PointNet (Qi et al. 2017): shared networks on points, alignment nets, one max over all points."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from replications.layers.points.model import (
    ClassifierHead,
    PartSegmenter,
    PointClassifier,
    scaled,
    with_class,
)
from replications.layers.points.pooling import maximum
from replications.layers.points.shared_mlp import SharedMLP
from replications.training.stage import Batch

REGULARISER = 0.001


def build(
    num_classes: int,
    channels: int,
    num_parts: int | None = None,
    *,
    width: float = 1.0,
    align: bool = True,
    dropout: float = 0.4,
) -> PointClassifier | PartSegmenter:
    """PointNet; `align` false leaves the input and the feature transform out."""
    features = PointFeatures(channels, width, align)
    if num_parts is not None:
        return PointNetSegmenter(features, num_classes, num_parts, width)
    return PointNet(features, num_classes, width, dropout)


class AlignmentNet(nn.Module):
    """T-net (Section 4.2): predicts a matrix ``[batch, k, k]``, the identity at first."""

    def __init__(self, k: int, channels: int, width: float):
        super().__init__()
        self.k = k
        *shared, top = scaled([64, 128, 1024], width)
        self.points = SharedMLP(channels, [*shared, top])
        self.matrix = ClassifierHead(top, tuple(scaled([512, 256], width)), k * k, dropout=0.0)
        nn.init.zeros_(self.matrix[-1].weight)
        with torch.no_grad():
            self.matrix[-1].bias.copy_(torch.eye(k).flatten())

    def forward(self, x: Tensor) -> Tensor:
        return self.matrix(maximum(self.points(x), 1)).view(-1, self.k, self.k)


class PointFeatures(nn.Module):
    """Input transform, 64, feature transform, 128, 1024 (no ReLU on the last) and the maximum over points.

    Normals and other `channels` of features go beside the transformed positions.
    """

    def __init__(self, channels: int, width: float, align: bool):
        super().__init__()
        local, middle, top = scaled([64, 128, 1024], width)
        self.local, self.channels = local, top
        self.input_transform = AlignmentNet(3, 3, width) if align else None
        self.first = SharedMLP(3 + channels, [local])
        self.feature_transform = AlignmentNet(local, local, width) if align else None
        self.second = SharedMLP(local, [middle])
        self.last = nn.Sequential(nn.Linear(middle, top, bias=False), nn.BatchNorm1d(top))

    def forward(self, cloud: Batch) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return features ``[batch, points, local]``, their maximum ``[batch, channels]`` and the second transform."""
        x = cloud["points"]
        if self.input_transform is not None:
            x = x @ self.input_transform(x)
        if "features" in cloud:
            x = torch.cat([x, cloud["features"]], dim=-1)
        x = self.first(x)
        transform = None
        if self.feature_transform is not None:
            transform = self.feature_transform(x)
            x = x @ transform
        top = self.second(x)
        top = self.last(top.flatten(0, 1)).view(*top.shape[:2], self.channels)
        return x, maximum(top, 1), transform


def regulariser(transform: Tensor | None) -> Tensor | float:
    """Return 0.001 times the mean Frobenius norm of ``A A^T - I`` (Equation 2)."""
    if transform is None:
        return 0.0
    off = transform @ transform.transpose(1, 2) - torch.eye(transform.shape[1], device=transform.device)
    return REGULARISER * off.flatten(1).norm(dim=1).mean()


class PointNet(PointClassifier):
    """The classification network. Dropout comes before the second norm of the head, as in public code."""

    def __init__(self, features: PointFeatures, num_classes: int, width: float, dropout: float):
        super().__init__()
        self.features = features
        first, second = scaled([512, 256], width)
        self.head = nn.Sequential(
            nn.Linear(features.channels, first, bias=False),
            nn.BatchNorm1d(first),
            nn.ReLU(),
            nn.Linear(first, second, bias=False),
            nn.Dropout(dropout),
            nn.BatchNorm1d(second),
            nn.ReLU(),
            nn.Linear(second, num_classes),
        )

    def logits(self, cloud: Batch) -> Tensor:
        return self.head(self.features(cloud)[1])

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        _, top, transform = self.features(batch)
        logits = self.head(top)
        accuracy = (logits.argmax(1) == batch["label"]).float().mean()
        return {"loss": F.cross_entropy(logits, batch["label"]) + regulariser(transform), "accuracy": accuracy}


class PointNetSegmenter(PartSegmenter):
    """Local features, the global one and the class, joined at each point (Section 4.2, Figure 2)."""

    def __init__(self, features: PointFeatures, num_classes: int, num_parts: int, width: float):
        super().__init__()
        self.features, self.num_classes = features, num_classes
        joined = features.local + features.channels + num_classes
        self.head = SharedMLP(joined, scaled([512, 256, 128], width))
        self.classifier = nn.Linear(self.head.channels, num_parts)

    def part_logits(self, cloud: Batch) -> Tensor:
        local, top, _ = self.features(cloud)
        everywhere = top[:, None].expand(-1, local.shape[1], -1)
        joined = torch.cat([local, everywhere, with_class(cloud, self.num_classes, local.dtype)], dim=-1)
        return self.classifier(self.head(joined))
