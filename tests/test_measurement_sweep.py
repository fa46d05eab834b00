"""Exponents and crossings of cost curves on made-up data with known answers."""

import math

import numpy as np
import pytest

from replications.errors import UserError
from replications.measurement.sweep import crossover, fit_power_law, sweep

SIZES = [256, 512, 1024, 2048, 4096, 8192]


def noisy(exponent, scale, sigma, generator):
    return [scale * n**exponent * math.exp(sigma * generator.standard_normal()) for n in SIZES]


def test_exact_power_law():
    law = fit_power_law(SIZES, [3e-6 * n**2 for n in SIZES])
    assert law.exponent == pytest.approx(2) and law.scale == pytest.approx(3e-6)
    assert law.low == pytest.approx(2) and law.high == pytest.approx(2)


def test_interval_covers_the_exponent_as_often_as_it_says():
    generator = np.random.default_rng(0)
    fits = [fit_power_law(SIZES, noisy(1.0, 1e-3, 0.1, generator)) for _ in range(1000)]
    covered = np.mean([law.low <= 1.0 <= law.high for law in fits])
    assert 0.93 < covered < 0.97


def test_linear_and_quadratic_are_told_apart():
    generator = np.random.default_rng(1)
    linear, quadratic = (fit_power_law(SIZES, noisy(p, 1e-3, 0.05, generator)) for p in (1, 2))
    assert linear.high < 1.5 < quadratic.low


def test_crossover_of_exact_curves():
    found = crossover(SIZES, [1e-4 * n for n in SIZES], [1e-7 * n**2 for n in SIZES])
    assert found.size == pytest.approx(1000)
    assert found.low == pytest.approx(1000) and found.high == pytest.approx(1000)


def test_crossover_interval_covers_as_often_as_it_says():
    generator = np.random.default_rng(2)
    found = [crossover(SIZES, noisy(1, 1e-4, 0.1, generator), noisy(2, 1e-7, 0.1, generator)) for _ in range(1000)]
    assert all(cross is not None and cross.low < cross.size < cross.high for cross in found)
    assert 0.93 < np.mean([cross.low <= 1000 <= cross.high for cross in found]) < 0.97


def test_no_crossover_where_the_exponents_do_not_differ():
    generator = np.random.default_rng(3)
    found = [crossover(SIZES, noisy(1, 1.0, 0.1, generator), noisy(1, 1.1, 0.1, generator)) for _ in range(1000)]
    assert np.mean([cross is not None for cross in found]) < 0.07


def test_a_crossing_beyond_all_sizes_does_not_overflow():
    almost = [n * (1 + 1e-12 * i) for i, n in enumerate(SIZES)]
    found = crossover(SIZES, [2.0 * n for n in SIZES], almost)
    assert found is None or found.high >= found.size


def test_sweep_takes_medians():
    assert sweep(lambda n: [n, 2 * n, 100 * n], [1, 2]) == [2, 4]


@pytest.mark.parametrize(
    ("sizes", "costs", "message"),
    [
        ([1, 2, 2], [1, 2, 2], "three different sizes, not 2"),
        ([1, 2, 3], [1, 0, 2], "greater than zero"),
        ([0, 2, 3], [1, 1, 2], "greater than zero"),
    ],
)
def test_what_cannot_be_fitted(sizes, costs, message):
    with pytest.raises(UserError, match=message):
        fit_power_law(sizes, costs)
