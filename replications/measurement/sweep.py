"""How cost grows with size: the exponent p of cost ~ n^p, and the size at which two methods cost the same.

Repeated timings at one size share that size's cache and kernel choice, so they are not independent: a size counts as
one observation, its median. A constant overhead flattens the curve at small sizes and pulls the exponent down: begin a
sweep where the work outweighs the overhead.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from replications.errors import UserError


@dataclass(frozen=True)
class PowerLaw:
    """A fitted ``cost = scale * size**exponent``; `low` and `high` bound the exponent."""

    exponent: float
    low: float
    high: float
    scale: float


@dataclass(frozen=True)
class Crossover:
    """The size at which two methods cost the same; `low` and `high` bound it, 0 and infinity where one is open."""

    size: float
    low: float
    high: float


@dataclass(frozen=True)
class _Line:
    """A least-squares line ``y = mean_y + slope * (x - mean_x)`` with what its intervals need."""

    mean_x: float
    mean_y: float
    slope: float
    spread: float  # sum of squares of x about its mean
    error: float  # residual standard deviation
    points: int
    t: float  # two-sided quantile of Student's t at points - 2 degrees of freedom


def sweep(measure: Callable[[int], Sequence[float]], sizes: Sequence[int]) -> list[float]:
    """Return the median of `measure(size)` (raw seconds, bytes or FLOPs) for each size."""
    return [statistics.median(measure(size)) for size in sizes]


def fit_power_law(sizes: Sequence[float], costs: Sequence[float], level: float = 0.95) -> PowerLaw:
    """Fit the exponent by least squares on logarithms, with a t interval.

    Raises UserError for fewer than three different sizes, and where a size or cost is not positive.
    """
    line = _fit(_logarithms(sizes), _logarithms(costs), level)
    half = line.t * line.error / math.sqrt(line.spread)
    scale = math.exp(line.mean_y - line.slope * line.mean_x)
    return PowerLaw(line.slope, line.slope - half, line.slope + half, scale)


def crossover(
    sizes: Sequence[float], costs: Sequence[float], other_costs: Sequence[float], level: float = 0.95
) -> Crossover | None:
    """Find where two methods that were measured at the same sizes cost the same.

    Fits a line to the logarithm of their quotient; the interval holds every size at which the line's t interval
    covers zero (Fieller's theorem). None if the two exponents do not differ significantly at `level`.
    """
    x = _logarithms(sizes)
    line = _fit(x, _logarithms(costs) - _logarithms(other_costs), level)
    # Zero of the line, and roots of (mean_y + slope d)^2 = (t error)^2 (1/points + d^2 / spread) in d = x - mean_x.
    margin = (line.t * line.error) ** 2
    a = line.slope**2 - margin / line.spread
    if a <= 0:
        return None
    b, c = line.mean_y * line.slope, line.mean_y**2 - margin / line.points
    half = math.sqrt(max(b * b - a * c, 0.0))
    middle = line.mean_x - line.mean_y / line.slope
    return Crossover(_exp(middle), _exp(line.mean_x + (-b - half) / a), _exp(line.mean_x + (-b + half) / a))


def _exp(x: float) -> float:
    return math.exp(x) if x < 700 else math.inf  # an interval may reach beyond the range of floats


def _logarithms(values: Sequence[float]) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    if not (values > 0).all():
        raise UserError("a power law needs sizes and costs greater than zero: leave the others out")
    return np.log(values)


def _fit(x: np.ndarray, y: np.ndarray, level: float) -> _Line:
    from scipy.special import stdtrit  # scipy.stats has the same, and takes a second to import

    if len(np.unique(x)) < 3:
        raise UserError(f"a power law needs at least three different sizes, not {len(np.unique(x))}: measure more")
    dx, dy = x - x.mean(), y - y.mean()
    spread = float(dx @ dx)
    slope = float(dx @ dy) / spread
    freedom = len(x) - 2
    error = math.sqrt(float(np.square(dy - slope * dx).sum()) / freedom)
    quantile = float(stdtrit(freedom, (1 + level) / 2))
    return _Line(float(x.mean()), float(y.mean()), slope, spread, error, len(x), quantile)
