"""The gated attention unit (Hua et al. 2022, Section 2) and its quadratic form, FLASH-Quad.

``u = SiLU(x Wu)``, ``v = SiLU(x Wv)`` with ``e d`` channels each; one shared ``z = SiLU(x Wz)`` with s channels, from
which cheap scales and offsets make the query and the key of a single head; ``o = (u * (A v)) Wo``. One unit stands for
attention and feed-forward layer together: two units have the parameters of one Transformer layer.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from replications.errors import UserError, nearest
from replications.layers.text.blocks import Mixer, Rotary, State, check_room

KERNELS = ("relu2", "softmax", "softmax_plus")
DIVISORS = ("length", "longest")
SILU_MEAN = 0.2066  # of a standard normal number


class ScaleOffset(nn.Module):
    """Turn ``z`` into several heads by a scale and an offset for each channel (the paper's gamma and beta).

    `products` says which scale each head starts with: that with which the product of two such heads at different
    positions is about so large.
    """

    def __init__(self, products: Sequence[float], channels: int):
        super().__init__()
        scales = torch.tensor(products).div(channels * SILU_MEAN**2).sqrt()
        self.gamma = nn.Parameter(scales[:, None].repeat(1, channels))
        self.beta = nn.Parameter(torch.zeros(len(products), channels))

    def forward(self, z: Tensor) -> Tensor:
        """Return the heads ``[heads, batch, n, channels]`` of ``[batch, n, channels]``."""
        return torch.addcmul(self.beta[:, None, None], z, self.gamma[:, None, None])


class RotaryBias(nn.Module):
    """A bias ``b_ij = (R_i a).(R_j c)`` that depends on ``i - j`` alone: the paper's form for long sequences.

    `channels` numbers each for a and c, drawn so that the bias starts with standard deviation 0.02.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.vectors = nn.Parameter(torch.randn(2, channels) * math.sqrt(0.02 / math.sqrt(channels)))
        self.rotary = Rotary(channels)

    def forward(self, rows: int, start: int = 0) -> Tensor:
        """Return ``[rows, start + rows]`` for queries at `start` onwards and all keys up to them."""
        first, second = self.vectors[:, None].unbind(0)
        queries = self.rotary(first.expand(rows, -1), start)
        return queries @ self.rotary(second.expand(start + rows, -1)).T


class GatedUnit(Mixer):
    """What FLASH-Quad and FLASH have in common: the projections, the gate and the output."""

    def __init__(self, width: int, key_size: int, expansion: int, products: Sequence[float]):
        super().__init__()
        self.hidden, self.key_size = expansion * width, key_size
        self.into = nn.Linear(width, 2 * self.hidden + key_size, bias=False)
        self.heads = ScaleOffset(products, key_size)
        self.rotary = Rotary(key_size)
        self.bias = RotaryBias(key_size)
        self.out = nn.Linear(self.hidden, width, bias=False)

    def project(self, x: Tensor, start: int = 0) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Return gate, value ``[batch, n, e d]`` and the heads ``[batch, n, s]``, turned by their positions."""
        gate, value, z = F.silu(self.into(x)).split([self.hidden, self.hidden, self.key_size], dim=-1)
        return gate, value, self.rotary(self.heads(z), start).unbind()


class QuadraticUnit(GatedUnit):
    """FLASH-Quad: ``A = relu(q.k / divisor + b)^2``, or a softmax in its place.

    `divisor` "length" is the number of positions of the current sequence (without padding), "longest" is the
    training length for every sequence. "softmax" is ``softmax(q.k / sqrt(s) + b)``; "softmax_plus" has the logits
    times ``log(m) / log(longest)`` besides, where m is how many keys a query sees (Su 2022).
    """

    def __init__(
        self, width: int, key_size: int, expansion: int, causal: bool, longest: int, kernel: str, divisor: str
    ):
        # squared and summed over n keys, sqrt(n) / n gives about one
        product = math.sqrt(longest) if kernel == "relu2" else math.sqrt(key_size)
        super().__init__(width, key_size, expansion, [product] * 2)
        if kernel not in KERNELS:
            raise UserError(f"unknown attention kernel '{kernel}'{nearest(kernel, KERNELS)}")
        if divisor not in DIVISORS:
            raise UserError(f"unknown divisor '{divisor}'{nearest(divisor, DIVISORS)}")
        self.causal, self.longest, self.kernel, self.divisor = causal, longest, kernel, divisor

    @property
    def decodes(self) -> bool:
        """Dividing by the final length needs to know it before the first token."""
        return self.kernel != "relu2" or self.divisor == "longest"

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        gate, value, (query, key) = self.project(x)
        return self.out(gate * (self._all_weights(query, key, valid) @ value))

    def weights(self, x: Tensor) -> Tensor:
        _, _, (query, key) = self.project(x)
        return self._all_weights(query, key)[:, None]

    def _all_weights(self, query: Tensor, key: Tensor, valid: Tensor | None = None) -> Tensor:
        n = query.shape[1]
        bias = hide_ahead(self.bias(n)) if self.causal else self.bias(n)
        if self.causal:
            seen, valid = torch.arange(1, n + 1, device=query.device)[:, None], None
        else:
            seen = torch.full((1, 1), n, device=query.device) if valid is None else valid.sum(dim=1)[:, None, None]
        return self._weights(query, key, bias, seen, valid)

    def _weights(self, query: Tensor, key: Tensor, bias: Tensor, seen: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return ``A`` ``[batch, queries, keys]``; `seen`: how many keys a query sees, broadcast.

        The queries are scaled, not their many products with the keys.
        """
        if self.kernel == "relu2":
            whole = key.shape[-2] if self.causal else seen
            query = query / (whole if self.divisor == "length" else self.longest)
        elif self.kernel == "softmax":
            query = query * self.key_size**-0.5
        else:
            scale = seen.log() * (self.key_size**-0.5 / math.log(max(self.longest, 2)))
            query = query * scale.to(query.dtype)
        logits = torch.baddbmm(bias, query, key.transpose(-1, -2))
        if valid is not None:
            logits = logits.masked_fill(~valid[:, None, :], -math.inf)
        return logits.relu_().square() if self.kernel == "relu2" else logits.softmax(dim=-1)

    def start(self, batch: int, capacity: int, like: Tensor) -> State:
        return {
            "key": like.new_zeros(batch, capacity, self.key_size),
            "value": like.new_zeros(batch, capacity, self.hidden),
        }

    def step(self, x: Tensor, position: int, state: State) -> Tensor:
        check_room(position, state["key"].shape[1])
        gate, value, (query, key) = self.project(x[:, None], position)
        state["key"][:, position], state["value"][:, position] = key[:, 0], value[:, 0]
        keys, values = (state[name][:, : position + 1] for name in ("key", "value"))
        seen = torch.full((1, 1), position + 1, device=x.device)
        weights = self._weights(query, keys, self.bias(1, position), seen)
        return self.out(gate * (weights @ values))[:, 0]


def hide_ahead(bias: Tensor) -> Tensor:
    """Put minus infinity where the key ``[n, n]`` comes after the query: nothing is left of it after either kernel."""
    return bias.masked_fill(torch.ones_like(bias, dtype=torch.bool).triu(1), -math.inf)
