"""Threshold units: what they compute, against weights found by search."""

from itertools import product

import pytest

from replications.papers.perceptron.model import best_accuracy, build, functions_of, points


@pytest.mark.parametrize("bias", [True, False])
def test_functions_of_two_inputs_are_those_of_a_search_over_weights(bias):
    x, weights = points(2), (-2, -1, 0, 1, 2)
    biases = (-3.5, -2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 3.5) if bias else (0,)
    seen = {tuple(int(a * p + b * q + c > 0) for p, q in x) for a, b in product(weights, repeat=2) for c in biases}
    assert set(functions_of(x, bias)) == seen
    assert len(seen) == (14 if bias else 6)


def test_the_best_accuracies_of_and_and_xor():
    assert best_accuracy(points(2), (0, 0, 0, 1), False) == 75
    assert best_accuracy(points(2), (0, 0, 0, 1), True) == 100
    assert best_accuracy(points(2), (0, 1, 1, 0), True) == 75


def test_what_a_row_measures():
    found = build(1, bias=True)
    assert list(found.found) == list(found.stated) == [4, 14, 104]
    assert found.metrics["functions_share"] == pytest.approx(100 * 104 / 256)
    assert build(1, bias=False).metrics["functions_share"] < 50
