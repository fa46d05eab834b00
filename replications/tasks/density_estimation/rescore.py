"""Metrics derived again from the log-probabilities and bounds that a run left in its arrays."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

BOUNDS = {"elbo": 1, "bound_5": 5, "bound_50": 50, "bound_500": 500}  # metric -> samples


def rescore(arrays: Mapping[str, Any]) -> dict[str, float]:
    """Return the NLL in nats and bits, and what else follows from ``log_prob`` [N] or ``bounds`` [N, 4]."""
    found = {}
    if "bounds" in arrays:
        means = np.asarray(arrays["bounds"]).mean(0)
        found = dict(zip(BOUNDS, means.tolist(), strict=True))
        found["bound_fall"] = float(max(0.0, -np.diff(means).min()))
        found["nll"] = -found["bound_500"]
    else:
        found["nll"] = -float(np.mean(arrays["log_prob"]))
    found["bits_per_dim"] = found["nll"] / (math.log(2) * int(arrays["pixels"]))
    if "grid_log_prob" in arrays:
        found["grid_log_prob"] = float(np.mean(arrays["grid_log_prob"]))
        found["bound_excess"] = found["bound_500"] - found["grid_log_prob"]
    for name, metric in (("log_prob_one_order", "nll_one_order"), ("pseudo_log_prob", "pseudo_nll")):
        if name in arrays:
            found[metric] = -float(np.mean(arrays[name]))
    if "predicted" in arrays:
        found["label_accuracy"] = 100 * float(np.mean(arrays["predicted"] == arrays["label"]))
        found["nll_joint"] = -float(np.mean(arrays["log_joint"]))
    return found
