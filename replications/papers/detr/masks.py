"""DETR with a mask for each box (Section 4.4 and Figure 8): attention maps of the queries, refined by a small CNN.

Parameters have the names of the authors' code, which has four feature maps (strides 4 to 32) and so three refinements.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from math import gcd
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from replications.errors import UserError
from replications.layers.detection.backbone import shrink_padding
from replications.layers.detection.matcher import UNMATCHED
from replications.layers.detection.model import Detections, Detector
from replications.papers.detr.model import Detr, best_classes
from replications.papers.detr.model import build as build_boxes

GROUPS = 8

# Mask logits [n, height, width] of queries, from the index of their image and their own, both [n].
Masks = Callable[[Tensor, Tensor], Tensor]


class AttentionMaps(nn.Module):
    """Attention of each query to the encoded image, by heads, without values; the softmax runs over heads, too."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q_linear, self.k_linear = nn.Linear(width, width), nn.Linear(width, width)
        for linear in (self.q_linear, self.k_linear):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, query: Tensor, memory: Tensor, padding: Tensor) -> Tensor:
        """Return maps ``[batch, queries, heads, height, width]``; `memory` is ``[batch, height * width, channels]``."""
        q = self.q_linear(query).unflatten(-1, (self.heads, -1))
        k = self.k_linear(memory).unflatten(-1, (self.heads, -1))
        scores = torch.einsum("bqnc,bpnc->bqnp", q * q.shape[-1] ** -0.5, k)
        scores = scores.masked_fill(padding.flatten(1)[:, None, None], -torch.inf)
        maps = scores.flatten(2).softmax(-1).view_as(scores)
        return maps.unflatten(-1, padding.shape[1:])


