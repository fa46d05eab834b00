"""The bipartite matching of predictions and objects (DETR, Section 3.1, Eq. 1)."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from replications.errors import RunFailure
from replications.layers.detection.boxes import generalized_iou, to_xyxy

UNMATCHED = -1


@dataclass(frozen=True)
class MatchCost:
    """Weights of the matching cost: of the class, of the L1 distance and of the generalised IoU.

    `focal` takes the focal loss's class cost for sigmoid logits, as Deformable and Conditional DETR do, instead of
    minus the softmax probability.
    """

    label: float = 1.0
    l1: float = 5.0
    giou: float = 2.0
    focal: bool = False


@torch.no_grad()
def matching_cost(logits: Tensor, boxes: Tensor, labels: Tensor, targets: Tensor, weights: MatchCost) -> Tensor:
    """Return the cost ``[layers, batch, queries, objects]`` of giving each object to each query.

    `logits` ``[layers, batch, queries, classes]``, `boxes` ``[layers, batch, queries, 4]`` and `targets`
    ``[batch, objects, 4]`` in ``cxcywh``, `labels` ``[batch, objects]``. The class cost is minus the probability, not
    its logarithm: the paper found it better commensurable with the box costs.
    """
    layers, _, queries, _ = logits.shape
    if weights.focal:
        p = logits.float().sigmoid()
        positive = 0.25 * (1 - p).square() * -(p + 1e-8).log()
        negative = 0.75 * p.square() * -(1 - p + 1e-8).log()
        by_class = positive - negative
    else:
        by_class = -logits.float().softmax(-1)
    index = labels[None, :, None, :].expand(layers, -1, queries, -1)
    label = by_class.gather(-1, index)
    boxes, targets = boxes.float()[:, :, :, None], targets.float()[None, :, None]
    l1 = (boxes - targets).abs().sum(-1)
    giou = generalized_iou(to_xyxy(boxes), to_xyxy(targets))
    return weights.label * label + weights.l1 * l1 - weights.giou * giou


def match(cost: Tensor, counts: Tensor) -> Tensor:
    """Return for each object the query it is given to, int64 ``[layers, batch, objects]``; -1 where it has none.

    `cost` is ``[layers, batch, queries, objects]`` and `counts` ``[batch]`` says how many objects are real; they come
    first. Each layer of each image is a separate problem, solved exactly on the CPU; all costs of the batch travel
    there in one copy. With more objects than queries the queries get those that are cheapest together, and the rest
    stay without one. Raises RunFailure where a cost is not a number: the predictions have diverged.
    """
    layers, batch, _, objects = cost.shape
    found = np.full((layers, batch, objects), UNMATCHED, np.int64)
    flat = torch.cat([cost.flatten(), counts.to(cost.dtype)]).cpu().numpy()  # one wait for the device
    tables = flat[: cost.numel()].reshape(cost.shape)
    for image, count in enumerate(flat[cost.numel() :].astype(int)):
        if not count:
            continue
        for layer in range(layers):
            try:
                rows, columns = linear_sum_assignment(tables[layer, image, :, :count])
            except ValueError as error:
                raise RunFailure("diverged", "matching: a predicted box or class is not a number") from error
            found[layer, image, columns] = rows
    return torch.from_numpy(found).to(cost.device)
