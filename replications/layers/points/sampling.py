"""Farthest point sampling (PointNet++, Section 3.2)."""

import numpy as np
import torch
from torch import Tensor

from replications.errors import UserError
from replications.layers.points import checks

# From this size on a CPU takes cloud by cloud: one cloud and its distances then stay in the core's own cache.
_LONG_CLOUD = 4096


@torch.no_grad()
def farthest_point_sample(points: Tensor, count: int) -> Tensor:
    """Return `count` indices of each cloud, each the farthest from those before it; int64 ``[batch, count]``.

    Starts at index 0 and takes the lower index where two points are equally far, so the result is a function of the
    points, and the first `m` of `count` indices are the sample of size `m`. Once every distinct position is taken
    (duplicates), index 0 is repeated. Works in float32 with memory of ``[batch, points]``. Raises UserError where a
    cloud has fewer than `count` points.
    """
    checks.check_points(points)
    if not 1 <= count <= points.shape[1]:
        raise UserError(f"cannot sample {count} of {points.shape[1]} points: ask for 1 to {points.shape[1]}")
    points = points.detach().float()
    if points.is_cuda:
        from replications.layers.points.triton_sampling import farthest_point_sample_triton

        return farthest_point_sample_triton(points, count)
    if checks.on_host(points) and points.shape[1] >= _LONG_CLOUD:
        return torch.from_numpy(np.stack([_one_cloud(cloud, count) for cloud in points.numpy()]))
    return _batched(points, count)


def _batched(points: Tensor, count: int) -> Tensor:
    x, y, z = (points[..., axis].contiguous() for axis in range(3))
    nearest = torch.full_like(x, float("inf"))  # squared distance to the nearest point taken so far
    squared, part = torch.empty_like(x), torch.empty_like(x)
    taken = torch.zeros(len(x), count, dtype=torch.int64, device=x.device)
    last = taken[:, :1]
    for i in range(1, count):
        torch.sub(x, x.gather(1, last), out=squared)
        squared.mul_(squared)
        for axis in (y, z):
            torch.sub(axis, axis.gather(1, last), out=part)
            squared.add_(part.mul_(part))
        torch.minimum(nearest, squared, out=nearest)
        last = nearest.argmax(1, keepdim=True)
        taken[:, i : i + 1] = last
    return taken


def _one_cloud(cloud: np.ndarray, count: int) -> np.ndarray:
    """The same on one cloud ``[points, 3]``: numpy's calls cost less than torch's, and the same roundings follow."""
    x, y, z = (np.ascontiguousarray(cloud[:, axis]) for axis in range(3))
    nearest = np.full_like(x, np.inf)
    squared, part = np.empty_like(x), np.empty_like(x)
    taken = np.zeros(count, dtype=np.int64)
    last = 0
    for i in range(1, count):
        np.subtract(x, x[last], out=squared)
        np.multiply(squared, squared, out=squared)
        for axis in (y, z):
            np.subtract(axis, axis[last], out=part)
            np.multiply(part, part, out=part)
            np.add(squared, part, out=squared)
        np.minimum(nearest, squared, out=nearest)
        last = nearest.argmax()
        taken[i] = last
    return taken
