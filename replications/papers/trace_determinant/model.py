"""det exp A = exp tr A, what it costs, and traces by random probes (Hutchinson 1989)."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from replications.errors import UserError
from replications.layers.systems.measured import Measured
from replications.layers.systems.timing import seconds_in_turn
from replications.measurement.protocol import Effort
from replications.papers.trace_determinant.probes import (
    all_signs,
    quadratic_forms,
    sign_variance,
    smoother,
)
from replications.records import Curve

KINDS: dict[str, Callable[[Tensor], Tensor]] = {
    "random": lambda a: a,
    "symmetric": lambda a: (a + a.T) / 2,
    "skew": lambda a: (a - a.T) / 2,
    "nilpotent": lambda a: a.triu(1),
}
ENUMERATED = 10  # dimensions whose 2^n sign vectors are all tried
FLOW_STEPS = 32
BATCH = 8


def determinant(orders: Sequence[int], effort: Effort) -> Measured:
    """Compare log |det exp A| with tr A over kinds and orders of matrices in float64, and time both sides.

    Entries are normal with variance 1 / n, so that exp A is well conditioned at any n.
    """
    found, stated, single, costs = [], [], [], []
    for n in orders:
        drawn = torch.randn(n, n, dtype=torch.float64) / n**0.5
        for make in KINDS.values():
            matrix = make(drawn)
            found.append(float(log_determinant(matrix)))
            stated.append(float(matrix.trace()))
            single.append(abs(float(log_determinant(matrix.float())) - stated[-1]) / max(1.0, abs(stated[-1])))
        times = seconds_in_turn(
            {"determinant": lambda a=drawn: log_determinant(a), "trace": lambda a=drawn: a.trace()}, effort
        )
        costs.append(times)
    curves = {
        f"time_{side}": Curve(
            x_label="order", y_label="ms", x=list(map(float, orders)), y=[1e3 * c[side] for c in costs]
        )
        for side in ("determinant", "trace")
    }
    metrics = {"float32_error": max(single), "cost_ratio": costs[-1]["determinant"] / costs[-1]["trace"]}
    return Measured("determinants and traces", found, stated, metrics, curves)


def log_determinant(matrix: Tensor) -> Tensor:
    """Return log |det exp A|; the determinant itself would overflow."""
    return torch.linalg.slogdet(torch.matrix_exp(matrix)).logabsdet


def hutchinson(orders: Sequence[int], probes: int) -> Measured:
    """Probe the trace by random signs: mean and variance over all sign vectors, then over drawn ones.

    The statement: the mean over all is tr A, and their variance the closed form (`sign_variance`), for matrices
    without any symmetry. Drawn probes are of a smoother's matrix, as in the paper. Raises UserError for fewer than
    two probes.
    """
    if probes < 2:
        raise UserError(f"probes: {probes} of them have no variance: give 2 or more")
    matrices = torch.randn(3, ENUMERATED, ENUMERATED, dtype=torch.float64)
    values = torch.stack([quadratic_forms(matrix, all_signs(ENUMERATED)) for matrix in matrices])
    found = torch.stack([values.mean(1), values.var(1, correction=0)])
    stated = torch.stack(
        [torch.stack([m.trace() for m in matrices]), torch.stack([sign_variance(m) for m in matrices])]
    )

    matrix = smoother(orders[-1])
    signs = torch.randint(2, (probes, orders[-1])).to(matrix) * 2 - 1
    normals = torch.randn(probes, orders[-1], dtype=torch.float64)
    by_signs, by_normals = quadratic_forms(matrix, signs), quadratic_forms(matrix, normals)
    metrics = {
        "variance_ratio": float(by_signs.var() / sign_variance(matrix)),
        "gaussian_variance_ratio": float(by_normals.var() / by_signs.var()),
    }
    arrays = {"by_signs": by_signs[:2000].numpy(), "by_normals": by_normals[:2000].numpy()}
    return Measured("traces by probes", found.numpy(), stated.numpy(), metrics, arrays=arrays)


def flow(orders: Sequence[int], effort: Effort) -> Measured:
    """Probe the divergence of a network's vector field, as continuous flows do, beside the exact one.

    The statement: the mean over all sign vectors of v^T J v, each by one backward pass, is tr J. ``flow_error``
    compares the integral of tr J along a trajectory with the log determinant of the flow's own Jacobian.
    """
    small = vector_field(ENUMERATED)
    point = torch.randn(ENUMERATED, dtype=torch.float64)
    mean = np.mean([float(probed_divergence(small, point[None], v[None])) for v in all_signs(ENUMERATED)])
    exact = float(torch.func.jacrev(small)(point).trace())

    n = orders[-1]
    large, points = vector_field(n), torch.randn(BATCH, n, dtype=torch.float64)
    signs = torch.randint(2, points.shape).to(points) * 2 - 1
    times = seconds_in_turn(
        {
            "exact": lambda: exact_divergence(large, points),
            "probe": lambda: probed_divergence(large, points, signs),
        },
        effort,
    )
    integrated, direct = log_density_change(small, point)
    metrics = {"probe_speedup": times["exact"] / times["probe"], "flow_error": abs(integrated - direct)}
    return Measured("divergences of a field", [mean], [exact], metrics)


def vector_field(n: int) -> nn.Module:
    """Return a network from R^n to R^n of one hidden layer, smooth, in float64."""
    return nn.Sequential(nn.Linear(n, 2 * n), nn.Tanh(), nn.Linear(2 * n, n)).double().requires_grad_(False)


def probed_divergence(field: nn.Module, points: Tensor, probes: Tensor) -> Tensor:
    """Return v^T J v ``[batch]`` at points ``[batch, n]`` by one backward pass."""
    points = points.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(field(points), points, probes)
    return (gradient * probes).sum(1)


def exact_divergence(field: nn.Module, points: Tensor) -> Tensor:
    """Return tr J ``[batch]`` by n backward passes."""
    points = points.detach().requires_grad_()
    values = field(points)
    rows = [torch.autograd.grad(values[:, i].sum(), points, retain_graph=True)[0][:, i] for i in range(points.shape[1])]
    return torch.stack(rows).sum(0)


def log_density_change(field: nn.Module, start: Tensor) -> tuple[float, float]:
    """Return the integral of tr J over time 1 from `start` ``[n]``, and log |det| of the flow map's Jacobian.

    Both by the classical Runge-Kutta method in `FLOW_STEPS` steps.
    """
    jacobian = torch.func.jacrev(field)

    def rate(state: Tensor) -> Tensor:
        return torch.cat([field(state[:-1]), jacobian(state[:-1]).trace()[None]])

    integrated = runge_kutta(rate, torch.cat([start, start.new_zeros(1)]))[-1]
    matrix = torch.func.jacrev(lambda x: runge_kutta(field, x))(start)
    return float(integrated), float(torch.linalg.slogdet(matrix).logabsdet)


def runge_kutta(rate: Callable[[Tensor], Tensor], state: Tensor) -> Tensor:
    step = 1 / FLOW_STEPS
    for _ in range(FLOW_STEPS):
        k1 = rate(state)
        k2 = rate(state + step / 2 * k1)
        k3 = rate(state + step / 2 * k2)
        k4 = rate(state + step * k3)
        state = state + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return state
