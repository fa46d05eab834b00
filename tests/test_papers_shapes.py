"""DGCNN, VoxNet and MVCNN: what is cast from the points, and the networks on it, against loops in float64."""

import itertools
import math

import numpy as np
import pytest
import torch
from naive_points import settled

from replications.errors import UserError
from replications.layers.points.graph import EdgeConv, nearest
from replications.layers.points.views import cameras, depth_views
from replications.layers.points.voxels import max_pool3d, voxel_counts
from replications.papers.dgcnn.model import build as build_dgcnn
from replications.papers.mvcnn.model import build as build_mvcnn
from replications.papers.shape_costs import model as shape_costs
from replications.papers.voxnet.model import build as build_voxnet

SMALL = {"resolution": 16, "splat": 3, "layers": [[4, 3, 1, 2], [4, 3, 1, 2]], "hidden": [8]}


def cloud(batch: int = 2, points: int = 40, seed: int = 0, spread: float = 0.4) -> torch.Tensor:
    return spread * torch.randn(batch, points, 3, generator=torch.Generator().manual_seed(seed))


def parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# Graphs


def naive_nearest(x: np.ndarray, k: int) -> list[list[int]]:
    return [[int(j) for j in np.argsort(((x - own) ** 2).sum(1), kind="stable")[:k]] for own in x]


def naive_edge_conv(x: np.ndarray, graph: list[list[int]], layer: EdgeConv) -> np.ndarray:
    weight = layer.weight.weight.detach().double().numpy()
    norm = [v.detach().double().numpy() for v in (layer.norm.running_mean, layer.norm.running_var)]
    gain, bias = (v.detach().double().numpy() for v in (layer.norm.weight, layer.norm.bias))
    out = []
    for i, neighbours in enumerate(graph):
        rows = []
        for j in neighbours:
            z = weight @ np.concatenate([x[j] - x[i], x[i]])
            z = (z - norm[0]) / np.sqrt(norm[1] + layer.norm.eps) * gain + bias
            rows.append(np.where(z > 0, z, 0.2 * z))
        out.append(np.max(rows, axis=0))
    return np.array(out)


