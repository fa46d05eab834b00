"""Stochastic gradient descent on a noisy quadratic, whose averages have closed forms.

Coordinate i has the loss h_i x^2 / 2 and the gradient h_i x + noise of variance s^2. At a constant rate r its iterates
are a first-order autoregression with coefficient 1 - r h_i.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

CURVATURES = torch.logspace(-1.5, 0, 20, dtype=torch.float64)  # 0.03 to 1
RATE, NOISE, START = 0.5, 1.0, 3.0


class Iterate(nn.Module):
    """The point that is moved, float64 ``[replicas, coordinates]``."""

    def __init__(self, replicas: int):
        super().__init__()
        self.x = nn.Parameter(torch.full((replicas, len(CURVATURES)), START, dtype=torch.float64))


def descend(iterate: Iterate, steps: int, rate: Callable[[float], float], after: Sequence[Callable[[], None]]) -> None:
    """Take `steps` steps at the rates ``rate(step / steps)``, and call the functions `after` each."""
    with torch.no_grad():
        for step in range(steps):
            noise = NOISE * torch.randn_like(iterate.x)
            iterate.x -= rate(step / steps) * (CURVATURES * iterate.x + noise)
            for function in after:
                function()


def loss(x: Tensor) -> float:
    """Return the mean over replicas of the sum of h x^2 / 2."""
    return float((CURVATURES * x.detach().square() / 2).sum(-1).mean())


def stationary_loss(decay: float) -> float:
    """Return the expected loss of the average with `decay` (0: of the iterate) at the constant `RATE`, after long time.

    The iterate has variance r s^2 / (h (2 - r h)). An average with decay a of an autoregression with coefficient p has
    (1 - a) / (1 + a) (1 + a p) / (1 - a p) of its variance.
    """
    p = 1 - RATE * CURVATURES
    variance = RATE * NOISE**2 / (CURVATURES * (2 - RATE * CURVATURES))
    share = (1 - decay) / (1 + decay) * (1 + decay * p) / (1 - decay * p)
    return float((CURVATURES * variance * share / 2).sum())
