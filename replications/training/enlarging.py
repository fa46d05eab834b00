"""Random resized crops that can only enlarge: the same images as `RandomResizedCrop`, for a third of the time.

Where images are not larger than the size they are resized to, no crop shrinks, so antialiasing has nothing to do, and a
pixel is made of its two neighbours in each direction instead of a product with a whole row.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from replications.errors import UserError
from replications.training.augment import Draws, RandomResizedCrop
from replications.training.stage import Batch

CACHED = 32  # images at a time on a CPU, whose float copies stay in its cache


class EnlargingCrop(RandomResizedCrop):
    """`RandomResizedCrop` for images of at most `size` pixels a side; raises UserError for larger ones."""

    def apply(self, batch: Batch, draws: Draws) -> Batch:
        image = batch[self.key]
        height, width = image.shape[1:3]
        if max(height, width) > self.size:
            raise UserError(f"a crop of images of {height}x{width} pixels to {self.size} may shrink them")
        area, ratio = draws["area"] * (height * width), draws["ratio"]
        crop_height = (area / ratio).sqrt().round().clamp(1, height)
        crop_width = (area * ratio).sqrt().round().clamp(1, width)
        top = (draws["position"][:, 0] * (height - crop_height + 1)).floor()
        left = (draws["position"][:, 1] * (width - crop_width + 1)).floor()
        row = _places(top, crop_height, self.size) * 2 / height - 1  # as grid_sample counts: -1 and 1 are the edges
        column = _places(left, crop_width, self.size) * 2 / width - 1
        n, size = len(image), self.size
        resized = image.new_empty(n, size, size, image.shape[3])
        at_once = CACHED if image.device.type == "cpu" else n
        for start in range(0, n, at_once):
            part = slice(start, start + at_once)
            x, y = column[part, None, :].expand(-1, size, -1), row[part, :, None].expand(-1, -1, size)
            source = image[part].permute(0, 3, 1, 2).float()
            found = F.grid_sample(source, torch.stack([x, y], dim=-1), mode="bilinear", align_corners=False)
            resized[part] = found.round_().permute(0, 2, 3, 1)
        return {**batch, self.key: resized}


def _places(start: Tensor, length: Tensor, target: int) -> Tensor:
    """Return the centre of each target pixel, ``[n, target]`` in source pixels, kept between the centres of the
    interval's first and last pixel: what is outside the crop plays no part.
    """
    centre = (torch.arange(target, device=start.device) + 0.5) * (length / target)[:, None]
    return torch.minimum(centre.clamp(min=0.5), (length - 0.5)[:, None]) + start[:, None]