def test_edge_convolution_against_a_loop():
    layer, x = settled(EdgeConv(5, 7)), torch.randn(3, 20, 5)
    torch.nn.init.uniform_(layer.norm.weight, -1, 1)  # a gain below 0 must not turn the maximum into a minimum
    graph = nearest(x, 4)
    for b in range(3):
        own = x[b].double().numpy()
        expected = naive_nearest(own, 4)
        assert [sorted(row) for row in graph[b].tolist()] == [sorted(row) for row in expected]
        found = layer(x, graph)[b].detach().double().numpy()
        np.testing.assert_allclose(found, naive_edge_conv(own, expected, layer), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dynamic", [True, False])
def test_dgcnn_has_the_graph_of_what_enters_each_layer_or_of_the_positions(dynamic):
    model = settled(build_dgcnn(5, 0, 40, width=0.125, k=6, dynamic=dynamic))
    points = cloud()
    with torch.no_grad():
        logits = model.logits({"points": points})[1].double()
    x, found = points[1].double().numpy(), []
    graph = naive_nearest(x, 6)
    for layer in model.layers:
        graph = naive_nearest(x, 6) if dynamic else graph
        x = naive_edge_conv(x, graph, layer)
        found.append(x)
    model.double()
    each = model.embedding(torch.from_numpy(np.concatenate(found, 1)))
    expected = model.head(torch.cat([each.amax(0), each.mean(0)])[None])[0]
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


def test_dynamic_and_fixed_graphs_share_their_first_layer_only():
    models = [settled(build_dgcnn(5, 0, 40, width=0.125, k=6, dynamic=d)) for d in (True, False)]
    models[1].load_state_dict(models[0].state_dict())
    outputs = {}
    for model, name in zip(models, ("dynamic", "fixed"), strict=True):
        for number, layer in enumerate(model.layers):
            layer.register_forward_hook(lambda m, i, o, key=(name, number): outputs.__setitem__(key, o))
        model.logits({"points": cloud()})
    assert torch.equal(outputs["dynamic", 0], outputs["fixed", 0])
    assert not torch.allclose(outputs["dynamic", 1], outputs["fixed", 1])


def test_dgcnn_has_the_size_of_the_released_network():
    # Convolutions and norms 64, 64, 128, 256, 1024; layers 512 (no bias), 256 and 40 with their norms.
    convolutions = 6 * 64 + 128 * 64 + 128 * 128 + 256 * 256 + 512 * 1024 + 2 * (64 + 64 + 128 + 256 + 1024)
    connected = 2048 * 512 + 512 * 256 + 256 + 256 * 40 + 40 + 2 * (512 + 256)
    assert parameters(build_dgcnn(40, 0, 1024)) == convolutions + connected == 1_809_576


# Voxels


def test_voxels_count_points():
    points = cloud(spread=0.7)
    points[0, 0] = torch.tensor([0.0, 0.0, 0.0])  # a border: the voxel above
    points[0, 1] = torch.tensor([1.0, 0.0, 0.0])  # the far face: outside
    points[0, 2] = torch.tensor([-1.0, -1.0, -1.0])
    expected = np.zeros((2, 8, 8, 8))
    for b, own in enumerate(points.double().numpy()):
        for point in own:
            place = [math.floor((c + 1) * 4) for c in point]
            if all(0 <= p < 8 for p in place):
                expected[b][tuple(place)] += 1
    found = voxel_counts(points, 8, 1.0)
    assert np.array_equal(found.numpy(), expected)
    assert found[0, 4, 4, 4] >= 1 and found[0, 0, 0, 0] >= 1 and 0 < found.sum() < 80


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
def test_turning_the_cube_turns_the_voxels(axes):
    points = cloud(spread=0.7)
    found = voxel_counts(points[..., axes], 8, 1.0)
    assert torch.equal(found, voxel_counts(points, 8, 1.0).permute(0, *(1 + a for a in axes)))


def test_blocks_of_voxels_have_torch_s_maxima_and_gradients():
    x = torch.randn(2, 3, 5, 4, 7, requires_grad=True)
    weight = torch.randn(2, 3, 2, 2, 3)
    torch.testing.assert_close(max_pool3d(x), torch.nn.functional.max_pool3d(x, 2))
    gradients = [
        torch.autograd.grad((f * weight).sum(), x)[0] for f in (max_pool3d(x), torch.nn.functional.max_pool3d(x, 2))
    ]
    torch.testing.assert_close(*gradients)


def test_voxnet_has_the_size_of_the_released_network():
    model = build_voxnet(10)
    # 32 filters of 5^3, 32 of 3^3 on 32 channels, 6^3 blocks of 32 to 128, and ten classes.
    assert parameters(model) == 32 * 126 + 32 * (32 * 27 + 1) + 128 * (32 * 216 + 1) + 10 * 129 == 917_866
    shapes = {}
    for name in ("first", "second"):
        getattr(model.features, name).register_forward_hook(lambda m, i, o, n=name: shapes.__setitem__(n, o.shape[1:]))
    model.eval().logits({"points": cloud(1)})
    assert shapes == {"first": (32, 14, 14, 14), "second": (32, 12, 12, 12)}


def test_voxnet_against_its_layers_one_by_one():
    model = build_voxnet(4, voxels=12, scale=0.25).eval()
    points = cloud()
    points = torch.cat([points, points[:, :7]], 1)  # how often a voxel is hit does not matter
    with torch.no_grad():
        grid = torch.where(voxel_counts(cloud(), 12, 4 / 3) > 0, 1.0, -1.0)[:, None]
        x = torch.nn.functional.conv3d(grid, model.features.first.weight, model.features.first.bias, 2)
        x = torch.maximum(x, 0.1 * x)
        x = torch.nn.functional.conv3d(x, model.features.second.weight, model.features.second.bias)
        x = torch.nn.functional.max_pool3d(torch.maximum(x, 0.1 * x), 2).flatten(1)
        x = model.classifier(model.features.top(x).clamp_min(0))
        torch.testing.assert_close(model.logits({"points": points}), x)


# Views


def test_a_point_is_seen_at_its_place():
    # From +x, level with the horizon: +y is to the right, +z is up, and +x is near.
    axes = cameras(4, elevation=0.0)
    point = torch.tensor([[[0.5, 0.3, 0.7]]])
    image = depth_views(point, axes, 10, 1, 1.0)[0]
    assert image.count_nonzero() == 4
    # row = floor((1 - up) * 5), column = floor((1 + right) * 5), value (1 + towards) / 2
    places = {0: (1, 6, 0.75), 1: (1, 2, 0.65), 2: (1, 3, 0.25), 3: (1, 7, 0.35)}
    for view, (row, column, value) in places.items():
        assert image[view, row, column].item() == pytest.approx(value, abs=1e-6), view
    high = cameras(1)[0] @ torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)  # 30 degrees above the horizon
    torch.testing.assert_close(high, torch.tensor([0.0, math.cos(math.pi / 6), 0.5], dtype=torch.float64))


