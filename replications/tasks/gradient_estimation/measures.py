"""Bias and variance of an estimator on problems whose gradient is known, by Monte Carlo."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Generator

from replications.layers.gradients.distributions import Gaussian, OneHot
from replications.layers.gradients.model import Estimator
from replications.tasks.gradient_estimation.options import GradientOptions
from replications.tasks.gradient_estimation.problems import (
    GaussianProblem,
    OneHotProblem,
    gaussian_problems,
    one_hot_problems,
)
from replications.tasks.run import number_name
from replications.training.determinism import generator_for

Arrays = dict[str, np.ndarray]


def measure(estimator: Estimator, options: GradientOptions, seed: int) -> Arrays:
    """Return what the estimator does on each kind of problem that it applies to, as arrays that metrics follow from.

    For a case ``one_hot``, ``tau<t>`` (the same at temperature t) or ``dim<n>`` there are ``exact_<case>`` and
    ``mean_<case>`` ``[problems, parameters]``, and ``variance_<case>`` ``[problems]``, the sum over the parameters
    of the variance of one estimate.
    """
    found: Arrays = {"samples": np.array(options.samples), "evaluations": np.array(estimator.evaluations)}

    def add(case: str, problems: Iterable[OneHotProblem | GaussianProblem]) -> None:
        rows = [estimate(estimator, p, options, generator_for(seed, case, i)) for i, p in enumerate(problems)]
        for name, values in zip(("exact", "mean", "variance"), zip(*rows, strict=True), strict=True):
            found[f"{name}_{case}"] = np.stack(values)

    if OneHot in estimator.families:
        add("one_hot", one_hot_problems(options, seed))
        own = estimator.temperature
        for temperature in options.temperatures if own is not None else ():
            estimator.temperature = temperature
            add(f"tau{number_name(temperature)}", one_hot_problems(options, seed))
        estimator.temperature = own
    if Gaussian in estimator.families:
        for dimension in options.dimensions:
            add(f"dim{dimension}", gaussian_problems(options, dimension, seed))
    return found


def estimate(
    estimator: Estimator, problem: OneHotProblem | GaussianProblem, options: GradientOptions, generator: Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the exact gradient, the mean of the estimates ``[parameters]``, and the variance of one, summed."""
    exact = problem.exact().flatten()
    total, squares = torch.zeros_like(exact), 0.0
    for start in range(0, options.samples, options.chunk):
        count = min(options.chunk, options.samples - start)
        # About the exact gradient, so that squares of large equal parts are not subtracted.
        apart = estimator.gradient(problem, problem.parameter, count, generator).flatten(1) - exact
        total += apart.sum(0)
        squares += float(apart.square().sum())
    n = options.samples
    variance = (squares - float(total.square().sum()) / n) / (n - 1)
    return exact.numpy(), (exact + total / n).numpy(), np.array(variance)


def metrics(found: Arrays) -> dict[str, float]:
    """Return the metrics of what `measure` returned."""
    result = {"evaluations": float(found["evaluations"])}
    biases, errors = [], []
    for case in (name.removeprefix("exact_") for name in found if name.startswith("exact_")):
        scale = np.square(found[f"exact_{case}"]).sum()
        bias = np.sqrt(np.square(found[f"mean_{case}"] - found[f"exact_{case}"]).sum() / scale)
        variance = found[f"variance_{case}"].sum() / scale
        error = np.sqrt(variance / found["samples"])
        end = "" if case == "one_hot" else f"_{case}"
        result |= {f"bias{end}": bias, f"bias_error{end}": error, f"variance{end}": variance * found["evaluations"]}
        if not case.startswith("tau"):
            biases.append(bias)
            errors.append(error)
    result["bias_in_errors"] = np.sqrt(np.mean(np.square(biases) / np.square(errors)))
    taus = [case for case in found if case.startswith("exact_tau")]
    if len(taus) > 1:
        bias, variance = (
            np.array([result[case.replace("exact", figure)] for case in taus]) for figure in ("bias", "variance")
        )
        result |= {"least_bias_rise": (bias[1:] / bias[:-1]).min()}
        result |= {"least_variance_fall": (variance[:-1] / variance[1:]).min()}
    return {name: float(value) for name, value in result.items()}
