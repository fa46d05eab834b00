"""The smallest method of the task, which ``new paper`` copies: a position takes the mean of what it may see.

Replace `MeanMixer` by the paper's mixer. One that can decode token by token also has `start` and `step` (`Mixer`).
"""

import torch
from torch import Tensor, nn

from replications.layers.text.blocks import FeedForward, Mixer
from replications.layers.text.model import SequenceModel, residual_model


class MeanMixer(Mixer):
    """The mean over all positions, or, `causal`, over those up to the own one; padding is left out."""

    def __init__(self, width: int, causal: bool):
        super().__init__()
        self.causal = causal
        self.value = nn.Linear(width, width, bias=False)
        self.gate = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        value = self.value(x)
        seen = torch.ones_like(value[..., :1]) if valid is None else valid[..., None].to(value.dtype)
        value = value * seen
        if self.causal:
            mean = value.cumsum(1) / seen.cumsum(1).clamp_min(1)
        else:
            mean = value.sum(1, keepdim=True) / seen.sum(1, keepdim=True).clamp_min(1)
        return self.out(mean * torch.sigmoid(self.gate(x)))

    def weights(self, x: Tensor) -> Tensor:
        weights = torch.ones(x.shape[1], x.shape[1], dtype=x.dtype, device=x.device)
        weights = weights.tril() if self.causal else weights
        return (weights / weights.sum(1, keepdim=True)).expand(len(x), 1, -1, -1)


def build(vocabulary: int, causal: bool, num_classes: int | None, *, width: int, depth: int) -> SequenceModel:
    """Return `depth` layers of `MeanMixer` and feed-forward."""
    return residual_model(
        lambda: MeanMixer(width, causal), depth, vocabulary, num_classes,
        width=width, norm="layer", feed_forward=lambda: FeedForward(width),
    )  # fmt: skip
