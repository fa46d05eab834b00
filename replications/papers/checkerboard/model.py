"""Up-sampling layers before any training: is there a checkerboard in what they return (Odena et al., Distill 2016)?"""

from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from replications.errors import UserError
from replications.layers.images.spectrum import nyquist_share
from replications.layers.systems.measured import Measured

CHANNELS = 32
SIDE = 8
INPUTS = 64
STRIDE = 2
BORDER = 4  # pixels of the output on each side that zero padding may reach
Kind = Literal["transposed", "nearest", "bilinear"]


class Resized(nn.Module):
    """The image is enlarged by interpolation, then convolved."""

    def __init__(self, kernel: int, mode: str):
        super().__init__()
        self.mode = mode
        self.convolution = nn.Conv2d(CHANNELS, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        corners = {"align_corners": False} if self.mode == "bilinear" else {}
        return self.convolution(F.interpolate(x, scale_factor=STRIDE, mode=self.mode, **corners))


def layer_of(kind: Kind, kernel: int) -> nn.Module:
    """Return a layer that doubles the sides of ``[n, CHANNELS, SIDE, SIDE]``, of torch's initial weights, one channel.

    Raises UserError for an unknown kind, and for an even kernel behind an interpolation (it would shift the image).
    """
    if kind == "transposed":
        padding = (kernel - 1) // 2
        more = STRIDE + 2 * padding - kernel  # so that the sides are doubled exactly
        return nn.ConvTranspose2d(CHANNELS, 1, kernel, STRIDE, padding, output_padding=more, bias=False)
    if kind not in ("nearest", "bilinear") or kernel % 2 == 0:
        raise UserError(f"up-sampling '{kind}' with kernel {kernel}: give transposed, or nearest or bilinear and odd")
    return Resized(kernel, kind)


@torch.no_grad()
def build(draws: int, *, kind: Kind, kernel: int) -> Measured:
    """Measure `draws` random layers.

    The statement: for a constant input, pixels inside the border have the value of the pixel one period further on.
    The period is the stride for a transposed convolution, 1 behind an interpolation. With equal weights and even
    overlap (`even_spread` 0) it is 1 for both.
    """
    shares, inputs, found, stated = [], [], [], []
    period = STRIDE if kind == "transposed" else 1
    for _ in range(draws):
        layer = layer_of(kind, kernel).double()
        image = torch.randn(INPUTS, CHANNELS, SIDE, SIDE, dtype=torch.float64).relu()
        shares.append(nyquist_share(layer(image)))
        inputs.append(nyquist_share(image))
        inner = layer(torch.ones_like(image[:1]))[0, 0, BORDER:-BORDER, BORDER:-BORDER]
        found.append(inner[: period * 2, : period * 2].numpy())
        stated.append(inner[period : period * 3, period : period * 3].numpy())
    layer = layer_of(kind, kernel).double()
    for parameter in layer.parameters():
        nn.init.constant_(parameter, 1.0)
    even = layer(torch.ones(1, CHANNELS, SIDE, SIDE, dtype=torch.float64))[0, 0, BORDER:-BORDER, BORDER:-BORDER]
    metrics = {
        "nyquist_share": float(np.mean(shares)),
        "input_nyquist_share": float(np.mean(inputs)),
        "even_spread": float(even.std(correction=0) / even.mean()),
    }
    return Measured("up-sampling layers, untrained", np.array(found), np.array(stated), metrics)
