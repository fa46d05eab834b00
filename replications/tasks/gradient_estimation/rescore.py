"""Metrics from the arrays of a run."""

from collections.abc import Mapping
from typing import Any

import numpy as np


def rescore(arrays: Mapping[str, Any]) -> dict[str, float]:
    """Derive bias, variance and bound again, problem by problem."""
    found = {name: float(np.sum(arrays[name]) / len(arrays[name])) for name in ("nelbo", "kl") if name in arrays}
    ratios = []
    for key in [name for name in arrays if name.startswith("exact_")]:
        case = key.split("_", 1)[1]
        end = "" if case == "one_hot" else f"_{case}"
        rows = list(zip(arrays[key], arrays[f"mean_{case}"], arrays[f"variance_{case}"], strict=True))
        size = sum(exact @ exact for exact, _, _ in rows)
        missed = sum((mean - exact) @ (mean - exact) for exact, mean, _ in rows)
        noise = sum(variance for _, _, variance in rows)
        found[f"bias{end}"] = float((missed / size) ** 0.5)
        found[f"bias_error{end}"] = float((noise / size / arrays["samples"]) ** 0.5)
        found[f"variance{end}"] = float(arrays["evaluations"] * noise / size)
        if not case.startswith("tau"):
            ratios.append(missed / noise * arrays["samples"])
    return found | {"bias_in_errors": float(np.mean(ratios) ** 0.5)}
