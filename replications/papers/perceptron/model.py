"""What a bias is for: which Boolean functions a threshold unit computes with it and without (Rosenblatt, 1958).

The unit says 1 where ``w x + b > 0``. Whether weights exist for a function is a linear programme: no training.
"""

from itertools import product

import numpy as np
from scipy.optimize import linprog

from replications.layers.systems.measured import Measured

SEPARABLE = {1: 4, 2: 14, 3: 104}  # functions of so many inputs that a unit with a bias computes (Muroga, 1971)
INPUTS = 3


def build(draws: int, *, bias: bool) -> Measured:
    """Count the functions of 1 to 3 inputs that the unit computes, and the points of AND that it gets right at best.

    The statement: with a bias the counts are those of the literature; without, every function that the unit computes
    is 0 where all inputs are 0. `draws` is not used: everything is enumerated.
    """
    computed = {n: functions_of(points(n), bias) for n in SEPARABLE}
    metrics = {
        "functions_share": 100 * len(computed[INPUTS]) / 2 ** (2**INPUTS),
        "and_accuracy": best_accuracy(points(2), (0, 0, 0, 1), bias),
        "xor_accuracy": best_accuracy(points(2), (0, 1, 1, 0), bias),
    }
    if bias:
        found, stated = [len(functions) for functions in computed.values()], list(SEPARABLE.values())
    else:
        found, stated = [sum(f[0] for f in functions) for functions in computed.values()], [0] * len(computed)
    return Measured("threshold units", found, stated, metrics)


def points(inputs: int) -> np.ndarray:
    """Return all inputs, ``[2^inputs, inputs]``; the first is all zeros."""
    return np.array(list(product((0, 1), repeat=inputs)))


def computes(x: np.ndarray, function: tuple[int, ...], bias: bool) -> bool:
    """Whether weights exist with ``w x + b >= 1`` where `function` is 1 and ``<= 0`` where it is 0.

    On finitely many points a margin of 1 is no restriction: weights can be scaled.
    """
    if bias:
        x = np.column_stack([x, np.ones(len(x))])
    sign = 1 - 2 * np.array(function)  # a row of ones becomes -w x <= -1
    found = linprog(np.zeros(x.shape[1]), sign[:, None] * x, -np.array(function), bounds=(None, None))
    return found.status == 0


def best_accuracy(x: np.ndarray, function: tuple[int, ...], bias: bool) -> float:
    """Return the most points that any weights get right, in per cent."""
    right = [sum(a == b for a, b in zip(f, function, strict=True)) for f in functions_of(x, bias)]
    return 100 * max(right) / len(x)


def functions_of(x: np.ndarray, bias: bool) -> list[tuple[int, ...]]:
    """Return the functions of the points that some weights compute."""
    return [f for f in product((0, 1), repeat=len(x)) if computes(x, f, bias)]
