"""The convolutional network below a detector: a ResNet of timm, cut before its pooling."""

from collections.abc import Sequence
from typing import Any

import timm
import torch
import torch.nn.functional as F
from timm.layers import freeze_batch_norm_2d
from torch import Tensor, nn

from replications.errors import UserError


class Backbone(nn.Module):
    """Features of an image at one or several strides.

    `name` and `options` are timm's (``channels``, ``layers``, ``stem_width`` ... of a ResNet); module names are those
    of torchvision's ResNets, as in the official checkpoints. `output_stride` 16 with `levels` (4,) is the paper's DC5:
    the last stage is dilated instead of strided. `levels` counts timm's feature maps, 1 having stride 4.

    `frozen_norm` turns batch normalisation into fixed affine maps, as every DETR and Detectron model has it. That
    needs trained statistics: from scratch there are none. `frozen_stages` says how many of (stem, layer1, ...) are
    not trained; the official models freeze two.
    """

    def __init__(
        self,
        name: str = "resnet50",
        *,
        output_stride: int = 32,
        levels: Sequence[int] = (4,),
        frozen_norm: bool = True,
        frozen_stages: int = 2,
        options: dict[str, Any] | None = None,
    ):
        super().__init__()
        try:
            self.body = timm.create_model(
                name, features_only=True, out_indices=tuple(levels), output_stride=output_stride, **(options or {})
            )
        except (RuntimeError, TypeError, AssertionError) as error:
            raise UserError(f"backbone '{name}': {error}") from error
        self.strides = self.body.feature_info.reduction()
        self.channels = self.body.feature_info.channels()
        if frozen_norm:
            self.body = freeze_batch_norm_2d(self.body)
        stages = [("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",)]
        for prefix in (prefix for stage in stages[:frozen_stages] for prefix in stage):
            for parameter_name, parameter in self.body.named_parameters():
                if parameter_name.startswith(prefix + "."):
                    parameter.requires_grad_(False)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the feature maps ``[batch, channels, height, width]`` of images ``[batch, 3, H, W]``."""
        return self.body(image)


def shrink_padding(padding: Tensor | None, features: Tensor) -> Tensor:
    """Return the padding mask ``[batch, height, width]`` of a feature map; `padding` None: there is none."""
    batch, _, height, width = features.shape
    if padding is None:
        return torch.zeros(batch, height, width, dtype=torch.bool, device=features.device)
    return F.interpolate(padding[:, None].float(), size=(height, width)).squeeze(1).bool()


def feature_shape(image: Tensor, backbone: Backbone) -> tuple[int, int]:
    """Return height and width of the last feature map of images ``[batch, 3, H, W]``."""
    return tuple(-(-side // backbone.strides[-1]) for side in image.shape[-2:])
