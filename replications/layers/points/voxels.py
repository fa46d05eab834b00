"""Point clouds as voxels (Maturana and Scherer 2015): counts of points, and the 3-D convolutions that read them."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from replications.errors import UserError
from replications.layers.points import checks
from replications.layers.points.pooling import maximum

KERNELS, STRIDES, POOL = (5, 3), (2, 1), 2
SLOPE = 0.1


@torch.no_grad()
def voxel_counts(points: Tensor, resolution: int, extent: float) -> Tensor:
    """Return how many points lie in each voxel, float32 ``[batch, resolution, resolution, resolution]``.

    `points` ``[batch, points, 3]``. The voxels divide the cube from -extent to extent, their axes are x, y, z; a point
    on a border belongs to the voxel above, and points outside are not counted. No gradient. Raises UserError for
    clouds of another form.
    """
    checks.check_points(points)
    place = torch.floor((points.float() / extent + 1) * (resolution / 2))
    inside = ((place >= 0) & (place < resolution)).all(-1)
    x, y, z = place.clamp(0, resolution - 1).long().unbind(-1)
    cloud = torch.arange(len(points), device=points.device)[:, None]
    index = ((cloud * resolution + x) * resolution + y) * resolution + z
    counts = torch.zeros(len(points) * resolution**3, device=points.device)
    # Sums of ones are exact in any order.
    counts.index_add_(0, index.flatten(), inside.flatten().float())
    return counts.view(len(points), resolution, resolution, resolution)


class VoxelFeatures(nn.Module):
    """Two convolutions (5 voxels with stride 2, then 3), a maximum over 2 x 2 x 2 and a layer on all that is left.

    `widths` are of the three layers, `dropout` the shares after each. Input ``[batch, R, R, R]``, output ``[batch,
    widths[-1]]``. Raises UserError where `resolution` leaves nothing to pool.
    """

    def __init__(self, resolution: int, widths: Sequence[int], dropout: Sequence[float]):
        super().__init__()
        first, second, top = widths
        side = pooled_side(resolution)
        self.first = nn.Conv3d(1, first, KERNELS[0], STRIDES[0])
        self.second = nn.Conv3d(first, second, KERNELS[1], STRIDES[1])
        self.top = nn.Linear(second * side**3, top)
        self.after = nn.ModuleList(nn.Dropout(share) for share in dropout)

    def forward(self, grid: Tensor) -> Tensor:
        x = nn.functional.leaky_relu(self.first(grid[:, None]), SLOPE)
        x = nn.functional.leaky_relu(self.second(self.after[0](x)), SLOPE)
        x = self.after[1](max_pool3d(x))
        return self.after[2](nn.functional.relu(self.top(x.flatten(1))))


def pooled_side(resolution: int) -> int:
    """Return the voxels along an axis after convolutions and pooling; raises UserError where none are left."""
    side = resolution
    for kernel, stride in zip(KERNELS, STRIDES, strict=True):
        side = (side - kernel) // stride + 1
    if side < POOL:
        raise UserError(f"resolution {resolution} leaves no voxel after the convolutions: give 11 or more")
    return side // POOL


def max_pool3d(x: Tensor) -> Tensor:
    """Return the maxima of blocks of 2 x 2 x 2 voxels; an odd last layer is left out.

    torch's own has no deterministic backward pass on CUDA.
    """
    even = [size // POOL for size in x.shape[2:]]
    x = x[:, :, : POOL * even[0], : POOL * even[1], : POOL * even[2]]
    blocks = x.reshape(*x.shape[:2], even[0], POOL, even[1], POOL, even[2], POOL)
    return maximum(blocks.permute(0, 1, 2, 4, 6, 3, 5, 7).flatten(5), -1)
