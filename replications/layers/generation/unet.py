"""The U-Net of DDPM (Ho et al., NeurIPS 2020, appendix B), a convolutional denoiser of grey images."""

import math
from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from replications.errors import UserError
from replications.layers.diffusion.chain import Chain
from replications.layers.diffusion.predictions import Prediction
from replications.layers.generation.denoiser import ImageDenoiser

ATTENDED = 1  # the level with self-attention: half the images' side, as in the paper's 16x16 of 32x32
LONGEST = 10_000  # period of the slowest sine of time, over 2 pi
TRAINED = 1000  # steps of the paper's chain: embedded times of another chain run as far
Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)


class Block(nn.Module):
    """Two convolutions behind normalisation and SiLU, the embedded time between them, and a way around them.

    x ``[batch, inputs, rows, columns]`` and SiLU of the embedded time ``[batch, times]`` to ``[batch, outputs, ..]``.
    The second convolution starts at 0: the block begins as its way around.
    """

    def __init__(self, inputs: int, outputs: int, times: int, groups: int, attends: bool = False):
        super().__init__()
        self.norm_1, self.conv_1 = nn.GroupNorm(groups, inputs, 1e-6), convolution(inputs, outputs)
        self.time = even(nn.Linear(times, outputs))
        self.norm_2, self.conv_2 = nn.GroupNorm(groups, outputs, 1e-6), zero(convolution(outputs, outputs))
        self.around = nn.Identity() if inputs == outputs else convolution(inputs, outputs, 1)
        self.attention = Attention(outputs, groups) if attends else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        hidden = self.conv_1(F.silu(self.norm_1(x))) + self.time(time)[:, :, None, None]
        return self.attention(self.around(x) + self.conv_2(F.silu(self.norm_2(hidden))))


class Attention(nn.Module):
    """Self-attention of one head over the places of x ``[batch, width, rows, columns]``, added to x; 0 at the start."""

    def __init__(self, width: int, groups: int):
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, 1e-6)
        self.parts = nn.ModuleList(even(nn.Linear(width, width)) for _ in range(3))  # query, key, value
        self.out = zero(nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        places = self.norm(x).flatten(2).transpose(1, 2)[:, None]  # one head
        mixed = F.scaled_dot_product_attention(*(part(places) for part in self.parts))
        return x + self.out(mixed)[:, 0].transpose(1, 2).unflatten(2, x.shape[2:])


class Halving(nn.Module):
    """A strided convolution; padded below and to the right, as in the authors' code."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = even(nn.Conv2d(width, width, 3, 2))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Doubling(nn.Module):
    """Each pixel four times, then a convolution."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = convolution(width, width)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class UNet(nn.Module):
    """Levels of `blocks` blocks, ``channels * multiplier`` wide, each of half the side of the one before.

    Every output on the way down is joined to the input of a block on the way up. Takes x ``[batch, 1, rows, columns]``
    and sines of time ``[batch, channels]`` (`sines`); returns the shape of x, zeros at the start. Raises UserError for
    channels that are no multiple of 4.
    """

    def __init__(self, channels: int, multipliers: Sequence[int], blocks: int):
        super().__init__()
        if channels < 4 or channels % 4:
            raise UserError(f"a U-Net of {channels} channels: give a multiple of 4")
        groups, times = math.gcd(32, channels // 4), 4 * channels
        self.time = nn.Sequential(even(nn.Linear(channels, times)), nn.SiLU(), even(nn.Linear(times, times)), nn.SiLU())
        self.enter = convolution(1, channels)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        widths, width, kept = [channels * factor for factor in multipliers], channels, [channels]
        for level, outputs in enumerate(widths):
            for _ in range(blocks):
                self.down.append(Block(width, outputs, times, groups, level == ATTENDED))
                width = outputs
                kept.append(width)
            if level < len(widths) - 1:
                self.down.append(Halving(width))
                kept.append(width)
        self.middle = nn.ModuleList([Block(width, width, times, groups, attends) for attends in (True, False)])
        for level, outputs in reversed(list(enumerate(widths))):
            for _ in range(blocks + 1):
                self.up.append(Block(width + kept.pop(), outputs, times, groups, level == ATTENDED))
                width = outputs
            if level:
                self.up.append(Doubling(width))
        self.leave = nn.Sequential(nn.GroupNorm(groups, width, 1e-6), nn.SiLU(), zero(nn.Conv2d(width, 1, 3, 1, 1)))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        time = self.time(time)
        kept = [self.enter(x)]
        for part in self.down:
            kept.append(part(kept[-1], time))
        x = kept[-1]
        for part in self.middle:
            x = part(x, time)
        for part in self.up:
            x = part(x if isinstance(part, Doubling) else torch.cat([x, kept.pop()], 1), time)
        return self.leave(x)


class UNetDenoiser(ImageDenoiser):
    """The denoiser with a U-Net in place of the perceptron, for images of `shape` (rows, columns).

    Raises UserError where a side cannot be halved often enough.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        channels: int,
        multipliers: Sequence[int],
        blocks: int,
        chain: Chain,
        prediction: Prediction,
    ):
        super().__init__(math.prod(shape), 1, 0, chain, prediction)
        (rows, columns), levels = shape, len(multipliers)
        unit = 2 ** (levels - 1)
        if rows % unit or columns % unit:
            raise UserError(
                f"images of {rows} x {columns} pixels: a U-Net of {levels} levels needs multiples of {unit}"
            )
        self.shape, self.net = shape, UNet(channels, multipliers, blocks)
        self.time = sines(torch.arange(chain.steps) * (TRAINED / chain.steps), channels)

    def output(self, x: Tensor, index: Tensor) -> Tensor:
        self.passes += 1
        return self.net(x.unflatten(1, (1, *self.shape)), self.time[index]).flatten(1)


def sines(time: Tensor, width: int) -> Tensor:
    """Return sines, then cosines, of `time` at ``width / 2`` frequencies from 1 to 1 / 10,000, ``[times, width]``."""
    frequency = torch.logspace(0, -math.log10(LONGEST), width // 2, dtype=torch.float64)
    angle = torch.outer(time.double(), frequency)
    return torch.cat([angle.sin(), angle.cos()], 1).float()


def convolution(inputs: int, outputs: int, side: int = 3) -> nn.Conv2d:
    return even(nn.Conv2d(inputs, outputs, side, padding=side // 2))


def even(layer: Layer) -> Layer:
    """Start weights evenly with a variance of 2 / (inputs + outputs), and without a bias, as in the authors' code."""
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def zero(layer: Layer) -> Layer:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
