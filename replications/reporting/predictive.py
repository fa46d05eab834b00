"""How likely a claim is to be decided by each later look, given its known effects (a predictive distribution)."""

from functools import cache

import numpy as np

from replications import looks
from replications.reporting import statistics

DRAWS = 2000
# Prior for a claim with fewer than two known effects: share of the 91 claims testable in tier mini that each look
# decides, simulated with the effects and spreads of the published records.
SHARES = (16 / 91, 48 / 91, 62 / 91, 67 / 91)


@cache
def power(
    effects: tuple[float, ...],
    direction: str,
    margin: float,
    alpha: float,
    alpha_against: float,
    elsewhere: bool = False,
) -> tuple[float, ...]:
    """Return the chance, by look, that a claim undecided at `effects` is decided by then: 0 for past looks.

    With `elsewhere` the effects are another machine's: an estimate of mean and spread only, and no look is past.

    Effects are by seed; of a ratio, logarithms. Mean and spread are drawn from their posterior (normal model, prior
    1/sd), and the future effects from these. `alpha` and `alpha_against` are the levels for the p-values of the claim
    and of its denial, on the scale of statistics.ALPHA; they are smaller if the paper has other claims. With fewer
    than two effects the chance is the share of claims that such a look decides, for any margin; with no spread it
    is 0.
    """
    n = len(effects)
    if n < 2:
        return SHARES
    known = np.array(effects)
    spread = known.std(ddof=1)
    if spread <= 1e-9 * abs(known.mean()):
        return (0.0,) * len(looks.LOOKS)
    random = np.random.default_rng(0)
    sd = spread * np.sqrt((n - 1) / random.chisquare(n - 1, DRAWS))
    mean = known.mean() + sd / np.sqrt(n) * random.standard_normal(DRAWS)
    to_come = mean[:, None] + sd[:, None] * random.standard_normal((DRAWS, looks.LOOKS[-1]))
    full = to_come if elsewhere else np.hstack([np.tile(known, (DRAWS, 1)), to_come])
    decided, found = np.zeros(DRAWS, bool), []
    for size, weight in zip(looks.LOOKS, looks.WEIGHTS, strict=True):
        if elsewhere or size > n:
            p, p_against = _at_look(full[:, :size], direction, margin, weight)
            decided |= (p <= alpha) | (p_against <= alpha_against)
        found.append(float(decided.mean()))
    return tuple(found)


def sequential(effects: np.ndarray, direction: str, margin: float) -> tuple[np.ndarray, np.ndarray]:
    """Return p-values of a claim and of its denial over the looks that `effects` [..., seeds] allow.

    Each is the least over looks of p / weight, at most 1; those of an equality are doubled, as in a paper's family.
    """
    best = np.ones((2, *effects.shape[:-1]))
    for size, weight in zip(looks.LOOKS, looks.WEIGHTS, strict=True):
        if size <= effects.shape[-1]:
            best = np.fmin(best, _at_look(effects[..., :size], direction, margin, weight))
    return best[0], best[1]


def _at_look(effects: np.ndarray, direction: str, margin: float, weight: float) -> np.ndarray:
    """P-values [2, ...] of statement and denial at one look; NaN (undecided) if all effects agree."""
    evidence = statistics.weigh(effects, direction, margin)
    return np.array([evidence.p, evidence.p_against]) * (2 if direction == "equal" else 1) / weight
