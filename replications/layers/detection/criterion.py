"""The set prediction loss (DETR, Section 3.1, Eq. 2): match, then compare what is matched.

All decoder layers are compared at once; their losses are added (auxiliary losses, Section 3.2 of the paper).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from replications.errors import UserError, nearest
from replications.layers.detection.boxes import generalized_iou, to_xyxy
from replications.layers.detection.matcher import UNMATCHED, MatchCost, match, matching_cost


@dataclass(frozen=True)
class SetLoss:
    """Weights of the loss, and of the matching that comes before it.

    `no_object` weighs the class term of queries without an object (0.1 in the paper: most have none). `focal`
    compares classes by the sigmoid focal loss, which needs no class for "no object" (Conditional DETR).
    """

    label: float = 1.0
    l1: float = 5.0
    giou: float = 2.0
    no_object: float = 0.1
    focal: bool = False
    cost: MatchCost = field(default_factory=MatchCost)

    def __post_init__(self):
        for name in ("label", "l1", "giou", "no_object"):
            if not getattr(self, name) >= 0:
                raise UserError(f"the weight of a loss is at least 0: {name} is {getattr(self, name)}")

    @classmethod
    def of(cls, weights: Mapping[str, float] | None, **defaults: Any) -> "SetLoss":
        """Return the loss with `defaults`, changed by `weights`; raises UserError for an unknown name."""
        known = ("label", "l1", "giou", "no_object")
        for name in weights or ():
            if name not in known:
                raise UserError(f"the set loss has no weight '{name}'{nearest(name, known)}")
        return cls(**{**defaults, **(weights or {})})

    def __call__(self, logits: Tensor, boxes: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return ``loss`` (all layers, weighted) and, detached, the terms of the last layer.

        `logits` ``[layers, batch, queries, classes]`` and `boxes` ``[layers, batch, queries, 4]`` (``cxcywh``) of the
        layers that are compared, the last one last. `batch` has ``boxes`` ``[batch, objects, 4]``, ``labels``
        ``[batch, objects]`` and ``valid`` ``[batch, objects]``, real objects first. ``matched`` is among what is
        returned: the query of each object, ``[layers, batch, objects]``.
        """
        labels, targets, valid = batch["labels"], batch["boxes"], batch["valid"]
        counts = valid.sum(1)
        cost = matching_cost(logits, boxes, labels, targets, self.cost)
        matched = match(cost, counts)
        number = mean_over_processes(counts.sum().to(boxes.dtype)).clamp(min=1)
        compare = self._focal if self.focal else self._cross_entropy
        label = compare(logits.float(), labels, matched, number)
        l1, giou = box_losses(boxes.float(), targets, matched, number)
        total = self.label * label + self.l1 * l1 + self.giou * giou
        return {
            "loss": total.sum(),
            "label": label[-1].detach(),
            "l1": l1[-1].detach(),
            "giou": giou[-1].detach(),
            "matched": matched,
        }

    def _cross_entropy(self, logits: Tensor, labels: Tensor, matched: Tensor, number: Tensor) -> Tensor:
        """Cross-entropy ``[layers]`` over the classes and "no object", the last; a weighted mean over queries."""
        no_object = logits.shape[-1] - 1
        wanted = classes_of_queries(labels, matched, logits.shape[2], no_object)
        weight = torch.where(wanted == no_object, self.no_object, 1.0)
        loss = F.cross_entropy(logits.flatten(0, 2), wanted.flatten(), reduction="none").view_as(weight)
        return (weight * loss).sum((1, 2)) / weight.sum((1, 2))

    def _focal(self, logits: Tensor, labels: Tensor, matched: Tensor, number: Tensor) -> Tensor:
        """Sigmoid focal loss ``[layers]`` (alpha 0.25, gamma 2), summed and divided by the number of objects."""
        classes = logits.shape[-1]
        wanted = classes_of_queries(labels, matched, logits.shape[2], classes)
        target = (wanted[..., None] == torch.arange(classes, device=wanted.device)).to(logits.dtype)
        p = logits.sigmoid()
        loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        missed = torch.where(target > 0, 1 - p, p)
        alpha = torch.where(target > 0, 0.25, 0.75)
        return (alpha * missed.square() * loss).sum((1, 2, 3)) / number


@torch.no_grad()
def order_gap(loss: SetLoss, logits: Tensor, boxes: Tensor, batch: dict[str, Tensor]) -> float:
    """Return by how much the loss changes when the queries come in the reverse order, as a fraction of the loss.

    Arguments are those of `SetLoss`. 0 but for rounding: the matching undoes the order.
    """
    straight, reverse = loss(logits, boxes, batch)["loss"], loss(logits.flip(2), boxes.flip(2), batch)["loss"]
    return float((reverse - straight).abs() / straight)


def classes_of_queries(labels: Tensor, matched: Tensor, queries: int, no_object: int) -> Tensor:
    """Return the class that each query should say, int64 ``[layers, batch, queries]``."""
    layers, batch, _ = matched.shape
    wanted = torch.full((layers, batch, queries + 1), no_object, device=labels.device, dtype=labels.dtype)
    place = torch.where(matched == UNMATCHED, queries, matched)  # what is unmatched falls off the end
    wanted.scatter_(2, place, labels[None].expand_as(place))
    return wanted[..., :queries]


def box_losses(boxes: Tensor, targets: Tensor, matched: Tensor, number: Tensor) -> tuple[Tensor, Tensor]:
    """Return the L1 loss and the GIoU loss ``[layers]`` of matched boxes (``cxcywh``), divided by `number`."""
    own = matched != UNMATCHED
    picked = boxes.gather(2, matched.clamp(min=0)[..., None].expand(-1, -1, -1, 4))
    targets = targets.float()[None].expand_as(picked)
    l1 = ((picked - targets).abs().sum(-1) * own).sum((1, 2)) / number
    giou = ((1 - generalized_iou(to_xyxy(picked), to_xyxy(targets))) * own).sum((1, 2)) / number
    return l1, giou


def mean_over_processes(value: Tensor) -> Tensor:
    """Return the mean of a scalar over the processes of a distributed run; the value itself where there is one."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        value = value.clone()
        torch.distributed.all_reduce(value)
        value = value / torch.distributed.get_world_size()
    return value
