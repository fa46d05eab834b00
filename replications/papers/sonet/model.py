"""SO-Net (Li et al. 2018): a self-organising map of the cloud, features of its nodes, one feature of all."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from replications.errors import UserError
from replications.layers.points.chamfer import chamfer_distance
from replications.layers.points.model import (
    Autoencoder,
    ClassifierHead,
    Measures,
    PartSegmenter,
    PointClassifier,
    PointModel,
    scaled,
    with_class,
)
from replications.layers.points.neighbours import gather
from replications.layers.points.shared_mlp import SharedMLP
from replications.papers.sonet.decoder import STEPS, PointDecoder
from replications.papers.sonet.layers import AGGREGATIONS, Encoder, initialise
from replications.papers.sonet.som import train_som
from replications.training.determinism import generator_for
from replications.training.stage import Batch

NOISES = (0.1, 0.2)  # standard deviations of the disturbed maps
SHOWN = 4


def build(
    num_classes: int,
    channels: int,
    num_parts: int | None = None,
    reconstruct: bool = False,
    *,
    width: float = 1.0,
    grid: int = 8,
    node_k: int = 3,
    node_neighbours: int = 9,
    aggregation: str = "knn",
    dropout: float = 0.7,
    connected_points: int = 256,
    pyramid_levels: int = 3,
) -> PointModel:
    """SO-Net with ``grid * grid`` nodes, `node_k` nodes a point and `node_neighbours` nodes a node."""
    if aggregation not in AGGREGATIONS:
        raise UserError(f"sonet: aggregation must be one of {', '.join(AGGREGATIONS)}, not '{aggregation}'")
    if not 1 <= node_k <= grid * grid:
        raise UserError(f"sonet: node_k must be between 1 and the {grid * grid} nodes, not {node_k}")
    most = len(STEPS) - 2
    if not 1 <= pyramid_levels <= most:
        raise UserError(f"sonet: pyramid_levels must be between 1 and {most}, not {pyramid_levels}")
    segments = num_parts is not None
    encoder = Encoder(channels, width, grid, node_k, node_neighbours, aggregation, around_node=segments)
    if segments:
        return SONetSegmenter(encoder, num_classes, num_parts, channels, width)
    if reconstruct:
        return SONetAutoencoder(encoder, PointDecoder(encoder.channels, width, connected_points, pyramid_levels))
    return SONet(encoder, num_classes, width, dropout)


class _WithMap:
    """What all three networks do before any weight: train the map of each cloud."""

    moving = ("nodes",)

    def precompute(self, points: Tensor) -> Batch:
        return {"nodes": train_som(points, self.encoder.grid)}


class SONet(_WithMap, PointClassifier):
    """The classification network."""

    def __init__(self, encoder: Encoder, num_classes: int, width: float, dropout: float):
        super().__init__()
        self.encoder = encoder
        self.head = ClassifierHead(encoder.channels, tuple(scaled([512, 256], width)), num_classes, dropout)
        initialise(self.head)

    def logits(self, cloud: Batch) -> Tensor:
        return self.head(self.encoder(cloud).top)

    def conditions(self) -> dict[str, Callable[[Batch], Batch]]:
        """Maps with Gaussian noise on their nodes."""
        return {f"som_noise{round(100 * s)}": _Disturbed(s) for s in NOISES}

    def measure(self, clouds: Batch) -> Measures:
        every = max(1, len(clouds["points"]) // SHOWN)
        shown = {name: clouds[name][::every][:SHOWN].cpu().numpy().astype(np.float16) for name in ("points", "nodes")}
        return Measures(arrays={f"map_{name}": value for name, value in shown.items()})


class _Disturbed:
    """Clouds whose nodes are moved by Gaussian noise, always the same."""

    def __init__(self, deviation: float):
        self.deviation = deviation

    def __call__(self, cloud: Batch) -> Batch:
        nodes = cloud["nodes"]
        noise = torch.randn(nodes.shape, generator=generator_for("test", "nodes", round(1000 * self.deviation)))
        return cloud | {"nodes": nodes + self.deviation * noise.to(nodes)}


class SONetSegmenter(_WithMap, PartSegmenter):
    """The part segmentation network: all that is known of each copy of a point, and the mean over its copies."""

    def __init__(self, encoder: Encoder, num_classes: int, num_parts: int, channels: int, width: float):
        super().__init__()
        self.encoder, self.num_classes = encoder, num_classes
        joined = 9 + channels + num_classes + 2 * encoder.first_channels + 2 * encoder.channels
        if encoder.aggregation != "none":
            joined += encoder.around_channels
        self.copies = SharedMLP(joined, scaled([1024, 512, 256], width))
        top = scaled([128], width)[0]
        self.points = SharedMLP(self.copies.channels, [top])
        self.classifier = nn.Sequential(nn.Dropout(0.6), nn.Linear(top, num_parts))
        for layers in (self.copies, self.points, self.classifier):
            initialise(layers)

    def part_logits(self, cloud: Batch) -> Tensor:
        found, k = self.encoder(cloud), self.encoder.k
        own = [cloud["features"]] if "features" in cloud else []
        own.append(with_class(cloud, self.num_classes, cloud["points"].dtype))
        of_point, place = (x.repeat_interleave(k, dim=1) for x in (torch.cat(own, dim=-1), cloud["points"]))
        around = [] if self.encoder.aggregation == "none" else [found.around]
        of_node = gather(torch.cat([found.node_max, *around, found.last], dim=-1), found.index)
        top = found.top[:, None].expand(-1, place.shape[1], -1)
        seen = [found.local, place, gather(found.nodes, found.index), of_point, found.first, of_node, top]
        copies = self.copies(torch.cat(seen, dim=-1))
        return self.classifier(self.points(copies.unflatten(1, (-1, k)).mean(2)))


class SONetAutoencoder(_WithMap, Autoencoder):
    """The encoder, and a decoder that is judged by the Chamfer distance of its points and of a coarser level's."""

    def __init__(self, encoder: Encoder, decoder: PointDecoder):
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def encode(self, cloud: Batch) -> Tensor:
        return self.encoder(cloud).top

    def reconstruct(self, features: Tensor) -> Tensor:
        return self.decoder(features)[-1]

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        levels = [chamfer_distance(points, batch["points"]).mean() for points in self.decoder(self.encode(batch))]
        return {"loss": sum(levels), "chamfer": levels[-1].detach()}
