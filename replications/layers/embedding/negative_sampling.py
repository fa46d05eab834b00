"""Negative sampling (Mikolov et al., NIPS 2013, equation 4), for words and for documents as input."""

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid


def start_vectors(count: int, dim: int, spread: float | None) -> nn.Parameter:
    """Return vectors ``[count, dim]`` uniform between -spread / 2 and spread / 2; None: 1 / dim, as in word2vec."""
    spread = 1 / dim if spread is None else spread
    return nn.Parameter(spread * (torch.rand(count, dim) - 0.5))


def pair_losses(given: Tensor, told: Tensor, word: Tensor, noise: Tensor, outputs: Tensor) -> Tensor:
    """Return ``-log s(o_w^T h) - sum over noise words n of log s(-o_n^T h)``, ``[batch]``.

    `given` h ``[batch, dim]`` tells `told` o_w ``[batch, dim]``, the row of `outputs` of the word ``[batch]``; `noise`
    ``[batch, negatives]``. A noise word that is the word itself does not count.
    """
    positive = logsigmoid((given * told).sum(1))
    other = (nn.functional.embedding(noise, outputs) * given[:, None]).sum(2)
    negative = logsigmoid(-other) * (noise != word[:, None])
    return -(positive + negative.sum(1))
