"""PointNet, PointNet++ and SO-Net: sizes, invariances, the self-organising map."""

import numpy as np
import pytest
import torch
from torch import nn

from replications.errors import UserError
from replications.papers.pointnet.model import build as build_pointnet
from replications.papers.pointnet.model import regulariser
from replications.papers.pointnet2.model import build as build_pointnet2
from replications.papers.sonet.layers import node_maximum
from replications.papers.sonet.model import build as build_sonet
from replications.papers.sonet.som import cluster_means, initial_nodes, neighbourhood, train_som

SONET = {"width": 0.1, "grid": 3, "node_neighbours": 4, "dropout": 0.0}


def settled(module: nn.Module) -> nn.Module:
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean, -0.2, 0.2)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    return module.eval()


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_sizes_that_are_commonly_reported():
    """3.5 M for PointNet, 1.48 M for SSG, 1.74 M for MSG (40 classes, positions); ours have no biases before norms."""
    assert count(build_pointnet(40, 0)) == pytest.approx(3.48e6, rel=0.01)
    assert count(build_pointnet2(40, 0)) == pytest.approx(1.48e6, rel=0.01)
    assert count(build_pointnet2(40, 0, scales=((16, 32, 128), (32, 64, 128)))) == pytest.approx(1.74e6, rel=0.01)


def test_pointnet_does_not_depend_on_the_order_of_points():
    torch.manual_seed(0)
    model = settled(build_pointnet(4, 3, width=0.1))
    cloud = {"points": torch.rand(2, 30, 3), "features": torch.randn(2, 30, 3)}
    order = torch.randperm(30)
    shuffled = {name: value[:, order] for name, value in cloud.items()}
    torch.testing.assert_close(model.logits(shuffled), model.logits(cloud))


def test_alignment_starts_as_the_identity_and_the_regulariser_is_0_there():
    model = build_pointnet(4, 0, width=0.1).eval()
    x = torch.rand(2, 30, 3)
    torch.testing.assert_close(model.features.input_transform(x), torch.eye(3).expand(2, 3, 3))
    transform = model.features.feature_transform(torch.rand(2, 30, model.features.local))
    assert regulariser(transform) == 0
    twice = 2 * torch.eye(3).expand(2, 3, 3)
    assert regulariser(twice).item() == pytest.approx(0.001 * (3 * 9) ** 0.5)


def test_pointnet2_sizes_of_parts():
    small = {"width": 0.1, "counts": (12, 5), "neighbours": (6, 4)}
    cloud = {"points": torch.rand(3, 40, 3), "features": torch.randn(3, 40, 3), "label": torch.tensor([0, 1, 3])}
    model = build_pointnet2(4, 3, num_parts=7, **small)
    assert model.part_logits(cloud).shape == (3, 40, 7)
    model(cloud | {"part": torch.zeros(3, 40, dtype=torch.long)})["loss"].backward()


