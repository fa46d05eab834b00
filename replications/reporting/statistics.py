"""Intervals, tests and multiplicity adjustment behind a verdict, vectorised over leading dimensions.

Seeds are the unit of replication. Subject and reference share a seed's data order, so they are compared seed by
seed, and the interval is Student's t on the n differences (n - 1 degrees of freedom). A bootstrap over three values
does not reach its coverage; the t interval does if differences are near normal, but it is wide.

With d the effect in the claimed direction and delta the smallest effect of interest, a directional claim has
two null hypotheses, each tested one-sided at 2.5 % (so both are read off the 95 % interval):

* ``d <= 0``: if rejected, the claimed direction is established;
* ``d >= delta``: if rejected, an effect of interest is ruled out.

An `equal` claim has ``|d| >= delta`` (two one-sided tests at 5 %, TOST: the 90 % interval is inside ±delta)
and ``|d| <= delta`` (the 95 % interval is wholly outside).

A claim is tested at several looks (`replications.looks`); look k has the share w_k of ALPHA. The sequential p-value
after a look is the smallest p_k / w_k so far: by the union bound it is at most ALPHA with a probability of at most
ALPHA under the null, for any number of looks and any stopping rule.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import stdtr, stdtrit

from replications.looks import LOOKS, WEIGHTS, looks_of

ALPHA = 0.05
FEWEST = LOOKS[0]  # pairs that a look needs: the t test of two is dominated by rounding


class Evidence(NamedTuple):
    """The evidence of n effects on a claim; arrays over the leading dimensions of the effects.

    `effect`, `lower`, `upper` (95 %) keep the sign of the effects. `p` belongs to the claim's own statement
    (null: no effect, or not equal), `p_against` to its denial (null: the effect is at least delta, or equal).
    Both are on the scale of ALPHA: one-sided p-values of directional claims are doubled. NaN if the
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
    """Compute the evidence of paired effects [..., n] (subject minus reference, one per seed) on a claim.

    `direction` is ``greater``, ``less`` or ``equal``, `smallest` the smallest effect of interest (delta). The
    variance of the mean is the sample variance times `variance_factor`, 1/n where not given. A spread of at
    most `resolution` (the rounding error of the values that were subtracted) counts as none. Effects that are NaN
    are left out.
    """
    effects = np.asarray(effects, dtype=float)
    kept = np.isfinite(effects)
    n = kept.sum(-1)
    df = n - 1
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.where(kept, effects, 0).sum(-1) / n
        spread = np.sqrt((np.where(kept, effects - mean[..., None], 0) ** 2).sum(-1) / df)
        # Effects that agree up to rounding give no estimate of the spread: a zero-width interval would mislead.
        spread = np.where((df < 1) | (spread <= resolution + 1e-9 * np.abs(mean)), np.nan, spread)
        error = spread * np.sqrt(1 / n if variance_factor is None else variance_factor)
        reach = stdtrit(df, 1 - ALPHA / 2) * error
        if direction == "equal":
            p = stdtr(df, (np.abs(mean) - smallest) / error)
            p_against = 2 * stdtr(df, (smallest - np.abs(mean)) / error)
        else:
            d = mean if direction == "greater" else -mean
            p = 2 * stdtr(df, -d / error)
            p_against = 2 * stdtr(df, (d - smallest) / error)
    return Evidence(mean, mean - reach, mean + reach, np.minimum(p, 1), np.minimum(p_against, 1))


