"""Point operations against naive rules: sampling, neighbours, interpolation, Chamfer."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from replications.errors import UserError
from replications.layers.points import neighbours as neighbours_module
from replications.layers.points import sampling as sampling_module
from replications.layers.points.chamfer import chamfer_distance
from replications.layers.points.interpolation import interpolate, three_nearest
from replications.layers.points.neighbours import ball_query, gather, knn
from replications.layers.points.sampling import farthest_point_sample


def cloud(batch: int, points: int, seed: int = 0, duplicates: int = 0) -> torch.Tensor:
    drawn = torch.rand(batch, points, 3, generator=torch.Generator().manual_seed(seed))
    if duplicates:
        drawn[:, -duplicates:] = drawn[:, :1]
    return drawn


def naive_squared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """float32, added axis by axis: the rule that every algorithm must follow to the last bit."""
    d = (a[0] - b[:, 0]) ** 2
    for axis in (1, 2):
        d = d + (a[axis] - b[:, axis]) ** 2
    return d


def naive_fps(points: torch.Tensor, count: int) -> np.ndarray:
    taken = np.zeros((len(points), count), np.int64)
    for b, p in enumerate(points.numpy()):
        nearest = np.full(len(p), np.inf, np.float32)
        for i in range(1, count):
            nearest = np.minimum(nearest, naive_squared(p[taken[b, i - 1]], p))
            taken[b, i] = np.argmax(nearest)
    return taken


def naive_knn(queries: torch.Tensor, points: torch.Tensor, k: int) -> np.ndarray:
    return np.stack(
        [
            [np.argsort(naive_squared(q, p), kind="stable")[:k] for q in qs]
            for qs, p in zip(queries.numpy(), points.numpy(), strict=True)
        ]
    )


def naive_ball(centres: torch.Tensor, points: torch.Tensor, radius: float, k: int) -> np.ndarray:
    rows = []
    for cs, p in zip(centres.numpy(), points.numpy(), strict=True):
        for c in cs:
            d = naive_squared(c, p)
            inside = np.flatnonzero(d < np.float32(radius) ** 2)[:k]
            rows.append(
                np.resize(np.argmin(d), k) if not len(inside) else np.r_[inside, [inside[0]] * (k - len(inside))]
            )
    return np.stack(rows).reshape(len(centres), -1, k)


@pytest.mark.parametrize("duplicates", [0, 40])
@pytest.mark.parametrize("long", [False, True])
def test_farthest_points_are_the_naive_ones(monkeypatch, long, duplicates):
    monkeypatch.setattr(sampling_module, "_LONG_CLOUD", 1 if long else 10**9)
    points = cloud(3, 80, duplicates=duplicates)
    taken = farthest_point_sample(points, 60)
    assert taken.dtype == torch.int64
    np.testing.assert_array_equal(taken.numpy(), naive_fps(points, 60))


def test_farthest_points_start_at_zero_and_are_nested():
    points = cloud(2, 100)
    taken = farthest_point_sample(points, 100)
    assert (taken[:, 0] == 0).all()
    assert (taken.sort(1).values == torch.arange(100)).all()
    assert torch.equal(farthest_point_sample(points, 17), taken[:, :17])


def test_farthest_points_of_one_position_repeat_the_first():
    assert (farthest_point_sample(torch.ones(1, 5, 3), 5) == 0).all()


def test_farthest_points_in_the_gpu_kernel_run_by_triton_s_interpreter():
    triton = pytest.importorskip("triton")
    minor = [tuple(map(int, module.__version__.split(".")[:2])) for module in (triton, np)]
    if minor[0] < (3, 7) and minor[1] >= (2, 3):
        pytest.skip("this triton's interpreter does not know this numpy; the kernel itself is not concerned")
    code = (
        "import torch\n"
        "from replications.layers.points.triton_sampling import farthest_point_sample_triton as fused\n"
        "from replications.layers.points.sampling import _batched\n"
        "p = torch.rand(2, 50, 3); p[:, 30:] = p[:, :1]\n"
        "assert torch.equal(fused(p, 40), _batched(p, 40))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "TRITON_INTERPRET": "1"}, timeout=60)


@pytest.mark.parametrize("duplicates", [0, 30])
@pytest.mark.parametrize("tree", [False, True])
def test_nearest_neighbours_are_the_naive_ones(monkeypatch, tree, duplicates):
    monkeypatch.setattr(neighbours_module, "_TREE_KNN", 1 if tree else 10**9)
    points, queries = cloud(2, 70, duplicates=duplicates), cloud(2, 20, seed=1)
    queries[:, :5] = points[:, :5]
    squared, index = knn(queries, points, 9)
    np.testing.assert_array_equal(index.numpy(), naive_knn(queries, points, 9))
    assert (squared.diff(dim=-1) >= 0).all()
    exact = (queries.double()[:, :, None] - gather(points, index).double()).square().sum(-1)
    torch.testing.assert_close(squared.double(), exact, rtol=1e-5, atol=1e-9)


def test_ties_among_the_nearest_go_by_index(monkeypatch):
    """Each point occurs twice, in mixed order, so that pairs tie within the k nearest."""
    monkeypatch.setattr(neighbours_module, "_TREE_KNN", 1)
    points = cloud(2, 60).repeat_interleave(2, dim=1)[
        :, torch.randperm(120, generator=torch.Generator().manual_seed(1))
    ]
    queries = cloud(2, 20, seed=1)
    np.testing.assert_array_equal(knn(queries, points, 8)[1].numpy(), naive_knn(queries, points, 8))


@pytest.mark.parametrize("tree", [False, True])
def test_a_point_at_exactly_the_radius_is_outside(monkeypatch, tree):
    monkeypatch.setattr(neighbours_module, "_TREE_BALL", 1 if tree else 10**9)
    axis = torch.arange(5) / 8
    points = torch.cartesian_prod(axis, axis, axis)[None]
    index = ball_query(points, points, 0.25, 40)
    np.testing.assert_array_equal(index.numpy(), naive_ball(points, points, 0.25, 40))
    assert ((points[0][index[0]] - points[0][:, None]).norm(dim=-1) < 0.25).all()


def test_nearest_neighbours_do_not_depend_on_the_block(monkeypatch):
    points = cloud(2, 50)
    whole = knn(points, points, 5)[1]
    monkeypatch.setattr(neighbours_module, "_BLOCK", {"cpu": 120, "cuda": 120})
    assert torch.equal(knn(points, points, 5)[1], whole)


def test_all_points_as_neighbours():
    points = cloud(1, 300)
    assert (knn(points[:, :3], points, 300)[1].sort().values == torch.arange(300)).all()


@pytest.mark.parametrize("radius", [0.02, 0.2, 0.6])
@pytest.mark.parametrize("tree", [False, True])
def test_ball_query_is_the_naive_one(monkeypatch, tree, radius):
    monkeypatch.setattr(neighbours_module, "_TREE_BALL", 1 if tree else 10**9)
    points, centres = cloud(2, 120), cloud(2, 25, seed=1)
    index = ball_query(centres, points, radius, 8)
    np.testing.assert_array_equal(index.numpy(), naive_ball(centres, points, radius, 8))


def test_ball_query_on_a_device_takes_the_same_points():
    inside = cloud(1, 90)[0, :, :2] @ torch.rand(2, 40) < 0.3
    column, found = inside.nonzero()[:, 1], inside.sum(1)
    for k in (5, 50):
        dense = neighbours_module._first_dense(inside, k)
        assert torch.equal(dense, neighbours_module._first(column, found, k, 40))


def test_ball_query_of_more_points_than_there_are_fills_up():
    index = ball_query(torch.zeros(1, 1, 3), torch.zeros(1, 2, 3), 1.0, 4)
    assert index.tolist() == [[[0, 1, 0, 0]]]


def test_interpolation_against_float64():
    fine, coarse, features = cloud(2, 30), cloud(2, 12, seed=1), torch.rand(2, 12, 4)
    fine[:, 0] = coarse[:, 3]
    result = interpolate(fine, coarse, features)
    d = (fine.double()[:, :, None] - coarse.double()[:, None]).square().sum(-1)
    nearest, index = d.topk(3, largest=False)
    weights = 1 / (nearest + 1e-8)
    weights /= weights.sum(-1, keepdim=True)
    expected = (gather(features.double(), index) * weights[..., None]).sum(2)
    torch.testing.assert_close(result.double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(result[:, 0], features[:, 3], rtol=0, atol=1e-4)
    torch.testing.assert_close(three_nearest(fine, coarse)[0].sum(-1), torch.ones(2, 30))


@pytest.mark.parametrize(("power", "weights"), [(1, [4 / 7, 2 / 7, 1 / 7]), (2, [16 / 21, 4 / 21, 1 / 21])])
def test_weights_of_three_neighbours_at_one_two_and_four_tenths(power, weights):
    coarse = torch.tensor([[[0.4, 0, 0], [0, 0.1, 0], [0, 0, -0.2], [0.5, 0, 0]]])
    found, index = three_nearest(torch.zeros(1, 1, 3), coarse, power)
    assert index[0, 0].tolist() == [1, 2, 0] and found[0, 0].tolist() == pytest.approx(weights, rel=1e-5)
    value = interpolate(torch.zeros(1, 1, 3), coarse, torch.tensor([[[3.0], [1.0], [2.0], [99.0]]]), power)
    assert value.item() == pytest.approx(sum(w * v for w, v in zip(weights, [1, 2, 3], strict=True)), rel=1e-5)


def test_interpolation_from_one_point_copies_it():
    features = torch.rand(1, 1, 4)
    torch.testing.assert_close(interpolate(cloud(1, 5), torch.zeros(1, 1, 3), features), features.expand(1, 5, 4))


def test_chamfer_against_a_loop_and_its_gradient():
    a, b = cloud(2, 15).double().requires_grad_(), cloud(2, 11, seed=1).double()
    d = (a[:, :, None] - b[:, None]).square().sum(-1).sqrt()
    expected = d.amin(2).mean(1) + d.amin(1).mean(1)
    torch.testing.assert_close(chamfer_distance(a, b), expected)
    (wanted,) = torch.autograd.grad(expected.sum(), a)
    (found,) = torch.autograd.grad(chamfer_distance(a, b).sum(), a)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda: farthest_point_sample(torch.zeros(2, 0, 3), 1), "empty cloud"),
        (lambda: farthest_point_sample(torch.zeros(2, 4, 3), 5), "cannot sample 5 of 4"),
        (lambda: knn(torch.zeros(1, 1, 3), torch.zeros(1, 4, 3), 5), "cannot find 5 neighbours among 4"),
        (lambda: knn(torch.zeros(1, 1, 3), torch.zeros(1, 0, 3), 1), "empty cloud"),
        (lambda: ball_query(torch.zeros(1, 1, 3), torch.zeros(1, 0, 3), 1.0, 1), "empty cloud"),
        (lambda: knn(torch.zeros(1, 1, 6), torch.zeros(1, 4, 6), 1), "features are given apart"),
    ],
)
def test_wrong_clouds_are_named(call, line):
    with pytest.raises(UserError, match=line):
        call()
