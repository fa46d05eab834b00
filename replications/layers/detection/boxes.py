"""Boxes, in the two forms that detectors use, and how much two of them overlap.

``cxcywh`` is centre, width and height, ``xyxy`` left, top, right and bottom. Unless said otherwise, coordinates are
fractions of an image's own size, without its padding: x by the width, y by the height.
"""

import torch
from torch import Tensor

SMALLEST_AREA = 1e-9  # of a union or an enclosing box, so that two empty boxes give 0 and not NaN


def to_xyxy(boxes: Tensor) -> Tensor:
    """Turn ``cxcywh`` boxes ``[..., 4]`` into ``xyxy``."""
    centre, size = boxes[..., :2], boxes[..., 2:]
    return torch.cat([centre - size / 2, centre + size / 2], dim=-1)


def to_cxcywh(boxes: Tensor) -> Tensor:
    """Turn ``xyxy`` boxes ``[..., 4]`` into ``cxcywh``."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def generalized_iou(one: Tensor, other: Tensor) -> Tensor:
    """Return the generalised IoU ``[...]`` of ``xyxy`` boxes ``[..., 4]``, broadcast (Rezatofighi et al. 2019).

    IoU minus the share of the smallest enclosing box that neither covers: in [-1, 1]. Elementwise, where torchvision
    has all pairs of two lists only; ``one[:, None]`` against ``other[None]`` gives those.
    """
    low, high = torch.maximum(one[..., :2], other[..., :2]), torch.minimum(one[..., 2:], other[..., 2:])
    shared = _product((high - low).clamp(min=0))
    union = _area(one) + _area(other) - shared
    far_low, far_high = torch.minimum(one[..., :2], other[..., :2]), torch.maximum(one[..., 2:], other[..., 2:])
    enclosing = _product(far_high - far_low)
    iou = shared / union.clamp(min=SMALLEST_AREA)
    return iou - (enclosing - union) / enclosing.clamp(min=SMALLEST_AREA)


def _area(boxes: Tensor) -> Tensor:
    return _product((boxes[..., 2:] - boxes[..., :2]).clamp(min=0))


def _product(sides: Tensor) -> Tensor:
    """Return width times height; the gradient of ``prod`` would look for zeros, and wait for the device."""
    width, height = sides.unbind(-1)
    return width * height
