"""Traces by probes v with E[v v^T] = I: then E[v^T A v] = tr A."""

import torch
from torch import Tensor

from replications.errors import UserError

MOST_ENUMERATED = 20
SMOOTHING = 1.0


def all_signs(n: int) -> Tensor:
    """Return all vectors of n signs, float64 ``[2^n, n]``. Raises UserError where they are too many to enumerate."""
    if n > MOST_ENUMERATED:
        raise UserError(f"2^{n} sign vectors are too many to enumerate: take at most {MOST_ENUMERATED} dimensions")
    bits = torch.arange(2**n)[:, None] >> torch.arange(n) & 1
    return (2 * bits - 1).double()


def quadratic_forms(matrix: Tensor, probes: Tensor) -> Tensor:
    """Return v^T A v ``[probes]`` for probes ``[probes, n]``."""
    return ((probes @ matrix) * probes).sum(1)


def sign_variance(matrix: Tensor) -> Tensor:
    """Return the variance of v^T A v over random signs: 2 (|S|_F^2 - sum of s_ii^2), S the symmetric part of A."""
    symmetric = (matrix + matrix.T) / 2
    return 2 * (symmetric.square().sum() - symmetric.diagonal().square().sum())


def smoother(n: int) -> Tensor:
    """Return the influence matrix (I + D^T D)^-1 of a smoothing spline on n points, D the second differences."""
    differences = torch.eye(n, dtype=torch.float64).diff(n=2, dim=0)
    return torch.linalg.inv(torch.eye(n, dtype=torch.float64) + SMOOTHING * differences.T @ differences)
