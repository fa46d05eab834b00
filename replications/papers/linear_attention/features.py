"""Feature maps ``phi``: what takes the exponential's place in ``phi(q).phi(k)``.

A map is called with ``[batch, heads, n, channels]`` and the first position, and returns non-negative features (but for
cosFormer's, whose products are non-negative up to its longest length).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class EluFeatures(nn.Module):
    """``elu(x) + 1`` (Katharopoulos et al. 2020, Eq. 7)."""

    def __init__(self, channels: int):
        super().__init__()
        self.features = channels

    def query(self, x: Tensor, start: int = 0) -> Tensor:
        return F.elu(x) + 1.0

    key = query


class CosFeatures(nn.Module):
    """cosFormer (Qin et al. 2022): ``relu(x)`` times cosine and sine of ``pi i / 2M``, so that far keys weigh less.

    M is `longest`, or the sequence's length if that is larger: decoding agrees with the parallel form up to `longest`.
    """

    def __init__(self, channels: int, longest: int):
        super().__init__()
        self.features, self.longest = 2 * channels, longest

    def query(self, x: Tensor, start: int = 0) -> Tensor:
        stop = start + x.shape[-2]
        position = torch.arange(start, stop, device=x.device, dtype=torch.float32)
        angle = (position * (math.pi / 2 / max(self.longest, stop)))[:, None].to(x.dtype)
        x = x.relu()
        return torch.cat([x * angle.cos(), x * angle.sin()], dim=-1)

    key = query


class RandomFeatures(nn.Module):
    """FAVOR+ (Choromanski et al. 2021): ``exp(w.x - |x|^2 / 2) / sqrt(m)``, whose products estimate ``exp(q.k)``.

    The rows w are Gaussian, orthogonal in blocks of `channels`, drawn once. Inputs are scaled by ``channels^-1/4``, so
    that the estimate is of ``exp(q.k / sqrt(channels))``. Queries are freed of their largest exponent, which cancels
    in the quotient; keys need no such thing, since ``w.k - |k|^2 / 2 <= |w|^2 / 2``.
    """

    def __init__(self, channels: int, features: int):
        super().__init__()
        self.features, self.scale = features, channels**-0.25
        self.register_buffer("directions", orthogonal_gaussian(features, channels))

    def query(self, x: Tensor, start: int = 0) -> Tensor:
        exponent = self._exponent(x)
        return (exponent - exponent.detach().amax(dim=-1, keepdim=True)).exp().to(x.dtype)

    def key(self, x: Tensor, start: int = 0) -> Tensor:
        return self._exponent(x).exp().to(x.dtype)

    def _exponent(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(self.directions.dtype) * self.scale
            projected = x @ self.directions.T
        return projected - x.square().sum(dim=-1, keepdim=True) / 2 - math.log(self.features) / 2


def orthogonal_gaussian(rows: int, columns: int) -> Tensor:
    """Return Gaussian rows ``[rows, columns]``, orthogonal to the others of their block of `columns` rows."""
    blocks = []
    for _ in range(math.ceil(rows / columns)):
        orthogonal, _ = torch.linalg.qr(torch.randn(columns, columns))
        norms = torch.randn(columns, columns).norm(dim=1)
        blocks.append(orthogonal.T * norms[:, None])
    return torch.cat(blocks)[:rows]
