"""The row's statement, judged again from the arrays that the run kept."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


def rescore(arrays: Mapping[str, Any]) -> dict[str, float]:
    """Return ``identity_error`` of a run's two sides."""
    return {"identity_error": identity_error(arrays["found"], arrays["stated"])}


def identity_error(found: ArrayLike, stated: ArrayLike) -> float:
    """Return the largest absolute difference. Raises ValueError where the sides differ in shape or are empty."""
    found, stated = np.asarray(found, float), np.asarray(stated, float)
    if found.shape != stated.shape or not found.size:
        raise ValueError(f"the sides of a statement have the shapes {found.shape} and {stated.shape}")
    return float(np.abs(found - stated).max())
