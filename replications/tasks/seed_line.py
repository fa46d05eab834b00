"""A method's line over its seeds, for the pictures of tasks. Imported only while drawing."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from replications.tasks.base import Look


def seed_line(axes: Axes, look: Look, label: str, x: Sequence[float], values: np.ndarray, **style: Any) -> None:
    """Draw the mean of values ``[seeds, x]`` with their range; `style` is of the line alone."""
    axes.plot(x, values.mean(0), color=look.colour, marker=look.marker, linestyle=look.dash, label=label, **style)
    axes.fill_between(x, values.min(0), values.max(0), color=look.colour, alpha=0.15, linewidth=0)
