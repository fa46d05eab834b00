"""The smallest method of the task, which ``new paper`` copies: each cell of a feature map tells a class and a box.

Its loss is DETR's, by matching; there is no transformer.
"""

import torch
from torch import Tensor, nn

from replications.layers.detection.attention import BoxHead
from replications.layers.detection.backbone import Backbone, shrink_padding
from replications.layers.detection.boxes import to_xyxy
from replications.layers.detection.criterion import SetLoss
from replications.layers.detection.model import Detections, Detector
from replications.layers.detection.positions import sine_positions


class Network(Detector):
    """Each cell tells a class, the last being "no object", and a box."""

    class_heads = ("class_embed",)

    def __init__(self, backbone: Backbone, num_classes: int, width: int, temperature: float):
        super().__init__()
        self.backbone, self.width, self.temperature = backbone, width, temperature
        self.project = nn.Conv2d(backbone.channels[-1], width, 1)
        self.class_embed = nn.Linear(width, num_classes + 1)
        self.bbox_embed = BoxHead(width)
        self.set_loss = SetLoss()

    def predict(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return logits ``[batch, cells, classes + 1]`` and boxes ``[batch, cells, 4]`` (``cxcywh``)."""
        features = self.backbone(batch["image"])[-1]
        padding = shrink_padding(batch.get("padding"), features)
        places = sine_positions(padding, self.width, self.temperature).flatten(1, 2)
        cells = torch.relu(self.project(features).flatten(2).transpose(1, 2) + places)
        return self.class_embed(cells), self.bbox_embed(cells).sigmoid()

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        logits, boxes = self.predict(batch)
        losses = self.set_loss(logits[None], boxes[None], batch)
        return {name: value for name, value in losses.items() if name != "matched"}

    def detect(self, batch: dict[str, Tensor]) -> Detections:
        logits, boxes = self.predict(batch)
        scores, labels = logits.float().softmax(-1)[..., :-1].max(-1)
        return Detections(to_xyxy(boxes.float()), scores, labels)


def build(num_classes: int, *, backbone: dict, level: int = 4, width: int = 256, temperature: float = 10000) -> Network:
    """Return the method; `backbone` are the options of `Backbone`, `level` that of its feature map."""
    return Network(Backbone(**{"levels": (level,), **backbone}), num_classes, width, temperature)
