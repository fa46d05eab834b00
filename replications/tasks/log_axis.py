"""Logarithmic axes: ticks at round values, as many as their labels have room for, for any range."""

import math
from collections.abc import Callable
from itertools import pairwise

from matplotlib import rcParams
from matplotlib.axis import Axis
from matplotlib.font_manager import FontProperties
from matplotlib.ticker import Locator, MaxNLocator, NullLocator

WITHIN_DECADES = ((1, 2, 5), (1, 3), (1,))  # from close to far
CLOSE = (1, 1.5, 2, 3, 4, 5, 6, 8)
MOST = 9  # ticks: more are no help
CHARACTER = 0.65  # width by height, of a wide one


def log_axis(axis: Axis, label: Callable[[float, int], str] = lambda value, _: f"{value:g}") -> None:
    """Make an axis logarithmic, if it is not yet. `label` is a matplotlib formatter, or its function."""
    if axis.get_scale() == "linear":
        axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.set_major_locator(LogTicks())
    axis.set_major_formatter(label)
    axis.set_minor_locator(NullLocator())


class LogTicks(Locator):
    """Finds as many round values as have room for their labels, at the length in which the axis is drawn."""

    def __call__(self) -> list[float]:
        low, high = sorted(self.axis.get_view_interval())
        choices = [self.tick_values(low, high, most) for most in range(MOST, 1, -1)]
        return next((values for values in choices if self._fit(values, low, high)), choices[-1][:1])

    def tick_values(self, vmin: float, vmax: float, most: int = MOST) -> list[float]:
        return round_values(vmin, vmax, most)

    def _fit(self, values: list[float], low: float, high: float) -> bool:
        axes, name = self.axis.axes, self.axis.axis_name
        font = FontProperties(size=rcParams[f"{name}tick.labelsize"]).get_size_in_points()
        length = (axes.bbox.width if name == "x" else axes.bbox.height) * 72 / axes.figure.dpi
        places = [length * math.log(value / low) / math.log(high / low) for value in values]
        if name == "x":
            sizes = [font * CHARACTER * (len(text) + 1) for text in self.axis.major.formatter.format_ticks(values)]
        else:
            sizes = [1.4 * font] * len(values)
        pairs = zip(pairwise(places), pairwise(sizes), strict=True)
        return all(after - before >= (one + other) / 2 for (before, after), (one, other) in pairs)


def round_values(low: float, high: float, most: int) -> list[float]:
    """Return up to `most` round values from `low` to `high`, evenly spread on a log scale; at least two where they can.

    Raises ValueError where the ends are not positive, finite and in order.
    """
    if not 0 < low < high < math.inf:
        raise ValueError(f"no log axis from {low} to {high}")
    most = max(most, 2)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))

    def within(multiples: tuple[float, ...], every: int = 1) -> list[float]:
        exponents = [e for e in range(first, last + 1) if e % every == 0]
        values = [float(f"{m}e{e}") for e in exponents for m in multiples]
        return [value for value in values if low <= value <= high]

    sparser = [within(multiples) for multiples in WITHIN_DECADES]
    sparser += [within((1,), every) for every in range(2, last - first + 2)]
    even = [value for value in _even(low, high) if low <= value <= high]
    closer = [within(CLOSE), *(even[::every] for every in (1, 2, 3))]
    choices = [*sparser, *closer] if len(sparser[0]) > 2 else [*closer, *sparser]
    fitting = [values for values in choices if len(values) <= most]
    return next((values for values in fitting if len(values) > 2), max(fitting, key=len))


def _even(low: float, high: float) -> list[float]:
    return [float(value) for value in MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)]
