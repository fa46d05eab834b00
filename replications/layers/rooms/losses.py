"""The losses of VoteNet (Section 4.3 and appendix) and of its baseline; each is a mean over what it applies to.

A scene may have no object: then nothing is near, every proposal is negative and the losses of boxes are 0.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from replications.layers.points.neighbours import gather
from replications.layers.rooms.coding import BoxCoding, Outputs

NEAR, FAR = 0.3, 0.6  # metres from a centre: positive below, negative above
OBJECTNESS_WEIGHTS = (0.2, 0.8)
NOWHERE = 1e4  # metres: where padded objects are put, out of everything's reach
SCALE = 10.0
EPSILON = 1e-6


@dataclass(frozen=True)
class Targets:
    """The objects of a batch of scenes: `boxes` ``[b, m, 7]``, `label` int64 ``[b, m]``, −1 where there is none."""

    boxes: Tensor
    label: Tensor

    @property
    def there(self) -> Tensor:
        return self.label >= 0

    @property
    def centres(self) -> Tensor:
        return torch.where(self.there[..., None], self.boxes[..., :3], NOWHERE)


@dataclass(frozen=True)
class Assignment:
    """For each proposal ``[b, p]``: its object, whether it is positive, and whether its objectness counts at all."""

    object: Tensor
    positive: Tensor
    counted: Tensor


def mean_over(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of values where the mask is set; 0 where it is set nowhere."""
    mask = mask.to(values.dtype)
    return (values * mask).sum() / (mask.sum() + EPSILON)


def vote_loss(votes: Tensor, inside: Tensor, targets: Targets) -> Tensor:
    """L1 distance of each vote to the nearest of the centres its seed belongs to (Equation 1), over seeds on objects.

    `votes` ``[b, s, 3]``; `inside` ``[b, s, k]``: the objects of each seed, −1 none.
    """
    belongs = inside >= 0
    centres = gather(targets.centres, inside.clamp(min=0).long())
    distance = (votes[:, :, None] - centres).abs().sum(-1).masked_fill(~belongs, torch.inf)
    on_object = belongs.any(-1)
    nearest = torch.where(on_object, distance.min(-1).values, 0.0)
    return mean_over(nearest, on_object)


def assign_by_distance(base: Tensor, targets: Targets) -> Assignment:
    """A proposal is positive within `NEAR` of a centre, negative beyond `FAR`, and in between it does not count.

    `base` ``[b, p, 3]``: the middle of each cluster of votes.
    """
    distance, nearest = _nearest_object(base, targets)
    positive = distance < NEAR
    return Assignment(nearest, positive, positive | (distance > FAR))


def assign_by_membership(base: Tensor, inside: Tensor, targets: Targets) -> Assignment:
    """A proposal is positive where its seed lies on an object; all count (the baseline without votes)."""
    nearest = _nearest_object(base, targets)[1]
    positive = (inside >= 0).any(-1)
    return Assignment(nearest, positive, torch.ones_like(positive))


def _nearest_object(base: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
    return torch.cdist(base.detach(), targets.centres, compute_mode="donot_use_mm_for_euclid_dist").min(-1)


def proposal_losses(outputs: Outputs, assignment: Assignment, targets: Targets, coding: BoxCoding) -> dict[str, Tensor]:
    """Return ``objectness``, ``box`` and ``semantic`` losses, and the parts of ``box``."""
    positive, label = assignment.positive, assignment.object
    negative_weight, positive_weight = OBJECTNESS_WEIGHTS
    weight = torch.where(positive, positive_weight, negative_weight).to(outputs.objectness.dtype)
    objectness = weight * _cross_entropy(outputs.objectness, positive.long())

    own = gather(targets.boxes, label)
    own_label = targets.label.gather(1, label).clamp(min=0)
    heading, heading_residual = coding.encode_heading(own[..., 6])
    size_residual = coding.encode_size(own[..., 3:6], own_label)
    said_heading = outputs.heading_residual.gather(-1, heading[..., None]).squeeze(-1)
    said_size = outputs.size_residual.gather(2, own_label[..., None, None].expand(-1, -1, 1, 3)).squeeze(2)
    parts = {
        "centre": centre_loss(outputs.centre, positive, targets),
        "heading_class": mean_over(_cross_entropy(outputs.heading, heading), positive),
        "heading_residual": mean_over(F.huber_loss(said_heading, heading_residual, reduction="none"), positive),
        "size_class": mean_over(_cross_entropy(outputs.size, own_label), positive),
        "size_residual": mean_over(F.huber_loss(said_size, size_residual, reduction="none").mean(-1), positive),
    }
    box = (
        parts["centre"]
        + 0.1 * parts["heading_class"]
        + parts["heading_residual"]
        + 0.1 * parts["size_class"]
        + parts["size_residual"]
    )
    semantic = mean_over(_cross_entropy(outputs.semantic, own_label), positive)
    return {"objectness": mean_over(objectness, assignment.counted), "box": box, "semantic": semantic, **parts}


def centre_loss(centres: Tensor, positive: Tensor, targets: Targets) -> Tensor:
    """Chamfer distance, squared: positive proposals to their nearest object, objects to their nearest proposal."""
    squared = (centres[:, :, None] - targets.centres[:, None]).square().sum(-1)
    return mean_over(squared.min(2).values, positive) + mean_over(squared.min(1).values, targets.there)


def total_loss(objectness: Tensor, box: Tensor, semantic: Tensor, vote: Tensor | float = 0.0) -> Tensor:
    """The weighted sum of the paper's appendix."""
    return SCALE * (vote + 0.5 * objectness + box + 0.1 * semantic)


def _cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(logits.transpose(1, 2), target, reduction="none")
