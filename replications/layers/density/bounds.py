"""Importance-weighted bounds of log p(x) (Burda et al. 2016, section 3): L_k = E log (1/k) sum_i w_i."""

from collections.abc import Sequence

import torch
from torch import Tensor

from replications.layers.density.model import log_mean_exp

SIZES = (1, 5, 50, 500)


def nested_bounds(log_weight: Tensor, sizes: Sequence[int]) -> Tensor:
    """Return the bound of each size, ``[batch, sizes]``, from ``[batch, samples]`` log-weights.

    All use all samples: those of size k are the mean over samples / k groups. Where each size divides the next, the
    bounds of an image cannot fall (log is concave), whatever the samples are.
    """
    groups = [log_weight.unflatten(1, (-1, size)) for size in sizes]
    return torch.stack([log_mean_exp(group, 2).mean(1) for group in groups], dim=1)
