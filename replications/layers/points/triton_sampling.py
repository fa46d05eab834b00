"""Farthest point sampling in one kernel a batch, for CUDA."""

import torch
import triton
import triton.language as tl
from torch import Tensor


def farthest_point_sample_triton(points: Tensor, count: int) -> Tensor:
    """`farthest_point_sample` of float32 `points` ``[batch, n, 3]``: one program walks over one cloud.

    Rounds as the CPU does (no fused multiply-add), so that it takes the same points.
    """
    batch, n, _ = points.shape
    coordinates = points.transpose(1, 2).contiguous()
    nearest = torch.full((batch, n), float("inf"), device=points.device)
    taken = torch.zeros(batch, count, dtype=torch.int64, device=points.device)
    tile = min(4096, triton.next_power_of_2(n))
    _kernel[(batch,)](
        coordinates, nearest, taken, n, count, TILE=tile, num_warps=max(4, min(16, tile // 128)), enable_fp_fusion=False
    )
    return taken


@triton.jit
def _kernel(coordinates, nearest, taken, n, count, TILE: tl.constexpr):
    cloud = tl.program_id(0)
    xs = coordinates + cloud * 3 * n
    distances = nearest + cloud * n
    last = 0
    for i in range(1, count):
        x0 = tl.load(xs + last)
        y0 = tl.load(xs + n + last)
        z0 = tl.load(xs + 2 * n + last)
        best = -1.0
        for start in range(0, n, TILE):
            at = start + tl.arange(0, TILE)
            inside = at < n
            dx = tl.load(xs + at, mask=inside, other=0.0) - x0
            dy = tl.load(xs + n + at, mask=inside, other=0.0) - y0
            dz = tl.load(xs + 2 * n + at, mask=inside, other=0.0) - z0
            squared = dx * dx + dy * dy + dz * dz
            near = tl.minimum(tl.load(distances + at, mask=inside, other=0.0), squared)
            tl.store(distances + at, near, mask=inside)
            near = tl.where(inside, near, -1.0)
            here = tl.max(near, axis=0)
            # Of equally far points the first: a later tile must be farther, and within a tile the lowest index wins.
            first = tl.min(tl.where(near == here, at, 2147483647), axis=0)
            last = tl.where(here > best, first, last)
            best = tl.maximum(here, best)
        tl.store(taken + cloud * count + i, last.to(tl.int64))
