"""What a method of the detection task must offer."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from replications.errors import UserError


@dataclass
class Detections:
    """Detections of a batch. Padding has score -1 and comes last.

    `boxes` ``[batch, found, 4]`` are ``xyxy`` as fractions of the image without its padding; `scores` and `labels` are
    ``[batch, found]``, `masks` (logits) ``[batch, found, height, width]`` where the detector draws some. `layers`
    holds the same of each decoder layer, first to last, where there are decoder layers.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Tensor | None = None
    layers: list["Detections"] = field(default_factory=list)


class Detector(nn.Module):
    """Base class. `nondeterministic` names an operation of the training step without a deterministic CUDA version."""

    nondeterministic: str | None = None
    class_heads: tuple[str, ...] = ()  # prefixes of the parameters that depend on the number of classes

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return scalars by name; ``loss`` is minimised, the rest is logged.

        `batch` has ``image`` float ``[batch, 3, height, width]`` (normalised as ImageNet's are), ``boxes``
        ``[batch, objects, 4]`` (``cxcywh``, fractions of the image without its padding), ``labels`` int64 and ``valid``
        bool ``[batch, objects]``, real objects first. Where images of different sizes are together, ``padding`` bool
        ``[batch, height, width]`` is true outside of them; they lie at the top left.
        """
        raise NotImplementedError

    def detect(self, batch: dict[str, Tensor]) -> Detections:
        """Find objects in a batch (``image`` and maybe ``padding``), in eval mode and without gradient."""
        raise NotImplementedError

    def look(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return what pictures show of the inside, by name; nothing by default.

        ``decoder_attention`` ``[batch, queries, height, width]`` of the last layer, mean over its heads;
        ``encoder_attention`` ``[batch, positions, height, width]`` likewise; ``raw_boxes`` ``[batch, queries, 4]``
        (``xyxy``) and ``raw_logits`` ``[batch, queries, classes]`` of the queries in their own order.
        """
        return {}

    def order_gap(self, batch: dict[str, Tensor]) -> float | None:
        """Return how much of the loss of a batch depends on the order of the predictions; None: it isn't a set loss."""
        return None

    def backbone_body(self) -> nn.Module:
        """Return the module that weights of an image classifier fill."""
        return self.backbone.body

    def from_official(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename the weights of the authors' layout to this module's; raises UserError where it has no such layout."""
        raise UserError(f"{type(self).__name__} reads no official checkpoints")


def image_sizes(batch: dict[str, Tensor]) -> Tensor:
    """Return height and width ``[batch, 2]`` of the images without their padding, in pixels."""
    image, padding = batch["image"], batch.get("padding")
    if padding is None:
        return torch.stack([image.new_full((len(image),), side) for side in image.shape[-2:]], dim=1)
    inside = ~padding
    return torch.stack([inside.any(2).sum(1), inside.any(1).sum(1)], dim=1).to(image.dtype)
