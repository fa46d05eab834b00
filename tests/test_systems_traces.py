"""Traces and averages of weights: closed forms against loops, and what breaks them."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from replications.errors import UserError
from replications.papers.trace_determinant import model as traces
from replications.papers.trace_determinant import probes
from replications.papers.weight_averaging import model as averages
from replications.papers.weight_averaging import quadratic
from replications.training.ema import AveragedModule

# Traces


def test_the_variance_of_random_signs_is_that_over_all_sign_vectors():
    matrix = np.random.default_rng(0).normal(size=(5, 5))
    values = [
        sum(a * b * matrix[i, j] for (i, a), (j, b) in itertools.product(enumerate(signs), repeat=2))
        for signs in itertools.product((-1, 1), repeat=5)
    ]
    assert np.mean(values) == pytest.approx(np.trace(matrix))
    assert float(probes.sign_variance(torch.tensor(matrix))) == pytest.approx(np.var(values))
    found = probes.quadratic_forms(torch.tensor(matrix), probes.all_signs(5))
    assert sorted(found.tolist()) == pytest.approx(sorted(values))


def test_all_signs_are_all_of_them():
    signs = probes.all_signs(4)
    assert sorted(map(tuple, signs.tolist())) == sorted(itertools.product((-1.0, 1.0), repeat=4))
    with pytest.raises(UserError, match=r"2\^21 sign vectors are too many"):
        probes.all_signs(21)


def test_a_smoother_keeps_lines_and_shrinks_the_rest():
    matrix = probes.smoother(12)
    line = torch.arange(12).double() * 2 - 3
    assert torch.allclose(matrix @ line, line) and torch.allclose(matrix, matrix.T)
    assert 2 < float(matrix.trace()) < 12


def test_rows_of_traces():
    torch.manual_seed(0)
    row = traces.hutchinson([6], 4000)
    assert row.found.shape == (2, 3) and np.allclose(row.found, row.stated)
    assert row.metrics["variance_ratio"] == pytest.approx(1, abs=0.1) and row.metrics["gaussian_variance_ratio"] > 1.2
    with pytest.raises(UserError, match="probes: 1 of them have no variance"):
        traces.hutchinson([6], 1)


def test_the_determinant_of_an_exponential():
    diagonal = torch.diag(torch.tensor([0.5, -2.0, 300.0, 300.0, 300.0], dtype=torch.float64))
    assert float(traces.log_determinant(diagonal)) == pytest.approx(898.5)  # the determinant itself overflows
    turn = torch.tensor([[0.0, 0.7], [-0.7, 0.0]], dtype=torch.float64)
    assert float(traces.log_determinant(turn)) == pytest.approx(0, abs=1e-12)


def test_divergences_are_traces_of_the_jacobian():
    torch.manual_seed(0)
    field, points = traces.vector_field(5), torch.randn(3, 5, dtype=torch.float64)
    expected = [float(torch.autograd.functional.jacobian(field, point).trace()) for point in points]
    assert traces.exact_divergence(field, points).tolist() == pytest.approx(expected)
    mean = np.mean([traces.probed_divergence(field, points, v.expand(3, 5)).numpy() for v in probes.all_signs(5)], 0)
    assert mean == pytest.approx(np.array(expected))


def test_the_density_of_a_linear_flow_changes_by_the_trace():
    field = nn.Linear(4, 4).double().requires_grad_(False)
    integrated, direct = traces.log_density_change(field, torch.ones(4, dtype=torch.float64))
    assert integrated == pytest.approx(float(field.weight.trace())) and direct == pytest.approx(integrated, abs=1e-6)


# Averages


def test_the_closed_form_of_an_average():
    """Of iterates w_t = t + 3 it is T - a (1 - a^T) / (1 - a) + 3: the start has its weight."""
    path = [torch.tensor([t + 3.0], dtype=torch.float64) for t in range(31)]
    a = 0.8
    assert float(averages.closed_form(path, a)) == pytest.approx(33 - a * (1 - a**30) / (1 - a))
    module = quadratic.Iterate(1)
    module.x.data.fill_(3.0)
    average = AveragedModule(module, a)
    for value in path[1:]:
        module.x.data.copy_(value.expand_as(module.x))
        average.update()
    assert float(average.module.x[0, 0]) == pytest.approx(33 - a * (1 - a**30) / (1 - a))


@pytest.mark.parametrize("numbers", [(0, 1), (1, 0)])
def test_no_steps_and_no_replicas_are_one_line(numbers):
    with pytest.raises(UserError, match="give 1 or more of each"):
        averages.exponential(*numbers, decay=0.9)


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_the_stationary_loss_is_the_sum_over_all_pairs_of_noises(decay):
    """x_t = -r sum p^k e_(t-k); the average weighs x_(t-l) by (1 - a) a^l: noise t-m has weight sum a^l p^(m-l)."""
    total = 0.0
    for h in quadratic.CURVATURES.tolist():
        p, lags = 1 - quadratic.RATE * h, np.arange(1500)
        average = (1 - decay) * decay**lags if decay else (lags == 0).astype(float)
        weights = np.convolve(average, p**lags)[: len(lags)]
        total += h * quadratic.RATE**2 * (weights**2).sum() / 2
    assert quadratic.stationary_loss(decay) == pytest.approx(total, rel=1e-6)


def test_rows_of_averages():
    torch.manual_seed(0)
    row = averages.exponential(600, 8, decay=0.95)
    assert np.allclose(row.found, row.stated, atol=1e-12, rtol=0) and row.metrics["loss_ratio"] < 0.6
    assert row.arrays["path"].shape == row.arrays["average"].shape == (400, 2)
    torch.manual_seed(0)
    tail = averages.tail(600, 8)
    assert np.allclose(tail.found, tail.stated, atol=1e-12, rtol=0) and tail.metrics["loss_ratio"] < 0.3


def test_bad_options_of_averages_are_one_line():
    with pytest.raises(UserError, match="decay 1: give a number between 0 and 1"):
        averages.exponential(5, 1, decay=1)
    with pytest.raises(UserError, match="schedule 'step': give one of constant, cosine"):
        averages.exponential(5, 1, decay=0.9, schedule="step")


def test_an_average_that_is_fed_back_changes_bits(monkeypatch):
    assert averages.trajectory(6).metrics["bits_changed"] == 0
    update = AveragedModule.update

    def fed_back(self):
        update(self)
        with torch.no_grad():
            for mine, theirs in zip(self.module.parameters(), self.source.parameters(), strict=True):
                theirs.copy_(mine)

    monkeypatch.setattr(AveragedModule, "update", fed_back)
    assert averages.trajectory(6).metrics["bits_changed"] > 0