def test_the_nearest_point_is_seen_and_covers_its_splat():
    axes = cameras(1, elevation=0.0)
    points = torch.tensor([[[0.2, 0.05, 0.05], [-0.6, 0.05, 0.05], [0.9, 0.0, 1.5]]])
    image = depth_views(points, axes, 10, 3, 1.0)[0, 0]
    expected = torch.zeros(10, 10)
    expected[3:6, 4:7] = 0.6
    torch.testing.assert_close(image, expected)


def test_turning_a_shape_by_a_camera_s_step_moves_its_views_on():
    points, turn = cloud(spread=0.3), 2 * math.pi / 6
    about = torch.tensor(
        [[math.cos(turn), -math.sin(turn), 0], [math.sin(turn), math.cos(turn), 0], [0, 0, 1]], dtype=torch.float64
    )
    views = depth_views(points, cameras(6), 16, 1, 1.25)
    turned = depth_views((points.double() @ about.T).float(), cameras(6), 16, 1, 1.25)
    assert (turned - views.roll(1, 1)).abs().gt(1e-4).float().mean() < 1e-3  # rounding at borders of pixels


@pytest.mark.parametrize("pool", ["max", "mean"])
def test_pooling_forgets_the_order_of_the_views(pool):
    model = build_mvcnn(5, views=6, pool=pool, **SMALL).eval()
    before = model.logits({"points": cloud()})
    model.cameras = model.cameras[[3, 1, 5, 0, 2, 4]]
    torch.testing.assert_close(model.logits({"points": cloud()}), before)
    model.cameras = model.cameras[:2]
    assert not torch.allclose(model.logits({"points": cloud()}), before)


@pytest.mark.parametrize("pool", ["max", "mean"])
def test_views_are_pooled_between_the_two_networks(pool):
    model = build_mvcnn(5, views=3, pool=pool, **SMALL).eval()
    with torch.no_grad():
        each = [
            model.features.convolutions(depth_views(cloud(), axes[None], 16, 3, 1.25)).flatten(1)
            for axes in model.cameras
        ]
        pooled = torch.stack(each).amax(0) if pool == "max" else sum(each) / 3
        expected = model.classifier(model.features.connected(pooled))
        torch.testing.assert_close(model.logits({"points": cloud()}), expected)


def test_mvcnn_has_the_size_of_vgg_m():
    # Convolutions without biases, with norms; 6 x 6 x 512 are left.
    convolutions = 96 * 49 + 256 * 96 * 25 + 512 * 256 * 9 + 2 * 512 * 512 * 9 + 2 * (96 + 256 + 3 * 512)
    model = build_mvcnn(1000, hidden=[8])
    assert parameters(model.features.convolutions) == convolutions == 6_521_120
    assert model.features.connected[0].in_features == 6 * 6 * 512


