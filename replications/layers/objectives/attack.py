"""An attack that knows the network and cannot be misled by its randomness or by saturation."""

import torch
from torch import Tensor

from replications.layers.objectives.model import ObjectiveClassifier


def log_odds(log_probabilities: Tensor, label: Tensor) -> Tensor:
    """Return ``log p - log(1 - p)`` of the right class, ``[n]``, without rounding p to 1."""
    own = torch.zeros_like(log_probabilities, dtype=torch.bool).scatter_(1, label[:, None], True)
    others = log_probabilities.masked_fill(own, -torch.inf).logsumexp(1)
    return log_probabilities.gather(1, label[:, None])[:, 0] - others


def attacked(module: ObjectiveClassifier, x: Tensor, label: Tensor, eps: float, steps: int, samples: int) -> Tensor:
    """Return inputs ``[n, D]`` within `eps` of `x` in each number, and in [-1, 1], that hide the right class.

    One step of `eps`, or `steps` of a quarter of it, along the sign of the gradient of the *mean* probability over
    `samples` fresh draws of the code: a random code is averaged out, not obeyed. The gradient is that of the log odds,
    which has the sign of the probability's and does not vanish where the probability rounds to 1.
    """
    moved = x.clone()
    for _ in range(steps):
        moved.requires_grad_(True)
        with torch.enable_grad():
            odds = log_odds(module.log_probabilities(moved, samples), label)
            (gradient,) = torch.autograd.grad(odds.sum(), moved)
        moved = moved.detach() - eps * (1.0 if steps == 1 else 0.25) * gradient.sign()
        moved = torch.minimum(torch.maximum(moved, x - eps), x + eps).clamp(-1, 1)
    return moved
