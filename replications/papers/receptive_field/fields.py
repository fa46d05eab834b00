"""Theoretical receptive fields: by the formula, and the networks that it is checked on.

A network is a list of layers from the image upwards. For the field only a layer's kernel, stride, padding and dilation
matter, so pooling is a layer like a convolution, and a residual block is its longest branch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Layer:
    kernel: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1


@dataclass(frozen=True)
class Field:
    """The square of one output unit: `size` pixels wide; that of the next unit begins `jump` pixels further.

    The first unit's begins `padding` pixels before the image.
    """

    size: int
    jump: int
    padding: int

    def first(self, unit: int) -> int:
        """Return the first pixel of a unit's square; negative ones lie before the image."""
        return unit * self.jump - self.padding


def field(layers: Sequence[Layer]) -> Field:
    """Return ``r = 1 + sum d (k - 1) prod s`` with the product over the layers below (Araujo et al. 2019)."""
    size, jump, padding = 1, 1, 0
    for layer in layers:
        size += layer.dilation * (layer.kernel - 1) * jump
        padding += layer.padding * jump
        jump *= layer.stride
    return Field(size, jump, padding)


def path_counts(layers: Sequence[Layer], image: Tensor) -> Tensor:
    """Return what the layers make of ``[1, 1, H, W]`` with all weights 1: gradients count the paths to a pixel."""
    weight = image.new_ones(1, 1, 1, 1)
    for layer in layers:
        kernel = weight.expand(1, 1, layer.kernel, layer.kernel)
        image = F.conv2d(image, kernel, None, layer.stride, layer.padding, layer.dilation)
    return image


def _resnet(blocks: Sequence[int], stride_on: int) -> list[Layer]:
    """Bottleneck ResNet: stem, then blocks of 1x1, 3x3, 1x1; of a group's first block number `stride_on` has stride."""
    layers = [Layer(7, 2, 3), Layer(3, 2, 1)]
    for group, count in enumerate(blocks):
        for block in range(count):
            strided = group > 0 and block == 0
            for number, kernel in enumerate((1, 3, 1)):
                layers.append(Layer(kernel, 2 if strided and number == stride_on else 1, kernel // 2))
    return layers


def _vgg(groups: Sequence[int]) -> list[Layer]:
    return [layer for count in groups for layer in (*[Layer(3, 1, 1)] * count, Layer(2, 2))]


NETWORKS = {
    "lenet": [Layer(5), Layer(2, 2), Layer(5), Layer(2, 2)],
    "dilated": [Layer(3, 1, rate, rate) for rate in (1, 2, 4, 8)],
    "vgg_16": _vgg((2, 2, 3, 3, 3)),
    "resnet_50": _resnet((3, 4, 6, 3), stride_on=0),
    "resnet_101": _resnet((3, 4, 23, 3), stride_on=0),
    "resnet_152": _resnet((3, 8, 36, 3), stride_on=0),
    "resnet_50_on_3x3": _resnet((3, 4, 6, 3), stride_on=1),  # as libraries build it today
}
