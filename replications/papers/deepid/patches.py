"""DeepID's face patches: ten regions, three scales, colour and grey (Section 3.2, Figure 3)."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Landmark positions in the aligned crop, as fractions of its side: the 112-pixel template that LFW's
# crop box, CelebA's similarity transform and the ArcFace alignment share.
TEMPLATE = 112.0
LEFT_EYE, RIGHT_EYE = (38.3, 51.7), (73.5, 51.5)
NOSE = (56.0, 71.7)
LEFT_MOUTH, RIGHT_MOUTH = (41.5, 92.4), (70.7, 92.2)

RECTANGLE, SQUARE = (39, 31), (31, 31)  # input height and width of the ConvNets
SCALES = (1.0, 1.25, 0.8)
LUMA = (0.299, 0.587, 0.114)

# Region: centre (x, y) and height at scale 1, in template pixels, and the ConvNet's input. Five rectangles
# over the whole face or a part of it, five squares about the landmarks. In the order in which smaller sets
# take them.
REGIONS = (
    ((56.0, 68.0), 89.0, RECTANGLE),
    (LEFT_EYE, 44.0, SQUARE),
    (RIGHT_EYE, 44.0, SQUARE),
    (NOSE, 44.0, SQUARE),
    ((56.0, 44.0), 70.0, RECTANGLE),
    ((56.0, 82.0), 60.0, RECTANGLE),
    (LEFT_MOUTH, 44.0, SQUARE),
    (RIGHT_MOUTH, 44.0, SQUARE),
    ((38.0, 66.0), 80.0, RECTANGLE),
    ((74.0, 66.0), 80.0, RECTANGLE),
)


class Patch(NamedTuple):
    """A patch: its box in fractions of the image side, the ConvNet's input size, colour or grey."""

    left: float
    top: float
    width: float
    height: float
    size: tuple[int, int]
    channels: int


def patch_set(count: int) -> list[Patch]:
    """The first `count` of the 60 patches: the regions in colour at scale 1, the other scales, then grey.

    Raises ValueError for a count outside 1 to 60.
    """
    if not 1 <= count <= 2 * len(SCALES) * len(REGIONS):
        raise ValueError(f"there are 60 patches, not {count}")
    patches = [
        _patch(centre, height * scale, size, channels)
        for channels in (3, 1)
        for scale in SCALES
        for centre, height, size in REGIONS
    ]
    return patches[:count]


def _patch(centre: tuple[float, float], height: float, size: tuple[int, int], channels: int) -> Patch:
    height = min(height, TEMPLATE)
    width = height * size[1] / size[0]
    left = min(max(centre[0] - width / 2, 0.0), TEMPLATE - width)
    top = min(max(centre[1] - height / 2, 0.0), TEMPLATE - height)
    return Patch(*(value / TEMPLATE for value in (left, top, width, height)), size, channels)


class CropAndResize(nn.Module):
    """Cut `patches` of one size and channel count out of images and resize them, all at once.

    Image ``[batch, 3, size, size]`` to ``[batch, patches * channels, height, width]``. Antialiased bilinear
    interpolation is linear and separable, so a patch is ``rows @ image @ columns``; the two matrices are what
    ``F.interpolate`` makes of unit vectors.
    """

    def __init__(self, patches: list[Patch], image_size: int):
        super().__init__()
        (self.size,) = {patch.size for patch in patches}
        (self.channels,) = {patch.channels for patch in patches}
        rows = [_resize_matrix(patch.top, patch.height, image_size, self.size[0]) for patch in patches]
        columns = [_resize_matrix(patch.left, patch.width, image_size, self.size[1]) for patch in patches]
        self.register_buffer("rows", torch.stack(rows), persistent=False)  # [patches, height, image_size]
        self.register_buffer("columns", torch.stack(columns), persistent=False)  # [patches, width, image_size]

    def forward(self, image: Tensor) -> Tensor:
        if self.channels == 1:
            image = torch.einsum("bchw,c->bhw", image, image.new_tensor(LUMA)).unsqueeze(1)
        narrow = torch.einsum("bchw,pvw->bpchv", image, self.columns.to(image.dtype))
        patches = torch.einsum("puh,bpchv->bpcuv", self.rows.to(image.dtype), narrow)
        return patches.flatten(1, 2).contiguous(memory_format=torch.channels_last)


def _resize_matrix(start: float, length: float, image_size: int, size: int) -> Tensor:
    """Matrix ``[size, image_size]`` that cuts a stretch (in fractions) of a row of pixels and resizes it."""
    first = round(start * image_size)
    last = max(first + 1, round((start + length) * image_size))
    unit = torch.eye(image_size)[first:last]
    return F.interpolate(unit[None, None], (size, image_size), mode="bilinear", antialias=True)[0, 0]
