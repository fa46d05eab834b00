"""What a row of the task returns: the two sides of its identity, its metrics, and what pictures are drawn from."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from replications.records import Curve


@dataclass
class Measured:
    """A row's findings.

    `found` and `stated` are the two sides of what the row says is equal, in any shape and one unit (pixels, bytes,
    values); the task makes ``identity_error`` of them. `curves` and `arrays` are for pictures, `told` for a reader
    (what was not measured, and why). Rows of one `category` share a table.
    """

    category: str
    found: ArrayLike
    stated: ArrayLike
    metrics: dict[str, float] = field(default_factory=dict)
    curves: dict[str, Curve] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    told: dict[str, Any] = field(default_factory=dict)


def log_slope(x: ArrayLike, y: ArrayLike) -> float:
    """Return the exponent p of ``y = c x^p``, by least squares on logarithms. Raises ValueError below two points."""
    x, y = np.log(np.asarray(x, float)), np.log(np.asarray(y, float))
    if len(x) < 2:
        raise ValueError("an exponent needs two points or more")
    return float(np.polyfit(x, y, 1)[0])
