"""Metrics from the arrays of a run."""

from collections.abc import Mapping

import numpy as np


def rescore(arrays: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return bias, its Monte-Carlo error and variance by case, squares summed over the problems, and the bound."""
    found = {name: arrays[name].mean() for name in ("nelbo", "kl") if name in arrays}
    ratios, taus = [], []
    for case in [name.removeprefix("exact_") for name in arrays if name.startswith("exact_")]:
        exact, mean = arrays[f"exact_{case}"], arrays[f"mean_{case}"]
        scale = np.square(exact).sum()
        bias = np.sqrt(np.square(mean - exact).sum() / scale)
        variance = arrays[f"variance_{case}"].sum() / scale
        error = np.sqrt(variance / arrays["samples"])
        end = "" if case == "one_hot" else f"_{case}"
        found |= {f"bias{end}": bias, f"bias_error{end}": error, f"variance{end}": variance * arrays["evaluations"]}
        if case.startswith("tau"):
            taus.append((bias, variance))
        else:
            ratios.append(bias / error)
    found["bias_in_errors"] = np.sqrt(np.mean(np.square(ratios)))
    if len(taus) > 1:
        bias, variance = np.array(taus).T
        found["least_bias_rise"] = (bias[1:] / bias[:-1]).min()
        found["least_variance_fall"] = (variance[:-1] / variance[1:]).min()
    return {name: float(value) for name, value in found.items()}
