"""A perceptron that denoises images at the levels of a chain."""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from replications.layers.diffusion.chain import Chain
from replications.layers.diffusion.predictions import Prediction, denoised, target_of

FREQUENCIES = 8


class ImageDenoiser(nn.Module):
    """Sees x_t ``[batch, pixels]`` and sines and cosines of t / T; predicts the noise, the data or the velocity.

    `passes` counts the calls.
    """

    passes: int = 0

    def __init__(self, pixels: int, width: int, depth: int, chain: Chain, prediction: Prediction):
        super().__init__()
        self.prediction = prediction
        sizes = [pixels + 2 * FREQUENCIES, *[width] * depth]
        layers = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.SiLU())]
        self.net = nn.Sequential(*layers, nn.Linear(width, pixels))
        angle = math.pi * torch.outer(torch.linspace(0, 1, chain.steps), 2.0 ** torch.arange(FREQUENCIES) / 2)
        self.register_buffer("time", torch.cat([angle.sin(), angle.cos()], 1), persistent=False)
        self.register_buffer("signal", chain.signal.float()[:, None], persistent=False)
        self.register_buffer("noise", chain.noise.float()[:, None], persistent=False)

    def output(self, x: Tensor, index: Tensor) -> Tensor:
        self.passes += 1
        return self.net(torch.cat([x, self.time[index]], 1))

    def forward(self, x: Tensor, i: int) -> Tensor:
        """Return the expected x_0 of x at index `i` of the chain."""
        index = torch.full((len(x),), i, device=x.device)
        return denoised(self.prediction, self.output(x, index), x, self.signal[i], self.noise[i])

    def error(self, x0: Tensor) -> Tensor:
        """Return the simple loss: the prediction's squared distance, mean over images, at steps and noise drawn now."""
        index, eps = torch.randint(len(self.signal), (len(x0),), device=x0.device), torch.randn_like(x0)
        signal, noise = self.signal[index], self.noise[index]
        output = self.output(signal * x0 + noise * eps, index)
        return (output - target_of(self.prediction, x0, eps, signal, noise)).square().sum(1).mean()
