"""The encoder of SO-Net (Sections 3.2 and 3.3): points to nodes, nodes to their neighbours, nodes to one feature."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from replications.layers.points import checks
from replications.layers.points.model import scaled
from replications.layers.points.neighbours import gather, knn
from replications.layers.points.pooling import maximum
from replications.layers.points.shared_mlp import SharedMLP
from replications.papers.sonet.som import cluster_means
from replications.training.stage import Batch

JITTER, JITTER_MOST = 0.04, 0.1  # of nodes in training
AGGREGATIONS = ("knn", "grid", "none")


@dataclass
class Encoded:
    """What the encoder found, for the heads. A *copy* is a point as seen from one of its k nodes."""

    index: Tensor  # node of each copy [batch, points * k]
    nodes: Tensor  # cluster means [batch, nodes, 3]
    local: Tensor  # positions of copies relative to their node [batch, points * k, 3]
    first: Tensor  # features of copies [batch, points * k, 384]
    node_max: Tensor  # their maximum in each node [batch, nodes, 384]
    around: Tensor  # features of nodes with their neighbours [batch, nodes, 512]; without that layer, their maxima
    last: Tensor  # [batch, nodes, 1024]
    top: Tensor  # the cloud's feature [batch, 1024]


class ResidualPointNet(nn.Module):
    """Shared layers, the last of which also sees the first one's output and has neither norm nor ReLU."""

    def __init__(self, channels: int, widths: Sequence[int]):
        super().__init__()
        first, *middle, self.channels = widths
        self.first = SharedMLP(channels, [first])
        self.middle = SharedMLP(first, middle)
        self.last = nn.Linear(first + self.middle.channels, self.channels)

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x)
        return self.last(torch.cat([first, self.middle(first)], dim=-1))


class Encoder(nn.Module):
    """Points to their `k` nearest nodes, maximum in each node, nodes to their neighbours, maximum over nodes.

    `aggregation` of nodes: ``knn`` over the `node_neighbours` nearest nodes of the map, relative to their centre, which
    the last network sees too: the mean of the neighbours, or with `around_node` the node itself, as the part
    segmentation has it. ``grid``: two convolutions on the map as an image. ``none`` leaves it out, and the last network
    is residual (the paper's two-layer form). The last network ends without norm and ReLU.
    """

    def __init__(
        self,
        channels: int,
        width: float,
        grid: int,
        k: int,
        node_neighbours: int,
        aggregation: str = "knn",
        around_node: bool = False,
    ):
        super().__init__()
        self.grid, self.k, self.aggregation, self.around_node = grid, k, aggregation, around_node
        self.node_neighbours = min(node_neighbours, grid * grid)
        self.points = ResidualPointNet(3 + channels, scaled([64, 128, 256, 384], width))
        self.first_channels = self.points.channels
        around = scaled([512, 512], width)
        if aggregation == "knn":
            self.around = SharedMLP(3 + self.first_channels, around)
        elif aggregation == "grid":
            self.around = nn.Sequential(
                *convolution(3 + self.first_channels, around[0]), *convolution(around[0], around[1])
            )
        self.around_channels = self.first_channels if aggregation == "none" else around[-1]
        seen = 3 + self.around_channels
        if aggregation == "none":
            self.last = ResidualPointNet(seen, scaled([512, 512, 768, 1024], width))
        else:
            self.last = SharedMLP(seen, scaled([768, 1024], width), last_plain=True)
        self.channels = self.last.channels
        initialise(self)

    def forward(self, cloud: Batch) -> Encoded:
        """Encode clouds with ``nodes`` ``[batch, nodes, 3]`` beside their points."""
        points, som = cloud["points"], cloud["nodes"]
        if self.training:
            som = som + (JITTER * torch.randn_like(som)).clamp(-JITTER_MOST, JITTER_MOST)
        index = knn(points, som, self.k)[1].flatten(1)  # copies of a point are adjacent
        copies = points.repeat_interleave(self.k, dim=1)
        means, count = cluster_means(copies, index, som.shape[1])
        nodes = torch.where(count[..., None] > 0, means, som)
        local = copies - gather(nodes, index)
        seen = local
        if "features" in cloud:
            seen = torch.cat([local, cloud["features"].repeat_interleave(self.k, dim=1)], dim=-1)
        first = self.points(seen)
        node_max = node_maximum(first, index, som.shape[1])
        centre, around = self._around(som, nodes, node_max)
        last = self.last(torch.cat([centre, around], dim=-1))
        return Encoded(index, nodes, local, first, node_max, around, last, maximum(last, 1))

    def _around(self, som: Tensor, nodes: Tensor, node_max: Tensor) -> tuple[Tensor, Tensor]:
        """Return the centre of each node's neighbourhood and its features. Neighbours are decided on the map itself."""
        if self.aggregation == "none":
            return nodes, node_max
        if self.aggregation == "grid":
            image = torch.cat([nodes, node_max], dim=-1).transpose(1, 2).unflatten(2, (self.grid, self.grid))
            return nodes, self.around(image).flatten(2).transpose(1, 2)
        index = knn(som, som, self.node_neighbours)[1]
        near = gather(nodes, index)
        centre = nodes if self.around_node else near.mean(2)
        offset = near - centre[:, :, None]
        return centre, maximum(self.around(torch.cat([offset, gather(node_max, index)], dim=-1)), 2)


def node_maximum(features: Tensor, index: Tensor, nodes: int) -> Tensor:
    """Return the maximum of features ``[batch, copies, c]`` in each node ``[batch, nodes, c]``; 0 in empty nodes."""
    batch, _, channels = features.shape
    if not checks.on_host(features):
        empty = features.new_zeros(batch, nodes, channels)
        where = index[..., None].expand(-1, -1, channels)
        return empty.scatter_reduce(1, where, features, "amax", include_self=False)
    # Sorted by node, the copies of a node are one segment: several times as fast on a CPU.
    place = (index + nodes * torch.arange(batch)[:, None]).flatten()
    copies = features.flatten(0, 1).index_select(0, place.argsort(stable=True))
    count = torch.bincount(place, minlength=batch * nodes)
    found = torch.segment_reduce(copies, "max", lengths=count, axis=0, unsafe=True)
    return found.where((count > 0)[:, None], 0).view(batch, nodes, channels)


def initialise(module: nn.Module) -> None:
    """Draw He-normal weights, variance 2 / inputs of the layer, and set biases to 0: the released code's start."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def convolution(channels: int, width: int, kernel: int = 3) -> list[nn.Module]:
    return [
        nn.Conv2d(channels, width, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    ]
