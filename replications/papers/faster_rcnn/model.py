"""Faster R-CNN (Ren et al., NIPS 2015) as torchvision has it, with a feature pyramid (Lin et al., CVPR 2017).

Only the wiring is here: the task's backbone in place of torchvision's, the task's batches, and losses by name.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FasterRCNN as TorchvisionFasterRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from replications.errors import UserError
from replications.layers.detection.backbone import Backbone
from replications.layers.detection.boxes import to_xyxy
from replications.layers.detection.model import Detections, Detector, image_sizes


class Pyramid(nn.Module):
    """The task's backbone and a feature pyramid on its levels, with a coarser level more, pooled."""

    def __init__(self, backbone: Backbone, channels: int):
        super().__init__()
        self.backbone, self.out_channels = backbone, channels
        self.fpn = FeaturePyramidNetwork(backbone.channels, channels, extra_blocks=LastLevelMaxPool())

    def forward(self, image: Tensor) -> OrderedDict[str, Tensor]:
        return self.fpn(OrderedDict((str(index), level) for index, level in enumerate(self.backbone(image))))


class FasterRCNN(Detector):
    """The detector. Class 0 is the background inside, as torchvision has it; outside, classes start at 0."""

    nondeterministic = "the gradient of torchvision's roi_align"

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        channels: int = 256,
        anchor_sizes: Sequence[Sequence[int]] = ((32,), (64,), (128,), (256,), (512,)),
        representation: int = 1024,
        proposals: int = 1000,
        samples_per_image: int = 512,
    ):
        super().__init__()
        levels = len(backbone.channels)
        if len(anchor_sizes) != levels + 1:
            raise UserError(f"Faster R-CNN: {len(anchor_sizes)} tuples of anchor sizes for {levels + 1} levels")
        anchors = AnchorGenerator(tuple(map(tuple, anchor_sizes)), ((0.5, 1.0, 2.0),) * len(anchor_sizes))
        self.detector = TorchvisionFasterRCNN(
            Pyramid(backbone, channels),
            num_classes=None,
            rpn_anchor_generator=anchors,
            box_roi_pool=MultiScaleRoIAlign([str(level) for level in range(levels)], output_size=7, sampling_ratio=2),
            box_head=BoxFeatures(channels * 49, representation),
            box_predictor=BoxPredictor(representation, num_classes + 1),
            rpn_pre_nms_top_n_train=2 * proposals,
            rpn_post_nms_top_n_train=2 * proposals,
            rpn_pre_nms_top_n_test=proposals,
            rpn_post_nms_top_n_test=proposals,
            box_batch_size_per_image=samples_per_image,
            box_detections_per_img=100,
        )
        del self.detector.transform  # the task resizes and normalises, for all methods

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        images, sizes = self._images(batch)
        scale = sizes.flip(1).repeat(1, 2)[:, None]  # width, height, width, height
        corners = to_xyxy(batch["boxes"]) * scale
        targets = [
            {"boxes": own[real], "labels": label[real] + 1}
            for own, label, real in zip(corners, batch["labels"], batch["valid"], strict=True)
        ]
        features = self.detector.backbone(images.tensors)
        proposals, of_proposals = self.detector.rpn(images, features, targets)
        _, of_heads = self.detector.roi_heads(features, proposals, images.image_sizes, targets)
        losses = {**of_proposals, **of_heads}
        return {"loss": sum(losses.values()), **{name: value.detach() for name, value in losses.items()}}

    def detect(self, batch: dict[str, Tensor]) -> Detections:
        images, sizes = self._images(batch)
        features = self.detector.backbone(images.tensors)
        proposals, _ = self.detector.rpn(images, features)
        found, _ = self.detector.roi_heads(features, proposals, images.image_sizes)
        most = max(1, max(len(one["scores"]) for one in found))
        boxes = sizes.new_zeros(len(found), most, 4)
        scores = sizes.new_full((len(found), most), -1.0)
        labels = torch.zeros(len(found), most, dtype=torch.int64, device=sizes.device)
        for row, one in enumerate(found):
            count = len(one["scores"])
            boxes[row, :count] = one["boxes"] / sizes[row].flip(0).repeat(2)
            scores[row, :count] = one["scores"]
            labels[row, :count] = one["labels"] - 1
        return Detections(boxes, scores, labels)

    def backbone_body(self) -> nn.Module:
        return self.detector.backbone.backbone.body

    @staticmethod
    def _images(batch: dict[str, Tensor]) -> tuple[ImageList, Tensor]:
        sizes = image_sizes(batch)
        return ImageList(batch["image"], [(int(h), int(w)) for h, w in sizes.tolist()]), sizes


class BoxFeatures(nn.Sequential):
    """Two fully connected layers over the pooled features of a proposal (torchvision's TwoMLPHead)."""

    def __init__(self, inputs: int, width: int):
        super().__init__(nn.Flatten(), nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())


class BoxPredictor(nn.Module):
    """Class scores and a box for each class (torchvision's FastRCNNPredictor)."""

    def __init__(self, width: int, classes: int):
        super().__init__()
        self.cls_score, self.bbox_pred = nn.Linear(width, classes), nn.Linear(width, 4 * classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.cls_score(x), self.bbox_pred(x)


def build(
    num_classes: int,
    *,
    backbone: Mapping[str, Any],
    levels: Sequence[int] = (1, 2, 3, 4),
    channels: int = 256,
    anchor_sizes: Sequence[Sequence[int]] = ((32,), (64,), (128,), (256,), (512,)),
    representation: int = 1024,
    proposals: int = 1000,
    samples_per_image: int = 512,
) -> FasterRCNN:
    """Faster R-CNN with a pyramid on the backbone's maps `levels` and one level more, pooled; one tuple of anchor
    sides (pixels) for each.
    """
    return FasterRCNN(
        Backbone(**backbone, levels=levels),
        num_classes,
        channels=channels,
        anchor_sizes=anchor_sizes,
        representation=representation,
        proposals=proposals,
        samples_per_image=samples_per_image,
    )