# All three


MODELS = {
    "dgcnn": lambda: build_dgcnn(5, 0, 40, width=0.125, k=6),
    "voxnet": lambda: build_voxnet(5, voxels=12, scale=0.25),
    "mvcnn": lambda: build_mvcnn(5, views=6, **SMALL),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_order_of_the_points_does_not_matter(name):
    model, points = settled(MODELS[name]()), cloud()
    shuffled = points[:, torch.randperm(40, generator=torch.Generator().manual_seed(1))]
    torch.testing.assert_close(
        model.logits({"points": shuffled}), model.logits({"points": points}), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("name", ["voxnet", "mvcnn"])
def test_one_point_is_a_cloud_and_points_far_outside_are_not_seen(name):
    model = MODELS[name]().eval()
    one = cloud(2, 1)
    far = torch.cat([one, torch.full((2, 1, 3), 50.0)], 1)
    found = model.logits({"points": one})
    assert found.isfinite().all()
    torch.testing.assert_close(model.logits({"points": far}), found)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: build_dgcnn(5, 0, 20, k=21), "at least 21 points, not 20"),
        (lambda: build_dgcnn(5, 0, 1), "at least 20 points, not 1"),
        (lambda: build_dgcnn(5, 0, 20, k=0), "k = 0"),
        (lambda: build_dgcnn(5, 0, 40, k=20).logits({"points": cloud(2, 8)}), "at least 20 points, not 8"),
        (lambda: build_voxnet(5, voxels=10), "give 11 or more"),
        (lambda: build_voxnet(5, voxels=3), "give 11 or more"),
        (lambda: build_mvcnn(5, views=7, rendered=6, **SMALL), "7 views of 6 that are rendered"),
        (lambda: build_mvcnn(5, views=0, **SMALL), "0 views"),
        (lambda: build_mvcnn(5, views=2, **SMALL | {"resolution": 3}), "resolution 3 is too small"),
        (lambda: build_mvcnn(5, views=2, pool="sum", **SMALL), "neither 'max' nor 'mean'"),
        (lambda: build_mvcnn(5, views=2, **SMALL | {"splat": 4}).logits({"points": cloud()}), "odd number"),
        (lambda: build_voxnet(5).logits({"points": cloud(1, 0)}), "empty cloud"),
        (lambda: build_mvcnn(5, **SMALL).logits({"points": torch.zeros(1, 4, 2)}), r"\[batch, points, 3\]"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_in_a_line(build, message):
    with pytest.raises(UserError, match=message) as error:
        build()
    assert "\n" not in str(error.value)


# Costs against the resolution


def test_exponents_of_costs_are_those_of_the_layers_by_formula():
    found = {name: getattr(shape_costs, name)() for name in ("voxels", "views", "points", "graph")}
    last = {name: row.curves["flops"].y[-1] for name, row in found.items()}
    # One multiply-add is two. VoxNet at 512: 254^3 and 252^3 outputs, 126^3 blocks.
    assert last["voxels"] == 2 * (32 * 125 * 254**3 + 32 * 32 * 27 * 252**3 + 32 * 126**3 * 128)
    assert last["points"] == 2 * 4096 * (3 * 64 + 2 * 64 * 64 + 64 * 128 + 128 * 1024)
    assert last["graph"] == 2 * 4096**2 * (64 + 64 + 128)
    assert last["views"] == 2 * (6 * (16 * 9 * 256**2 + 16 * 32 * 9 * 128**2 + 32 * 64 * 9 * 64**2) + 64 * 64 * 32**2)
    exponents = {name: (row.found[0], row.stated[0]) for name, row in found.items()}
    assert exponents == {
        "voxels": (pytest.approx(3, abs=0.1), 3), "views": (2, 2), "points": (1, 1), "graph": (2, 2),
    }  # fmt: skip
