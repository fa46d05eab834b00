"""Which patches are hidden (section 3, Figure 6): a random number for each, of which the greatest are hidden."""

import torch
from torch import Generator, Tensor

from replications.errors import UserError, nearest

KINDS = ("random", "block", "grid")
RECTANGLES = 64  # drawn for an image; many more than are needed to cover three quarters of it
AREA = (0.08, 0.3)  # of a rectangle, as a share of the image
ASPECT = (0.3, 1 / 0.3)
LOG_ASPECT = torch.tensor(ASPECT).log().tolist()


def check_masking(kind: str, ratio: float, grid: int) -> int:
    """Return how many of ``grid * grid`` patches stay visible; raises UserError for what cannot be masked so."""
    if kind not in KINDS:
        raise UserError(f"unknown mask '{kind}'{nearest(kind, KINDS)}")
    if not 0 < ratio < 1:
        raise UserError(f"mask_ratio must be between 0 and 1, not {ratio:g}")
    if kind == "grid" and (ratio != 0.75 or grid % 2):
        raise UserError(f"a grid mask keeps one of each 2x2 patches: mask_ratio 0.75 and an even grid, not {grid}")
    visible = int(grid**2 * (1 - ratio))
    if not 0 < visible < grid**2:
        raise UserError(f"mask_ratio {ratio:g} leaves {visible} of {grid**2} patches visible")
    return visible


def mask_noise(kind: str, n: int, grid: int, device: torch.device, generator: Generator | None = None) -> Tensor:
    """Return numbers ``[n, grid * grid]``: the patches with the smallest stay visible.

    "random" is uniform noise. "block" covers an image with random rectangles one after the other; what was covered
    first is hidden first. "grid" keeps the upper left of each 2x2 patches.
    """
    noise = torch.rand(n, grid**2, device=device, generator=generator)
    if kind == "block":
        return noise + _covered_early(n, grid, device, generator)
    if kind == "grid":
        row = torch.arange(grid, device=device)
        kept = (row[:, None] % 2 == 0) & (row % 2 == 0)
        return noise + (~kept).flatten()
    return noise


def _covered_early(n: int, grid: int, device: torch.device, generator: Generator | None) -> Tensor:
    """Return how many of `RECTANGLES` were still to come when a patch was first covered, ``[n, grid * grid]``."""
    draw = torch.rand(n, RECTANGLES, 4, device=device, generator=generator)
    area = (AREA[0] + draw[..., 0] * (AREA[1] - AREA[0])) * grid**2
    low, high = LOG_ASPECT
    aspect = (low + draw[..., 1] * (high - low)).exp()
    height = (area * aspect).sqrt().round().clamp(1, grid)
    width = (area / aspect).sqrt().round().clamp(1, grid)
    top = (draw[..., 2] * (grid - height + 1)).floor()
    left = (draw[..., 3] * (grid - width + 1)).floor()
    place = torch.arange(grid, device=device)
    rows = (place >= top[..., None]) & (place < (top + height)[..., None])  # [n, rectangles, grid]
    columns = (place >= left[..., None]) & (place < (left + width)[..., None])
    covered = rows[..., :, None] & columns[..., None, :]
    left_to_come = torch.arange(RECTANGLES, 0, -1, device=device).reshape(-1, 1, 1)
    return (covered * left_to_come).amax(1).flatten(1).float()
