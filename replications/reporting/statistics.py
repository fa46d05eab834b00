"""Intervals, tests and multiplicity: everything a verdict rests on, vectorised over leading dimensions.

Seeds are the unit of replication. Subject and reference share a seed's data order, so their difference is
taken seed by seed, and the interval is Student's t on the n differences (n - 1 degrees of freedom). A
bootstrap over three values does not cover; the t interval does where differences are near normal, at the
price of being wide.

With d the effect in the claimed direction and delta the smallest effect of interest, a directional claim has
two null hypotheses, each tested one-sided at 2.5 % (so both are read off the 95 % interval):

* ``d <= 0``: rejected, the claimed direction is established;
* ``d >= delta``: rejected, an effect worth the name is ruled out.

An `equal` claim has ``|d| >= delta`` (two one-sided tests at 5 %, TOST: the 90 % interval is inside ±delta)
and ``|d| <= delta`` (the 95 % interval is wholly outside).
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from scipy.special import nctdtr, ndtr, stdtr, stdtrit

ALPHA = 0.05


class Evidence(NamedTuple):
    """What n effects say about a claim; arrays over the leading dimensions of the effects.

    `effect`, `lower`, `upper` (95 %) keep the sign of the effects. `p` belongs to the claim's own statement
    (null: no effect, or not equal), `p_against` to its denial (null: the effect is at least delta, or equal).
    Both are on the scale of ALPHA: one-sided p-values of directional claims are doubled. NaN where the
    effects do not vary or are fewer than two.
    """

    effect: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    p: np.ndarray
    p_against: np.ndarray


def t_quantile(probability: float, df: int) -> float:
    """Quantile of Student's t with `df` degrees of freedom."""
    return float(stdtrit(df, probability))


def half_width(values: np.ndarray, axis: int = -1) -> np.ndarray:
    """Half width of the 95 % t interval of the mean of `values` [..., n]; NaN for n < 2."""
    values = np.asarray(values, dtype=float)
    n = values.shape[axis]
    if n < 2:
        return np.full(np.delete(values.shape, axis), np.nan)
    return t_quantile(1 - ALPHA / 2, n - 1) * values.std(axis, ddof=1) / np.sqrt(n)


def weigh(
    effects: np.ndarray,
    direction: str,
    smallest: float,
    variance_factor: float | None = None,
    resolution: float = 0.0,
) -> Evidence:
    """Weigh paired effects [..., n] (subject minus reference, one a seed) for a claim.

    `direction` is ``greater``, ``less`` or ``equal``, `smallest` the smallest effect of interest (delta). The
    variance of the mean is the sample variance times `variance_factor`, 1/n where not given. A spread of at
    most `resolution` (the rounding error of the values that were subtracted) counts as none.
    """
    effects = np.asarray(effects, dtype=float)
    n = effects.shape[-1]
    mean = effects.mean(-1)
    if n < 2:
        unknown = np.full(mean.shape, np.nan)
        return Evidence(mean, unknown, unknown, unknown, unknown)
    spread = effects.std(-1, ddof=1)
    # Effects that agree, bar rounding, do not tell their spread: an interval of no width would mislead.
    spread = np.where(spread <= resolution + 1e-9 * np.abs(mean), np.nan, spread)
    error = spread * np.sqrt(1 / n if variance_factor is None else variance_factor)
    df = n - 1
    reach = t_quantile(1 - ALPHA / 2, df) * error
    if direction == "equal":
        p = stdtr(df, (np.abs(mean) - smallest) / error)
        p_against = 2 * stdtr(df, (smallest - np.abs(mean)) / error)
    else:
        d = mean if direction == "greater" else -mean
        p = 2 * stdtr(df, -d / error)
        p_against = 2 * stdtr(df, (d - smallest) / error)
    return Evidence(mean, mean - reach, mean + reach, np.minimum(p, 1), np.minimum(p_against, 1))


def outcome(p: np.ndarray, p_against: np.ndarray) -> np.ndarray:
    """Return the raw outcome: 1 reproduced, -1 contradicted, 0 inconclusive; elementwise.

    Where an effect is established but one of delta is ruled out, the claim is contradicted: what is left is
    smaller than the smallest effect of interest.
    """
    return np.where(np.asarray(p_against) <= ALPHA, -1, np.where(np.asarray(p) <= ALPHA, 1, 0))


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's step-down adjusted p-values of the families `p` [..., m]."""
    p = np.asarray(p, dtype=float)
    m = p.shape[-1]
    order = np.argsort(p, axis=-1)
    stepped = np.maximum.accumulate(np.take_along_axis(p, order, -1) * np.arange(m, 0, -1), axis=-1)
    adjusted = np.empty_like(p)
    np.put_along_axis(adjusted, order, np.minimum(stepped, 1), axis=-1)
    return adjusted


def adjust_family(p: np.ndarray, p_against: np.ndarray, equal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Adjust the p-values [..., m] of one paper's m tested claims; `equal` [m] marks equality claims.

    Statements and denials form one Holm family each, and each is given half of the 5 %: doubled one-sided
    p-values against ALPHA are just that for directional claims, and p-values of equality claims are doubled
    here. By the union bound over the two families a paper then gets a wrong verdict at most 5 % of the time,
    whatever the dependence between its claims (they share seeds and methods). A claim alone is a family of one:
    on its margin an equality claim errs by 5 % in its statement and 2.5 % in its denial unless it is doubled.
    """
    factor = np.where(equal, 2.0, 1.0)
    return holm(np.minimum(p * factor, 1)), holm(np.minimum(p_against * factor, 1))


@cache
def detectable_effect(n: int, power: float = 0.8) -> float:
    """Smallest true effect, in standard deviations of a seed difference, that a directional claim finds.

    "Finds": the 2.5 % one-sided t test of n paired differences rejects ``d <= 0`` with probability `power`.
    By symmetry it is also the distance below delta from which the claim is contradicted with that
    probability.
    """
    critical = t_quantile(1 - ALPHA / 2, n - 1)
    return _solve(lambda d: 1 - float(nctdtr(n - 1, d * np.sqrt(n), critical)), power)


@cache
def equality_margin(n: int, power: float = 0.8, alpha: float = ALPHA) -> float:
    """Smallest margin delta, in standard deviations of a seed difference, in which TOST at `alpha` proves a true
    effect of 0. Verdicts give a statement half of ALPHA.

    The power is the integral over the sample standard deviation s of P(|mean| < delta - t s / sqrt(n)).
    """
    df, critical = n - 1, t_quantile(1 - alpha, n - 1)
    s = np.linspace(0, 4, 4001)[1:]
    density = s ** (df - 1) * np.exp(-df * s**2 / 2)
    density /= density.sum()
    return _solve(lambda d: float(density @ np.clip(2 * ndtr(np.sqrt(n) * d - critical * s) - 1, 0, None)), power)


def _solve(power_of, power: float) -> float:
    """Return the effect at which the increasing function `power_of` reaches `power`, by bisection."""
    low, high = 0.0, 1.0
    while power_of(high) < power:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if power_of(middle) < power else (low, middle)
    return high
