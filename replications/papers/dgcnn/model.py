"""DGCNN (Wang et al. 2019): edge convolutions, each on the graph of the features that enter it."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from replications.errors import UserError
from replications.layers.points.graph import SLOPE, EdgeConv, nearest
from replications.layers.points.model import PointClassifier, scaled
from replications.layers.points.pooling import maximum
from replications.training.stage import Batch

WIDTHS, EMBEDDING, HIDDEN = (64, 64, 128, 256), 1024, (512, 256)


def build(
    num_classes: int,
    channels: int,
    points: int,
    *,
    width: float = 1.0,
    k: int = 20,
    dynamic: bool = True,
    dropout: float = 0.5,
) -> "DGCNN":
    """DGCNN; with `dynamic` false all layers have the graph of the positions.

    Raises UserError for a `k` above `points`.
    """
    if not 1 <= k <= points:
        raise UserError(f"dgcnn: k = {k} neighbours needs clouds of at least {k} points, not {points}")
    return DGCNN(num_classes, 3 + channels, width, k, dynamic, dropout)


class DGCNN(PointClassifier):
    """The classification network (Figure 3) without its spatial transform."""

    def __init__(self, num_classes: int, channels: int, width: float, k: int, dynamic: bool, dropout: float):
        super().__init__()
        self.k, self.dynamic = k, dynamic
        widths = scaled(WIDTHS, width)
        inputs = [channels, *widths[:-1]]
        self.layers = nn.ModuleList(EdgeConv(a, b) for a, b in zip(inputs, widths, strict=True))
        embedding, *hidden = scaled([EMBEDDING, *HIDDEN], width)
        self.embedding = nn.Sequential(
            nn.Linear(sum(widths), embedding, bias=False), nn.BatchNorm1d(embedding), nn.LeakyReLU(SLOPE)
        )
        self.head = head(2 * embedding, hidden, num_classes, dropout)

    def logits(self, cloud: Batch) -> Tensor:
        x, found = cloud["points"], []
        graph = nearest(x, self.k)
        if "features" in cloud:
            x = torch.cat([x, cloud["features"]], dim=-1)
        for number, layer in enumerate(self.layers):
            if self.dynamic and number:
                graph = nearest(x, self.k)
            x = layer(x, graph)
            found.append(x)
        joined = torch.cat(found, dim=-1)
        each = self.embedding(joined.flatten(0, 1)).view(*joined.shape[:2], -1)
        return self.head(torch.cat([maximum(each, 1), each.mean(1)], dim=-1))


def head(channels: int, widths: Sequence[int], num_classes: int, dropout: float) -> nn.Sequential:
    """Fully connected layers as the released code has them: only the first is without a bias."""
    layers: list[nn.Module] = []
    for number, width in enumerate(widths):
        layers += [nn.Linear(channels, width, bias=number > 0), nn.BatchNorm1d(width)]
        layers += [nn.LeakyReLU(SLOPE), nn.Dropout(dropout)]
        channels = width
    return nn.Sequential(*layers, nn.Linear(channels, num_classes))
