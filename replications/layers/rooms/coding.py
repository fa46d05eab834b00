"""How a box is encoded: centre, heading as a class and a residual, size as a class and a residual (Section 4.2)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from replications.errors import UserError

LEAST_SIZE = 0.01  # of the mean size: a predicted size never reaches zero


@dataclass(frozen=True)
class Outputs:
    """What the proposal head says of each proposal. Residuals are over half a heading bin, and over the mean size.

    `objectness` ``[b, p, 2]``, `centre` ``[b, p, 3]``, `heading` and `heading_residual` ``[b, p, bins]``, `size`
    ``[b, p, sizes]``, `size_residual` ``[b, p, sizes, 3]``, `semantic` ``[b, p, classes]``; scores are logits.
    """

    objectness: Tensor
    centre: Tensor
    heading: Tensor
    heading_residual: Tensor
    size: Tensor
    size_residual: Tensor
    semantic: Tensor


class BoxCoding(nn.Module):
    """Heading bins and mean sizes. `mean_sizes` has one row of three metres a class; its classes are the sizes.

    With one heading bin, boxes lie along the axes. Raises UserError for a mean size that is not above 0.
    """

    def __init__(self, mean_sizes: Sequence[Sequence[float]], heading_bins: int):
        super().__init__()
        sizes = torch.tensor(mean_sizes, dtype=torch.float32).view(-1, 3)
        self.register_buffer("mean_sizes", sizes, persistent=False)  # goes where the detector goes
        if not (self.mean_sizes > 0).all():
            raise UserError(f"mean sizes must be above 0, not {[list(row) for row in mean_sizes]}")
        if heading_bins < 1:
            raise UserError(f"heading_bins must be at least 1, not {heading_bins}")
        self.heading_bins = heading_bins
        self.sizes = len(self.mean_sizes)
        self.channels = 2 + 3 + 2 * heading_bins + 4 * self.sizes + self.sizes

    @property
    def bin_width(self) -> float:
        return 2 * math.pi / self.heading_bins

    def split(self, raw: Tensor, base: Tensor) -> Outputs:
        """Cut the head's numbers ``[b, p, channels]``; centres are relative to `base` ``[b, p, 3]``."""
        bins, sizes = self.heading_bins, self.sizes
        parts = raw.split([2, 3, bins, bins, sizes, 3 * sizes, sizes], dim=-1)
        residual = parts[5].unflatten(-1, (sizes, 3))
        return Outputs(parts[0], base + parts[1], parts[2], parts[3], parts[4], residual, parts[6])

    def encode_heading(self, heading: Tensor) -> tuple[Tensor, Tensor]:
        """Return bin (int64) and residual, in -1 to 1, of any angles; bin 0 is centred on 0."""
        if self.heading_bins == 1:
            return torch.zeros_like(heading, dtype=torch.int64), torch.zeros_like(heading)
        shifted = (heading + self.bin_width / 2) % (2 * math.pi)
        bins = (shifted / self.bin_width).long().clamp(max=self.heading_bins - 1)
        return bins, (shifted - (bins + 0.5) * self.bin_width) / (self.bin_width / 2)

    def encode_size(self, size: Tensor, label: Tensor) -> Tensor:
        """Return the residual ``[..., 3]`` of sizes whose class is `label`, over the class's mean size."""
        mean = self.mean_sizes.to(size)[label]
        return size / mean - 1

    def decode(self, outputs: Outputs) -> Tensor:
        """Return boxes ``[b, p, 7]`` of the best heading bin and the best size; heading within ±π."""
        best = outputs.heading.argmax(-1, keepdim=True)
        heading = (best + outputs.heading_residual.gather(-1, best) / 2) * self.bin_width
        if self.heading_bins == 1:
            heading = torch.zeros_like(heading)
        heading = (heading + math.pi) % (2 * math.pi) - math.pi
        best = outputs.size.argmax(-1)
        residual = outputs.size_residual.gather(2, best[..., None, None].expand(-1, -1, 1, 3)).squeeze(2)
        size = self.mean_sizes.to(residual)[best] * (1 + residual).clamp(min=LEAST_SIZE)
        return torch.cat([outputs.centre, size, heading], dim=-1)

    def encode(self, boxes: Tensor, label: Tensor) -> Outputs:
        """Return outputs that say `boxes` ``[b, p, 7]`` of classes `label` ``[b, p]`` with certainty."""
        bins, residual = self.encode_heading(boxes[..., 6])
        heading = F.one_hot(bins, self.heading_bins).to(boxes.dtype)
        size = F.one_hot(label, self.sizes).to(boxes.dtype)
        certain = torch.stack([torch.zeros_like(residual), torch.full_like(residual, 50.0)], dim=-1)
        return Outputs(
            certain,
            boxes[..., :3],
            50 * heading,
            heading * residual[..., None],
            50 * size,
            size[..., None] * self.encode_size(boxes[..., 3:6], label)[..., None, :],
            50 * size,
        )