def at_looks(
    effects: np.ndarray,
    direction: str,
    smallest: float,
    one_sided: np.ndarray | None = None,
    resolution: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the p-values, for and against, of effects [..., n] at each look that n seeds complete: [..., looks].

    Arguments as in `weigh`. `one_sided` [..., n] marks seeds that failed on one side only: a look that has one
    contributes nothing (p is 1), nor does one of fewer than `FEWEST` pairs, or of effects that do not vary.
    """
    effects = np.asarray(effects, dtype=float)
    lost = np.zeros(effects.shape, bool) if one_sided is None else np.asarray(one_sided)
    sizes = LOOKS[: looks_of(effects.shape[-1])]
    p, p_against = np.ones((2, *effects.shape[:-1], len(sizes)))
    for k, size in enumerate(sizes):
        found = weigh(effects[..., :size], direction, smallest, resolution=resolution)
        enough = np.isfinite(effects[..., :size]).sum(-1) >= FEWEST
        counts = enough & ~lost[..., :size].any(-1) & np.isfinite(found.p)
        p[..., k] = np.where(counts, found.p, 1)
        p_against[..., k] = np.where(counts, found.p_against, 1)
    return p, p_against


def sequential(p: np.ndarray, weights: Sequence[float] = WEIGHTS) -> np.ndarray:
    """Return the sequential p-values after each look, of those `p` [..., looks] at the looks."""
    p = np.asarray(p, dtype=float)
    return np.minimum.accumulate(np.minimum(p / np.array(weights[: p.shape[-1]]), 1), axis=-1)


def outcome(p: np.ndarray, p_against: np.ndarray) -> np.ndarray:
    """Return the raw outcome: 1 reproduced, -1 contradicted, 0 inconclusive; elementwise.

    If an effect is established but one of delta is ruled out, the claim is contradicted: the effect is smaller than
    the smallest effect of interest.
    """
    return np.where(np.asarray(p_against) <= ALPHA, -1, np.where(np.asarray(p) <= ALPHA, 1, 0))


def first_outcome(p: np.ndarray, p_against: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the raw outcome, as `outcome` has it, of sequential p-values [..., looks], and the look that decided.

    The first decision is final: an effect that was established is not called contradicted when a later look
    rules out one of delta. Looks count from 1; 0 means that none decided.
    """
    each = outcome(p, p_against)
    decided = each != 0
    first = decided.argmax(-1)
    found = np.take_along_axis(each, first[..., None], -1)[..., 0]
    return found, np.where(decided.any(-1), first + 1, 0)


def confirmed(raw: np.ndarray, p_holm: np.ndarray, p_against_holm: np.ndarray) -> np.ndarray:
    """Return the adjusted outcome: the raw one if its adjusted p-value is small enough, else 0; elementwise."""
    return np.where(np.where(raw == 1, p_holm, p_against_holm) <= ALPHA, raw, 0)


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's step-down adjusted p-values of the families `p` [..., m]."""
    p = np.asarray(p, dtype=float)
    m = p.shape[-1]
    order = np.argsort(p, axis=-1)
    stepped = np.maximum.accumulate(np.take_along_axis(p, order, -1) * np.arange(m, 0, -1), axis=-1)
    adjusted = np.empty_like(p)
    np.put_along_axis(adjusted, order, np.minimum(stepped, 1), axis=-1)
    return adjusted


def holm_factors(p: np.ndarray) -> np.ndarray:
    """Return Holm's factor for each p-value of a family `p` [m]: the number of p-values that are not smaller."""
    return (p[None, :] >= p[:, None]).sum(1)


def benjamini_hochberg(p: np.ndarray) -> np.ndarray:
    """Benjamini and Hochberg's adjusted p-values of the family `p` [m]: they control the false discovery rate."""
    order = np.argsort(p)[::-1]
    stepped = np.minimum.accumulate(p[order] * len(p) / np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted


def adjust_family(p: np.ndarray, p_against: np.ndarray, equal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Adjust the p-values [..., m] of one paper's m tested claims; `equal` [m] marks equality claims.

    Statements and denials form one Holm family each, with half of the 5 % each: doubled one-sided
    p-values against ALPHA are just that for directional claims, and p-values of equality claims are doubled
    here. By the union bound over the two families a paper then gets a wrong verdict at most 5 % of the time,
    whatever the dependence between its claims (they share seeds and methods). A claim alone is a family of one:
    on its margin an equality claim errs by 5 % in its statement and 2.5 % in its denial unless it is doubled.
    """
    factor = np.where(equal, 2.0, 1.0)
    return holm(np.minimum(p * factor, 1)), holm(np.minimum(p_against * factor, 1))
