"""An autoregressive model of short sequences of symbols: exact log-probabilities, and draws of noise."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SymbolModel(nn.Module):
    """A GRU over `length` symbols of `size` kinds: p(s) is the product of p(s_i | s_1 .. s_{i-1})."""

    def __init__(self, length: int, size: int, width: int):
        super().__init__()
        self.length, self.size = length, size
        self.embedding = nn.Embedding(size + 1, width)  # the last is the start
        self.position = nn.Parameter(0.02 * torch.randn(length, width))
        self.recurrent = nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(width, size)

    def log_prob(self, symbols: Tensor) -> Tensor:
        """Return the log-probability of each symbol given those before it, in nats, ``[batch, length]``."""
        before = F.pad(symbols[:, :-1], (1, 0), value=self.size)
        states, _ = self.recurrent(self.embedding(before) + self.position)
        return self.head(states).log_softmax(-1).gather(-1, symbols[..., None])[..., 0]

    def draw(self, noise: Tensor) -> Tensor:
        """Return symbols int64 ``[batch, length]`` of normal noise of that shape, by the inverse of each CDF."""
        symbol = torch.full((len(noise), 1), self.size, device=noise.device)
        state, found = None, []
        for place in range(self.length):
            states, state = self.recurrent(self.embedding(symbol) + self.position[place], state)
            symbol = by_inverse(self.head(states[:, 0]).softmax(-1), noise[:, place])
            found.append(symbol)
        return torch.cat(found, 1)


def by_inverse(probabilities: Tensor, noise: Tensor) -> Tensor:
    """Return int64 ``[batch, 1]``: the kind in whose share of [0, 1] the noise's quantile falls."""
    quantile = torch.special.ndtr(noise.double())[:, None]
    rank = torch.searchsorted(probabilities.double().cumsum(-1), quantile, right=True)
    return rank.clamp_max(probabilities.shape[-1] - 1)
