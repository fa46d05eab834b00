"""Bias and variance of an estimator on problems whose gradient is known, by Monte Carlo."""

import numpy as np
from torch import Generator, Tensor

from replications.layers.gradients.distributions import Gaussian, OneHot
from replications.layers.gradients.model import Estimator, Problem
from replications.tasks.gradient_estimation.options import GradientOptions
from replications.tasks.gradient_estimation.problems import Problems, gaussian_problems, one_hot_problems
from replications.tasks.run import number_name
from replications.training.determinism import generator_for

CHUNK = 2000  # estimates at a time: their arrays stay in a processor's cache


def measure(estimator: Estimator, options: GradientOptions, seed: int) -> dict[str, np.ndarray]:
    """Return what the estimator does on each kind of problem that it applies to, as arrays that metrics follow from.

    For a case ``one_hot``, ``tau<t>`` (the same at temperature t) or ``dim<n>`` there are ``exact_<case>`` and
    ``mean_<case>`` ``[problems, parameters]``, and ``variance_<case>`` ``[problems]``, the sum over the parameters
    of the variance of one estimate.
    """
    found = {"samples": np.array(options.samples), "evaluations": np.array(estimator.evaluations)}

    def add(case: str, problems: Problems) -> None:
        rows = []
        for number, problem in enumerate(problems):
            exact, generator = problem.exact().flatten(), generator_for(seed, case, number)
            rows.append((exact.numpy(), *moments(estimator, problem, exact, options.samples, generator)))
        for name, values in zip(("exact", "mean", "variance"), zip(*rows, strict=True), strict=True):
            found[f"{name}_{case}"] = np.stack(values)

    if OneHot in estimator.families:
        add("one_hot", one_hot_problems(options, seed))
        own = estimator.temperature
        for temperature in options.temperatures if own is not None else ():
            estimator.temperature = temperature
            add(f"tau{number_name(temperature)}", one_hot_problems(options, seed))
        estimator.temperature = own
    for dimension in options.dimensions if Gaussian in estimator.families else ():
        add(f"dim{dimension}", gaussian_problems(options, dimension, seed))
    return found


def moments(
    estimator: Estimator, problem: Problem, exact: Tensor, samples: int, generator: Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean of the estimates ``[parameters]``, and the variance of one, summed over the parameters."""
    total, squares = 0.0, 0.0
    for part in np.array_split(np.arange(samples), -(-samples // CHUNK)):
        # About the exact gradient, so that squares of large equal parts are not subtracted.
        apart = estimator.gradient(problem, problem.parameter, len(part), generator).flatten(1) - exact
        total += apart.sum(0)
        squares += float(apart.square().sum())
    variance = (squares - float(total.square().sum()) / samples) / (samples - 1)
    return (exact + total / samples).numpy(), np.array(variance)
