"""Power: which effects a number of seeds finds, and how many seeds an effect needs.

Noise is normal, and one look is taken alone: earlier looks can only raise the power.
"""

from functools import cache

import numpy as np
from scipy.special import gammaincinv, ndtr

from replications.looks import LOOKS, WEIGHTS
from replications.reporting.statistics import ALPHA, t_quantile

POWER = 0.8
MOST_SEEDS = 40  # a claim that needs more seeds counts as out of reach


@cache
def _spreads(df: int) -> np.ndarray:
    """Standard deviations of `df` + 1 normal values: 500 quantiles, each as likely."""
    return np.sqrt(2 * gammaincinv(df / 2, (np.arange(500) + 0.5) / 500) / df)


def chance(effect: float, n: int, level: float) -> float:
    """Power of the one-sided t test of n values at `level`, where their mean is `effect` standard deviations.

    It is the mean of P(mean > t s / sqrt(n)) over the sample standard deviation s.
    """
    return float(ndtr(np.sqrt(n) * effect - t_quantile(1 - level, n - 1) * _spreads(n - 1)).mean())


@cache
def detectable_effect(n: int, power: float = POWER, alpha: float = ALPHA) -> float:
    """Smallest true effect, in standard deviations of a seed difference, that a directional claim finds.

    "Finds": the one-sided t test of n paired differences at half of `alpha` rejects ``d <= 0`` with probability
    `power`. By symmetry it is also the distance below delta from which the claim is contradicted with that
    probability.
    """
    return _solve(lambda d: chance(d, n, alpha / 2), power)


@cache
def equality_margin(n: int, power: float = POWER, alpha: float = ALPHA) -> float:
    """Smallest margin delta, in standard deviations of a seed difference, in which TOST at `alpha` proves a true
    effect of 0. Verdicts give a statement half of ALPHA.

    The power is the mean of P(|mean| < delta - t s / sqrt(n)) over the sample standard deviation s.
    """
    reach = t_quantile(1 - alpha, n - 1) * _spreads(n - 1)
    return _solve(lambda d: float(np.clip(2 * ndtr(np.sqrt(n) * d - reach) - 1, 0, None).mean()), power)


def _solve(power_of, power: float) -> float:
    """Return the effect at which the increasing function `power_of` reaches `power`, by bisection."""
    low, high = 0.0, 1.0
    while power_of(high) < power:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if power_of(middle) < power else (low, middle)
    return high


def seeds_needed(effect: float, smallest: float, equal: bool, done: int, ranks: tuple[int, int]) -> int | None:
    """Return the least number of seeds with which a claim is decided with probability `POWER`, or None beyond
    `MOST_SEEDS`.

    `effect`, in the claimed direction, and `smallest` are in standard deviations of a seed difference; the first
    `done` looks are over. `ranks` are the factors by which Holm multiplies the p-values of statement and denial.
    Beyond the last look, each number of seeds is treated as if the last look were taken there.
    """
    beyond = [(n, WEIGHTS[-1]) for n in range(LOOKS[-1] + 1, MOST_SEEDS + 1)]
    for n, weight in [*zip(LOOKS[done:], WEIGHTS[done:], strict=True), *beyond]:
        if max(_chances(effect, smallest, equal, n, weight * ALPHA / 2, ranks)) >= POWER:
            return n
    return None


def _chances(effect: float, smallest: float, equal: bool, n: int, level: float, ranks: tuple[int, int]):
    """Return the power for statement and denial with n seeds at the one-sided `level`, before Holm."""
    level_for, level_against = level / ranks[0], level / ranks[1]
    if not equal:
        return chance(effect, n, level_for), chance(smallest - effect, n, level_against)
    inside = [chance(smallest - sign * effect, n, level_for) for sign in (1, -1)]
    return sum(inside) - 1, chance(abs(effect) - smallest, n, level_against / 2)
