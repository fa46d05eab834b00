"""The smallest method of the task, which ``new paper`` copies: a position takes the mean of those up to its own.

Replace `MeanMixer` by the paper's mixer. One that can decode token by token also has `start` and `step` (`Mixer`).
"""

import torch
from torch import Tensor, nn

from replications.layers.text.blocks import FeedForward, Mixer
from replications.layers.text.model import SequenceModel, residual_model


class MeanMixer(Mixer):
    """The mean over the positions up to the own one."""

    def __init__(self, width: int):
        super().__init__()
        self.value = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        seen = torch.arange(1, x.shape[1] + 1, device=x.device, dtype=x.dtype)
        return self.out(self.value(x).cumsum(1) / seen[:, None])


def build(vocabulary: int, num_classes: int | None, *, width: int, depth: int) -> SequenceModel:
    """Return `depth` layers of `MeanMixer` and feed-forward."""
    return residual_model(
        lambda: MeanMixer(width), depth, vocabulary, num_classes,
        width=width, norm="layer", feed_forward=lambda: FeedForward(width),
    )  # fmt: skip
