"""How likely a claim is to be decided at a later look, given the effects that are known."""

from functools import cache

import numpy as np

from replications import looks
from replications.reporting import statistics

DRAWS = 1000
# Of a claim that fewer than two effects are known of: share decided by each look, of the 91 claims that tier mini can
# test, simulated with the effects and spreads of the published records.
SHARES = (16 / 91, 48 / 91, 62 / 91, 67 / 91)


@cache
def power(
    effects: tuple[float, ...], direction: str, margin: float, n_next: int, alpha: float, alpha_against: float
) -> float:
    """Return the chance that a claim undecided at `effects` (by seed; logarithms of a ratio) is decided by `n_next`.

    Mean and spread are drawn from what the effects say of them (a normal model, prior 1/sd), the effects to come from
    those, and each look on the way is taken. `alpha` and `alpha_against` are what the p-values of the claim and of its
    denial are compared with, on the scale of statistics.ALPHA: less than it among other claims of a paper. With fewer
    than two effects it is the share of claims that such a look has decided, whatever the margin; without any spread 0.
    """
    n = len(effects)
    if n < 2:
        return SHARES[looks.looks_of(n_next) - 1]
    known = np.array(effects)
    spread = known.std(ddof=1)
    if spread <= 1e-9 * abs(known.mean()):
        return 0.0
    random = np.random.default_rng(0)
    sd = spread * np.sqrt((n - 1) / random.chisquare(n - 1, DRAWS))
    mean = known.mean() + sd / np.sqrt(n) * random.standard_normal(DRAWS)
    to_come = mean[:, None] + sd[:, None] * random.standard_normal((DRAWS, max(looks.LOOKS)))
    full = np.hstack([np.tile(known, (DRAWS, 1)), to_come])[:, :n_next]
    p, p_against = sequential(full, direction, margin)
    return float(np.mean((p <= alpha) | (p_against <= alpha_against)))


def sequential(effects: np.ndarray, direction: str, margin: float) -> tuple[np.ndarray, np.ndarray]:
    """Return p-values of a claim and of its denial over the looks that `effects` [..., seeds] allow.

    Each is the least over looks of p / weight, at most 1; those of an equality are doubled, as in a paper's family.
    """
    factor = 2.0 if direction == "equal" else 1.0
    best = np.ones((2, *effects.shape[:-1]))
    for size, weight in zip(looks.LOOKS, looks.WEIGHTS, strict=True):
        if size <= effects.shape[-1]:
            evidence = statistics.weigh(effects[..., :size], direction, margin)
            both = np.array([evidence.p, evidence.p_against]) * factor / weight
            best = np.fmin(best, both)  # NaN, of effects that agree, decides nothing
    return best[0], best[1]