def test_initial_nodes_against_the_paper_s_loop():
    """Repulsion 1 / r^2, walls, then sorting by x into rows and by y within them."""
    found = initial_nodes(3)
    nodes = np.random.RandomState(2017).rand(9, 3) * 2 - 1
    for _ in range(100):
        force = np.zeros((9, 3))
        for j in range(9):
            for i in range(3):
                if abs(nodes[j, i]) >= 0.01:
                    force[j, i] -= nodes[j, i] * 9 / 1.5
            for k in range(9):
                away = nodes[j] - nodes[k]
                distance = np.linalg.norm(away) + 1e-5
                force[j] += away / distance / distance**2
        nodes = nodes + 0.01 * force
    rows = nodes[nodes[:, 0].argsort()].reshape(3, 3, 3)
    expected = np.concatenate([row[row[:, 1].argsort()] for row in rows])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_the_map_against_a_loop():
    """One cloud, node by node: every node with points pulls all nodes towards the mean of its points."""
    points = torch.rand(1, 40, 3, generator=torch.Generator().manual_seed(0)).double() * 2 - 1
    nodes = initial_nodes(3).astype(np.float64)
    p = points[0].numpy()
    for iteration in [0] * 20 + list(range(60)):
        rate, sigma = (value / (1 + 2 * iteration / 60) for value in (0.5, 0.4))
        nearest = ((p[:, None] - nodes[None]) ** 2).sum(-1).argmin(1)
        delta = np.zeros_like(nodes)
        for i in range(9):
            if (nearest == i).any():
                mean = p[nearest == i].mean(0)
                for j in range(9):
                    apart = (i // 3 - j // 3) ** 2 + (i % 3 - j % 3) ** 2
                    delta[j] += rate * np.exp(-apart / (2 * np.pi * sigma**2)) * (mean - nodes[j])
        nodes = nodes + delta
    np.testing.assert_allclose(train_som(points, 3)[0].numpy(), nodes, rtol=1e-4, atol=1e-5)


def test_the_map_is_the_same_for_any_order_of_points_and_repeated_points():
    points = torch.rand(2, 60, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    nodes = train_som(points, 4)
    torch.testing.assert_close(train_som(points[:, torch.randperm(60)], 4), nodes, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(train_som(points.repeat(1, 3, 1), 4), nodes, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(train_som(points[1:], 4), nodes[1:], rtol=1e-5, atol=1e-6)


def test_the_map_covers_the_cloud():
    points = torch.rand(1, 500, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    nodes = train_som(points, 4)
    far = (points[0][:, None] - nodes[0]).norm(dim=-1).amin(1).mean()
    assert far < (points[0][:, None] - torch.from_numpy(initial_nodes(4))).norm(dim=-1).amin(1).mean()
    assert (nodes.abs() < 1).all()


def test_the_neighbourhood_is_a_gaussian_on_the_grid():
    pull = neighbourhood(3, 0.4)
    assert pull[4, 4] == 1
    assert pull[0, 8] == pytest.approx(np.exp(-8 / (2 * np.pi * 0.16)))
    torch.testing.assert_close(pull, pull.T)


def test_means_of_clusters_and_empty_nodes():
    points = torch.tensor([[[0.0, 0, 0], [2, 0, 0], [5, 5, 5]]])
    means, number = cluster_means(points, torch.tensor([[1, 1, 2]]), 4)
    assert number.tolist() == [[0, 2, 1, 0]]
    assert means[0].tolist() == [[0, 0, 0], [1, 0, 0], [5, 5, 5], [0, 0, 0]]


def test_node_maximum_against_a_loop_and_the_other_device_s_form():
    torch.manual_seed(0)
    features = torch.randn(3, 40, 5, requires_grad=True)
    index = torch.randint(0, 6, (3, 40))  # nodes 6 and 7 stay empty
    found = node_maximum(features, index, 8)
    for b in range(3):
        for n in range(8):
            own = features[b, index[b] == n]
            torch.testing.assert_close(found[b, n], own.amax(0) if len(own) else torch.zeros(5))
    where = index[..., None].expand(-1, -1, 5)
    other = features.new_zeros(3, 8, 5).scatter_reduce(1, where, features, "amax", include_self=False)
    torch.testing.assert_close(found, other)
    weight = torch.randn(3, 8, 5)
    (a,), (b,) = (torch.autograd.grad((x * weight).sum(), features) for x in (found, other))
    torch.testing.assert_close(a, b)


def test_each_point_has_k_copies_at_k_nodes():
    torch.manual_seed(0)
    model = build_sonet(4, 0, **SONET)
    points = torch.rand(2, 30, 3)
    found = model.encoder({"points": points, **model.precompute(points)})
    by_point = found.index.view(2, 30, 3)
    assert all(len(set(row)) == 3 for row in by_point.flatten(0, 1).tolist())
    torch.testing.assert_close(
        found.local + torch.gather(found.nodes, 1, found.index[..., None].expand(-1, -1, 3)),
        points.repeat_interleave(3, dim=1),
    )


def test_nodes_without_points_keep_their_place_and_have_features_of_0():
    torch.manual_seed(0)
    model = build_sonet(4, 0, node_k=1, **SONET).eval()
    points = 0.01 * torch.rand(1, 30, 3) + 1.0
    nodes = torch.zeros(1, 9, 3)
    nodes[0, 4] = 1.0
    found = model.encoder({"points": points, "nodes": nodes})
    others = [0, 1, 2, 3, 5, 6, 7, 8]
    torch.testing.assert_close(found.nodes[0, 4], points[0].mean(0))
    assert (found.nodes[0, others] == 0).all() and (found.node_max[0, others] == 0).all()
    assert (found.index == 4).all()
    far = model.encoder({"points": points, "nodes": nodes + 5 * (nodes == 0)})
    assert (far.nodes[0, others] == 5).all()


@pytest.mark.parametrize("aggregation", ["knn", "grid", "none"])
def test_sonet_does_not_depend_on_the_order_of_points(aggregation):
    torch.manual_seed(0)
    model = settled(build_sonet(4, 3, aggregation=aggregation, **SONET))
    cloud = {"points": torch.rand(2, 60, 3) * 2 - 1, "features": torch.randn(2, 60, 3)}
    order = torch.randperm(60)
    shuffled = {name: value[:, order] for name, value in cloud.items()}
    nodes = model.precompute(cloud["points"])
    torch.testing.assert_close(model.logits(shuffled | nodes), model.logits(cloud | nodes), rtol=1e-4, atol=1e-5)
    again = model.precompute(shuffled["points"])
    torch.testing.assert_close(model.logits(shuffled | again), model.logits(cloud | nodes), rtol=1e-3, atol=1e-4)


def test_the_autoencoder_has_1280_points_and_its_encoder_fits_the_classifier():
    autoencoder = build_sonet(4, 0, reconstruct=True, width=0.1)
    levels = autoencoder.decoder(torch.randn(2, autoencoder.encoder.channels))
    assert [level.shape[1] for level in levels] == [256, 1280]
    classifier = build_sonet(4, 0, width=0.1)
    classifier.encoder.load_state_dict(autoencoder.encoder.state_dict())
    small = build_sonet(4, 0, reconstruct=True, connected_points=16, pyramid_levels=1, **SONET)
    points = torch.rand(2, 40, 3)
    assert small({"points": points, **small.precompute(points)})["loss"].isfinite()


def test_a_disturbed_map_is_the_same_each_time_and_other_than_the_map():
    model = build_sonet(4, 0, **SONET)
    cloud = {"points": torch.rand(2, 40, 3), "nodes": torch.zeros(2, 9, 3)}
    changed = {name: change(cloud)["nodes"] for name, change in model.conditions().items()}
    again = {name: change(cloud)["nodes"] for name, change in model.conditions().items()}
    assert list(changed) == ["som_noise10", "som_noise20"]
    assert all(torch.equal(changed[name], again[name]) for name in changed)
    assert changed["som_noise10"].std() == pytest.approx(0.1, rel=0.3)


def test_wrong_options_are_named():
    with pytest.raises(UserError, match="aggregation must be one of"):
        build_sonet(4, 0, aggregation="cnn")
    with pytest.raises(UserError, match="node_k must be between 1 and the 9 nodes"):
        build_sonet(4, 0, node_k=10, **SONET)


@pytest.mark.parametrize("num_parts", [None, 7])
@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"counts": (16, 8, 4)}, "counts needs a value for each of 2 levels, not 3"),
        ({"counts": (16, 8, 4), "radii": (0.2, 0.4, 0.8), "neighbours": (4, 4, 4)}, "counts needs"),
        ({"radii": (0.2,)}, "radii needs"),
        ({"scales": ((2, 4, 8),)}, "scales needs"),
        ({"scales": ((2, 4), (2, 4))}, "3 numbers of neighbours, not 2"),
    ],
)
def test_pointnet2_says_how_many_levels_and_balls_it_has(wrong, told, num_parts):
    with pytest.raises(UserError, match=told):
        build_pointnet2(4, 0, num_parts=num_parts, width=0.1, **{"counts": (16, 8), "neighbours": (4, 4)} | wrong)
