"""Layers around the operator: sampling and grouping (encoder), PointDeconv (decoder)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from replications.layers.points.interpolation import interpolate
from replications.layers.points.neighbours import gather, knn
from replications.layers.points.sampling import farthest_point_sample
from replications.layers.points.shared_mlp import SharedMLP
from replications.papers.pointconv.density import inverse_scale, kernel_density, released_density
from replications.papers.pointconv.operator import PointConv


@dataclass(frozen=True)
class Options:
    """What all layers of a network share; see `PointConv`. `released_variance` is relative to a layer's bandwidth."""

    density: str = "kde"
    scale: str = "sigmoid"
    form: str = "reordered"
    weight_widths: tuple[int, ...] = (8, 8, 16)
    density_widths: tuple[int, ...] = (16, 8)

    def operator(self, channels_in: int, widths: Sequence[int], channels_out: int) -> PointConv:
        return PointConv(
            channels_in,
            widths,
            channels_out,
            weight_widths=self.weight_widths,
            density_widths=self.density_widths,
            density=self.density,
            scale=self.scale,
            form=self.form,
        )

    def point_density(self, points: Tensor, bandwidth: float) -> Tensor | None:
        """Return ``[batch, points]``; None without density."""
        if self.density == "none":
            return None
        if self.density == "kde":
            return kernel_density(points, bandwidth)
        # The released encoder has radii 0.1, 0.2, ... and variances 0.05, 0.1, ...: half the radius.
        return released_density(points, radius=bandwidth, variance=bandwidth / 2)


@dataclass
class Group:
    """Neighbourhoods: the input of an operator."""

    centres: Tensor
    offset: Tensor
    features: Tensor
    inverse_density: Tensor | None


class PointConvLayer(nn.Module):
    """Take `count` centres, find the `k` nearest points of each, convolve (``None``: the whole cloud at its mean)."""

    def __init__(
        self,
        count: int | None,
        k: int | None,
        bandwidth: float,
        channels_in: int,
        widths: Sequence[int],
        channels_out: int,
        options: Options,
    ):
        super().__init__()
        self.count, self.k, self.bandwidth, self.options = count, k, bandwidth, options
        self.operator = options.operator(3 + channels_in, widths, channels_out)
        self.channels = channels_out

    def group(
        self,
        points: Tensor,
        features: Tensor | None,
        centres: Tensor | None = None,
        options: Options | None = None,
    ) -> Group:
        """Return the neighbourhoods of sampled (or given) centres, features with relative positions in front.

        The density is that of `options` where they are given.
        """
        density = (options or self.options).point_density(points, self.bandwidth)
        if self.count is None and centres is None:
            centres = points.mean(1, keepdim=True)
            offset = (points - centres)[:, None]
            near = None if features is None else features[:, None]
            group_density = None if density is None else density[:, None]
        else:
            if centres is None:
                centres = gather(points, farthest_point_sample(points, self.count))
            index = knn(centres, points, min(self.k, points.shape[1]))[1]
            offset = gather(points, index) - centres[:, :, None]
            near = None if features is None else gather(features, index)
            group_density = None if density is None else gather(density[..., None], index)[..., 0]
        joined = offset if near is None else torch.cat([offset, near], dim=-1)
        return Group(centres, offset, joined, None if group_density is None else inverse_scale(group_density))

    def forward(self, points: Tensor, features: Tensor | None, centres: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return centres ``[batch, count, 3]`` and features ``[batch, count, channels]``."""
        group = self.group(points, features, centres)
        return group.centres, self.operator(group.offset, group.features, group.inverse_density)


class PointDeconv(nn.Module):
    """Interpolate coarse features to the fine points, convolve there, join the skip, shared network (Section 4)."""

    def __init__(self, k: int, bandwidth: float, coarse: int, skip: int, widths: Sequence[int], options: Options):
        super().__init__()
        self.convolution = PointConvLayer(None, k, bandwidth, coarse, [], widths[0], options)
        self.mlp = SharedMLP(widths[0] + skip, widths[1:])
        self.channels = self.mlp.channels

    def forward(self, fine: Tensor, coarse: Tensor, skip: Tensor | None, features: Tensor) -> Tensor:
        """Return ``[batch, fine, channels]``; arguments as of `FeaturePropagation`."""
        carried = interpolate(fine, coarse, features)
        _, found = self.convolution(fine, carried, centres=fine)
        return self.mlp(found if skip is None else torch.cat([found, skip], dim=-1))