class MaskHead(nn.Module):
    """Convolutions with group normalisation that halve the width and double the size, adding a finer map each time."""

    def __init__(self, width: int, heads: int, finer: Sequence[int]):
        super().__init__()
        self.stages = len(finer)
        widths = [width + heads, width + heads, *(width // 2**i for i in range(1, self.stages + 2))]
        for index, (inputs, outputs) in enumerate(pairwise(widths)):
            setattr(self, f"lay{index + 1}", nn.Conv2d(inputs, outputs, 3, padding=1))
            setattr(self, f"gn{index + 1}", nn.GroupNorm(gcd(GROUPS, outputs), outputs))
        self.out_lay = nn.Conv2d(widths[-1], 1, 3, padding=1)
        for index, channels in enumerate(finer):
            setattr(self, f"adapter{index + 1}", nn.Conv2d(channels, widths[index + 2], 1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
                nn.init.zeros_(module.bias)

    def forward(self, features: Tensor, maps: Tensor, finer: Sequence[Tensor], image: Tensor) -> Tensor:
        """Return logits ``[queries, height, width]`` of queries of any images, each on its own.

        `maps` ``[queries, heads, h, w]`` are their attention, `image` ``[queries]`` says whose they are; `features` and
        `finer` are the images' encoder input and backbone maps, coarse to fine.
        """
        x = torch.cat([features.index_select(0, image), maps], dim=1)
        x = self._layer(2, self._layer(1, x))
        for index, level in enumerate(finer, start=1):
            level = getattr(self, f"adapter{index}")(level).index_select(0, image)
            x = self._layer(index + 2, level + F.interpolate(x, size=level.shape[-2:], mode="nearest"))
        return self.out_lay(x).squeeze(1)

    def _layer(self, index: int, x: Tensor) -> Tensor:
        return F.relu(getattr(self, f"gn{index}")(getattr(self, f"lay{index}")(x)))


class MaskedDetr(Detector):
    """DETR and its mask head, trained together; the paper found training the head afterwards to be equal."""

    class_heads = ("detr.class_embed",)
    nondeterministic = "the gradient of bilinear interpolation"

    def __init__(self, detr: Detr, heads: int):
        super().__init__()
        self.detr = detr
        finer = detr.backbone.channels[-2::-1]
        if not finer:
            raise UserError("DETR's mask head needs finer feature maps: give 'mask_levels' below 'level'")
        self.bbox_attention = AttentionMaps(detr.width, heads)
        self.mask_head = MaskHead(detr.width, heads, finer)

    def backbone_body(self) -> nn.Module:
        return self.detr.backbone_body()

    def predict(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Masks]:
        """Return logits and boxes of all layers, as DETR, and what makes masks of the queries that are asked for.

        Given images and queries, both ``[n]``, it returns mask logits ``[n, height, width]``.
        """
        levels = self.detr.backbone(batch["image"])
        padding = shrink_padding(batch.get("padding"), levels[-1])
        features = self.detr.input_proj(levels[-1])
        hidden, memory = self.detr.transform(features, padding, "padding" in batch)
        maps = self.bbox_attention(hidden[-1], memory, padding)

        def masks(image: Tensor, query: Tensor) -> Tensor:
            return self.mask_head(features, maps[image, query], levels[-2::-1], image)

        return self.detr.class_embed(hidden), self.detr.bbox_embed(hidden).sigmoid(), masks

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        logits, boxes, masks = self.predict(batch)
        losses = self.detr.set_loss(logits, boxes, batch)
        focal, dice = mask_losses(masks, batch["masks"], losses.pop("matched")[-1])
        return {**losses, "loss": losses["loss"] + focal + dice, "mask": focal.detach(), "dice": dice.detach()}

    def detect(self, batch: dict[str, Tensor]) -> Detections:
        logits, boxes, masks = self.predict(batch)
        last = best_classes(logits[-1], boxes[-1])
        images, queries = last.scores.shape
        image, query = torch.meshgrid(
            *(torch.arange(n, device=logits.device) for n in (images, queries)), indexing="ij"
        )
        found = masks(image.flatten(), query.flatten()).unflatten(0, (images, queries))
        found = F.interpolate(found, size=batch["image"].shape[-2:], mode="bilinear")
        return Detections(last.boxes, last.scores, last.labels, found)


def mask_losses(masks: Masks, targets: Tensor, matched: Tensor) -> tuple[Tensor, Tensor]:
    """Return the focal loss and the Dice loss of matched masks, summed over objects, divided by their number.

    `masks` makes the logits ``[n, h, w]`` of queries; `targets` are bool ``[batch, objects, H, W]``, to whose size the
    masks are brought; `matched` ``[batch, objects]`` is each object's query. Other queries have no mask loss, and the
    head sees each query alone, so they are not computed. A batch without objects has a loss of 0 with its gradients.
    """
    image, place = (matched != UNMATCHED).nonzero(as_tuple=True)
    number = max(1, len(image))
    if not len(image):
        first = matched.new_zeros(1)
        nothing = masks(first, first).sum() * 0
        return nothing, nothing
    own = masks(image, matched[image, place]).float()
    target = targets[image, place].flatten(1).float()
    own = F.interpolate(own[:, None], size=targets.shape[-2:], mode="bilinear").flatten(1)
    p = own.sigmoid()
    missed = torch.where(target > 0, 1 - p, p)
    alpha = torch.where(target > 0, 0.25, 0.75)
    entropy = F.binary_cross_entropy_with_logits(own, target, reduction="none")
    focal = (alpha * missed.square() * entropy).mean(1).sum() / number
    dice = 1 - (2 * (p * target).sum(1) + 1) / (p.sum(1) + target.sum(1) + 1)
    return focal, dice.sum() / number


def build(
    num_classes: int,
    category_ids: Sequence[int],
    *,
    backbone: Mapping[str, Any],
    level: int = 4,
    mask_levels: Sequence[int] = (1, 2, 3),
    heads: int = 8,
    width: int = 256,
    feedforward: int = 2048,
    dropout: float = 0.1,
    encoder_layers: int = 6,
    decoder_layers: int = 6,
    queries: int = 100,
    temperature: float = 10000.0,
) -> MaskedDetr:
    """DETR with a mask head on the backbone's maps `mask_levels`, fine to coarse, and `level`."""
    boxes = build_boxes(
        num_classes,
        category_ids,
        backbone={**backbone, "levels": (*mask_levels, level)},
        width=width,
        heads=heads,
        feedforward=feedforward,
        dropout=dropout,
        encoder_layers=encoder_layers,
        decoder_layers=decoder_layers,
        queries=queries,
        temperature=temperature,
    )
    return MaskedDetr(boxes, heads)
