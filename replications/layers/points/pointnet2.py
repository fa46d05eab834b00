"""Set abstraction of PointNet++ (Qi et al. 2017, Sections 3.2 and 3.3)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from replications.layers.points.neighbours import ball_query, gather
from replications.layers.points.pooling import maximum
from replications.layers.points.sampling import farthest_point_sample
from replications.layers.points.shared_mlp import SharedMLP


class MultiScaleSetAbstraction(nn.Module):
    """Sample centres, group points around each at several radii, and pool a shared network over each group (MSG).

    `count` centres are taken by farthest point sampling; ``None`` groups the whole cloud around the origin into one
    (PointNet++'s last layer). `scales` are (radius, k, widths): a group holds `k` points within `radius`. The networks
    see positions relative to the centre (`use_xyz`; over `radius` with `normalise_xyz`, as VoteNet does) and the
    points' features of `channels_in` channels (0: none). `channels` is the width of the result, all scales together.
    """

    def __init__(
        self,
        count: int | None,
        scales: Sequence[tuple[float | None, int | None, Sequence[int]]],
        channels_in: int,
        *,
        use_xyz: bool = True,
        normalise_xyz: bool = False,
    ):
        super().__init__()
        if not use_xyz and not channels_in:
            raise ValueError("a layer without features must use the positions (use_xyz)")
        self.count, self.use_xyz, self.normalise_xyz = count, use_xyz, normalise_xyz
        self.groups = [(radius, k) for radius, k, _ in scales]
        self.mlps = nn.ModuleList(SharedMLP(channels_in + 3 * use_xyz, widths) for _, _, widths in scales)
        self.channels = sum(mlp.channels for mlp in self.mlps)

    def forward(
        self, points: Tensor, features: Tensor | None = None, indices: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return centres ``[batch, count, 3]``, features ``[batch, count, channels]`` and the centres' indices.

        `points` ``[batch, points, 3]``, `features` ``[batch, points, channels_in]``; `indices` ``[batch, count]`` gives
        the centres instead of farthest point sampling. With ``count=None`` the one centre is the origin, its index 0.
        """
        if self.count is None:
            return self._whole(points, features)
        if indices is None:
            indices = farthest_point_sample(points, self.count)
        centres = gather(points, indices)
        pooled = []
        for (radius, k), mlp in zip(self.groups, self.mlps, strict=True):
            group = ball_query(centres, points, radius, k)
            offset = gather(points, group) - centres[:, :, None]
            if self.normalise_xyz:
                offset = offset / radius
            joined = self._joined(offset, None if features is None else gather(features, group))
            pooled.append(maximum(mlp(joined), 2))
        return centres, torch.cat(pooled, dim=-1), indices

    def _whole(self, points: Tensor, features: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        joined = self._joined(points, features)
        pooled = torch.cat([maximum(mlp(joined), 1) for mlp in self.mlps], dim=-1)
        origin = points.new_zeros(len(points), 1, 3)
        return origin, pooled[:, None], torch.zeros(len(points), 1, dtype=torch.int64, device=points.device)

    def _joined(self, offset: Tensor, features: Tensor | None) -> Tensor:
        parts = [offset] if self.use_xyz else []
        return torch.cat([*parts, *([] if features is None else [features])], dim=-1)


class SetAbstraction(MultiScaleSetAbstraction):
    """Set abstraction with one group a centre (SSG): `k` points within `radius`, a network of `widths`."""

    def __init__(
        self,
        count: int | None,
        radius: float | None,
        k: int | None,
        channels_in: int,
        widths: Sequence[int],
        *,
        use_xyz: bool = True,
        normalise_xyz: bool = False,
    ):
        scales = [(radius, k, widths)]
        super().__init__(count, scales, channels_in, use_xyz=use_xyz, normalise_xyz=normalise_xyz)
