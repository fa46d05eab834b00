"""PointConv (Wu et al. 2019): networks for classification and part segmentation."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from replications.errors import UserError
from replications.layers.points.model import (
    ClassifierHead,
    Measures,
    PartSegmenter,
    PointClassifier,
    scaled,
    with_class,
)
from replications.layers.points.propagation import FeaturePropagation
from replications.papers.pointconv.layers import Options, PointConvLayer, PointDeconv
from replications.papers.pointconv.measures import measure
from replications.training.stage import Batch

# Shared widths and output of the classification network's levels (PyTorch code), and of the segmentation network's
# encoder and decoder (TensorFlow code), from fine to coarse.
CLASSIFICATION = ((64, 64, 128), (128, 128, 256), (256, 512, 1024))
ENCODER = ((32, 32, 64), (64, 64, 128), (128, 128, 256), (256, 256, 512))
DECODER = ((128, 128, 128), (256, 128), (256, 256), (512, 512))
PARTS = ("counts", "neighbours", "bandwidths", "weight_widths", "density_widths", "decoder_neighbours")
DECODERS = ("deconvolution", "interpolation")


def build(
    num_classes: int,
    channels: int,
    num_parts: int | None = None,
    *,
    width: float = 1.0,
    counts: Sequence[int] = (512, 128),
    neighbours: Sequence[int] = (32, 64),
    bandwidths: Sequence[float] = (0.1, 0.2, 0.4),
    density: str = "kde",
    scale: str = "sigmoid",
    form: str = "reordered",
    weight_widths: Sequence[int] = (8, 8, 16),
    density_widths: Sequence[int] = (16, 8),
    decoder: str = "deconvolution",
    decoder_neighbours: int = 16,
    dropout: float = 0.7,
    parts: Mapping[str, Any] | None = None,
) -> PointClassifier | PartSegmenter:
    """PointConv. `counts` and `neighbours` are of the sampled levels, `bandwidths` of these and the last one.

    `decoder` of segmentation: ``deconvolution`` (PointDeconv) or ``interpolation`` (PointNet++'s). `parts` are the
    options that the segmentation network has otherwise; without it, it takes the sampled levels of classification.
    """
    if num_parts is not None and parts:
        if not isinstance(parts, Mapping) or not set(parts) <= set(PARTS):
            raise UserError(f"pointconv: the option 'parts' may name {', '.join(PARTS)}, not {parts}")
        given = (counts, neighbours, bandwidths, weight_widths, density_widths, decoder_neighbours)
        own = dict(zip(PARTS, given, strict=True)) | dict(parts)
        same = {"width": width, "density": density, "scale": scale, "form": form, "decoder": decoder}
        return build(num_classes, channels, num_parts, **same, **own)
    options = Options(density, scale, form, tuple(weight_widths), tuple(density_widths))
    if num_parts is None:
        check_levels(CLASSIFICATION, [*counts, None], [*neighbours, None], bandwidths)
        return PointConvNet(num_classes, channels, width, counts, neighbours, bandwidths, options, dropout)
    bandwidths = bandwidths[: len(counts)]  # the last one is of classification's level over the whole cloud
    check_levels(ENCODER[: len(counts)], counts, neighbours, bandwidths)
    return PointConvSegmenter(
        num_classes,
        num_parts,
        channels,
        width,
        counts,
        neighbours,
        bandwidths,
        options,
        decoder,
        decoder_neighbours,
    )


def check_levels(widths: Sequence, counts: Sequence, neighbours: Sequence, bandwidths: Sequence) -> None:
    """Raise UserError unless there is one of each for every level."""
    if not len(widths) == len(counts) == len(neighbours) == len(bandwidths):
        raise UserError(
            f"pointconv: {len(counts)} counts, {len(neighbours)} neighbours and {len(bandwidths)} bandwidths do not "
            f"make {len(widths)} levels"
        )


class PointConvNet(PointClassifier):
    """The classification network: sampled levels, one over the whole cloud, fully connected layers."""

    def __init__(
        self,
        num_classes: int,
        channels: int,
        width: float,
        counts: Sequence[int],
        neighbours: Sequence[int],
        bandwidths: Sequence[float],
        options: Options,
        dropout: float,
    ):
        super().__init__()
        levels = []
        rows = zip([*counts, None], [*neighbours, None], bandwidths, CLASSIFICATION, strict=True)
        for count, k, bandwidth, widths in rows:
            widths = scaled(widths, width)
            levels.append(PointConvLayer(count, k, bandwidth, channels, widths, widths[-1], options))
            channels = levels[-1].channels
        self.levels = nn.ModuleList(levels)
        self.head = ClassifierHead(channels, tuple(scaled([512, 256], width)), num_classes, dropout)

    def logits(self, cloud: Batch) -> Tensor:
        points, features = cloud["points"], cloud.get("features")
        for level in self.levels:
            points, features = level(points, features)
        return self.head(features[:, 0])

    def measure(self, clouds: Batch) -> Measures:
        return measure(self.levels, clouds)


class PointConvSegmenter(PartSegmenter):
    """The segmentation network: an encoder of sampled levels and as many levels of a decoder."""

    def __init__(
        self,
        num_classes: int,
        num_parts: int,
        channels: int,
        width: float,
        counts: Sequence[int],
        neighbours: Sequence[int],
        bandwidths: Sequence[float],
        options: Options,
        decoder: str,
        decoder_neighbours: int,
    ):
        super().__init__()
        if decoder not in DECODERS:
            raise UserError(f"pointconv: decoder must be one of {', '.join(DECODERS)}, not '{decoder}'")
        self.num_classes = num_classes
        channels += 3  # points carry their place as a feature too, as in the released network
        down, skips = [], [num_classes + channels]
        levels = zip(counts, neighbours, bandwidths, ENCODER[: len(counts)], strict=True)
        for count, k, bandwidth, (*shared, out) in levels:
            layer = PointConvLayer(
                count, k, bandwidth, channels, scaled(shared, width), scaled([out], width)[0], options
            )
            down.append(layer)
            channels = layer.channels
            skips.append(channels)
        up = []
        for level in reversed(range(len(down))):
            widths = scaled(DECODER[level], width)
            if decoder == "deconvolution":
                layer = PointDeconv(decoder_neighbours, bandwidths[level], channels, skips[level], widths, options)
            else:
                layer = FeaturePropagation(channels + skips[level], widths)
            up.append(layer)
            channels = layer.channels
        self.down, self.up = nn.ModuleList(down), nn.ModuleList(up)
        top = scaled([128], width)[0]
        self.head = nn.Sequential(nn.Linear(channels, top, bias=False), nn.BatchNorm1d(top), nn.ReLU(), nn.Dropout(0.5))
        self.classifier = nn.Linear(top, num_parts)

    def part_logits(self, cloud: Batch) -> Tensor:
        own = torch.cat([cloud["points"], *([cloud["features"]] if "features" in cloud else [])], dim=-1)
        points, features = [cloud["points"]], [own]
        for layer in self.down:
            centres, found = layer(points[-1], features[-1])
            points.append(centres)
            features.append(found)
        features[0] = torch.cat([with_class(cloud, self.num_classes, own.dtype), own], dim=-1)
        carried = features[-1]
        for layer, level in zip(self.up, reversed(range(len(self.down))), strict=True):
            carried = layer(points[level], points[level + 1], features[level], carried)
        return self.classifier(self.head(carried.flatten(0, 1))).view(*points[0].shape[:2], -1)
