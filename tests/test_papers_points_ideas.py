"""Each paper's idea, through its whole model: outputs against float64 loops that leave nothing to the suite's layers.

`tests/README.md` has the table of sabotages that these tests were seen to find.
"""

import naive_points as naive
import numpy as np
import pytest
import torch
from naive_points import array, chain

from replications.papers.pointconv.model import build as build_pointconv
from replications.papers.pointconv.operator import DensityNet
from replications.papers.pointnet.model import build as build_pointnet
from replications.papers.pointnet2.model import build as build_pointnet2
from replications.papers.sonet.model import build as build_sonet
from replications.papers.sonet.som import initial_nodes

POINTS = 60


def cloud() -> dict[str, torch.Tensor]:
    features = torch.randn(POINTS, 3, generator=torch.Generator().manual_seed(1))
    return {"points": naive.uneven(POINTS)[None], "features": features[None]}


def close(found: torch.Tensor, expected: np.ndarray) -> None:
    np.testing.assert_allclose(array(found), expected, rtol=1e-4, atol=1e-5)


# PointConv


def kernel_density(points: np.ndarray, bandwidth: float) -> np.ndarray:
    apart = ((points[:, None] - points) ** 2).sum(-1)
    return np.exp(-apart / (2 * bandwidth**2)).mean(1) / (2.5 * bandwidth)


def released_density(points: np.ndarray, radius: float) -> np.ndarray:
    apart = ((points[:, None] - points) ** 2).sum(-1)
    kernel, inside = np.exp(-apart / (2 * radius / 2)), apart < radius**2
    return (kernel * inside).sum(1) / inside.sum(1)


def density_factor(inverse: np.ndarray, net) -> np.ndarray:
    return 1 / (1 + np.exp(-chain(inverse[:, None], net.net)))


def convolution(offset: np.ndarray, features: np.ndarray, density: np.ndarray | None, operator) -> np.ndarray:
    """One centre: sum over neighbours and channels of S(k) W(k, c) F(k, c), the weights made one by one."""
    x = chain(features, operator.shared)
    if density is not None:
        inverse = 1 / density
        x = x * density_factor(inverse / inverse.max(), operator.density_net)
    hidden = chain(offset, operator.weight_net)
    last = array(operator.kernel.weight).reshape(operator.channels, operator.c_in, operator.c_mid)
    total = array(operator.kernel.bias)
    for k in range(len(x)):
        weights = last @ hidden[k]  # [out, in]
        total = total + weights @ x[k]
    return np.maximum(naive.normed(total[None], operator.norm)[0], 0)


def naive_levels(levels, points: np.ndarray, features: np.ndarray, density: str) -> list[tuple[np.ndarray, np.ndarray]]:
    found = [(points, features)]
    for layer in levels:
        of = None
        if density != "none":
            of = {"kde": kernel_density, "released": released_density}[density](points, layer.bandwidth)
        if layer.count is None:
            groups, centres = [np.arange(len(points))], points.mean(0, keepdims=True)
        else:
            centres = points[naive.farthest(points, layer.count)]
            groups = [naive.nearest(centre, points, layer.k) for centre in centres]
        rows = []
        for centre, group in zip(centres, groups, strict=True):
            offset = points[group] - centre
            joined = np.concatenate([offset, features[group]], -1)
            rows.append(convolution(offset, joined, None if of is None else of[group], layer.operator))
        points, features = centres, np.stack(rows)
        found.append((points, features))
    return found


def strong(net) -> None:
    """Let the density net tell 0.1 from 1 by a factor of two or more: at the start it hardly does."""
    for linear, norm, _ in naive.layers(net):
        torch.nn.init.uniform_(linear.weight, 0.5 / linear.in_features, 1.5 / linear.in_features)
        if norm is not None:
            torch.nn.init.zeros_(norm.running_mean)
            torch.nn.init.zeros_(norm.bias)
    with torch.no_grad():
        linear.weight.mul_(6)
        linear.bias.fill_(-3)
    factor = density_factor(np.array([0.1, 1.0]), net)
    assert factor[1, 0] > 2 * factor[0, 0]


@pytest.mark.parametrize("form", ["reordered", "naive"])
@pytest.mark.parametrize("density", ["kde", "released", "none"])
def test_pointconv_weighs_neighbours_by_position_and_inverse_density(density, form):
    torch.manual_seed(0)
    levels = {"counts": (12, 5), "neighbours": (8, 4), "bandwidths": (0.2, 0.4, 0.8)}
    model = naive.settled(build_pointconv(4, 3, width=0.06, density=density, form=form, **levels))
    if density != "none":
        for level in model.levels:
            strong(level.operator.density_net)
    own = cloud()
    levels = naive_levels(model.levels, array(own["points"][0]), array(own["features"][0]), density)
    close(model.logits(own), chain(levels[-1][1], model.head))


def test_pointconv_tells_the_spread_of_both_densities_in_the_first_level():
    given = cloud()
    points = array(given["points"][0])
    model = build_pointconv(4, 3, width=0.1, counts=(12, 4), neighbours=(6, 3), bandwidths=(0.3, 0.6, 1.0)).eval()
    centres = points[naive.farthest(points, 12)]
    groups = [naive.nearest(centre, points, 6) for centre in centres]
    found = model.measure(given).metrics
    for name, density in (("density_spread", kernel_density), ("released_spread", released_density)):
        inverse = 1 / density(points, 0.3)
        seen = np.concatenate([inverse[group] / inverse[group].max() for group in groups])
        assert found[name] == pytest.approx(seen.std(ddof=1) / seen.mean(), rel=1e-4)


@pytest.mark.parametrize("decoder", ["deconvolution", "interpolation"])
def test_pointconv_carries_features_back_to_every_point(decoder):
    torch.manual_seed(0)
    levels = {"counts": (20, 9, 5), "neighbours": (8, 5, 4), "bandwidths": (0.2, 0.4, 0.8)}
    model = build_pointconv(4, 3, 6, width=0.06, decoder=decoder, decoder_neighbours=4, **levels)
    naive.settled(model)
    for net in (m for m in model.modules() if isinstance(m, DensityNet)):
        strong(net)
    own = cloud() | {"label": torch.tensor([2])}
    points = array(own["points"][0])
    seen = np.concatenate([points, array(own["features"][0])], -1)
    found = naive_levels(model.down, points, seen, "kde")
    carried = found[-1][1]
    for level, layer in zip((2, 1, 0), model.up, strict=True):
        fine, skip = found[level]
        if level == 0:
            skip = np.concatenate([np.tile([0, 0, 1, 0], (POINTS, 1)), skip], -1)
        carried = naive.interpolated(fine, found[level + 1][0], carried, power=2)
        if decoder == "deconvolution":
            inner = layer.convolution
            density, groups = kernel_density(fine, inner.bandwidth), [naive.nearest(p, fine, 4) for p in fine]
            carried = np.stack(
                [
                    convolution(fine[g] - p, np.concatenate([fine[g] - p, carried[g]], -1), density[g], inner.operator)
                    for p, g in zip(fine, groups, strict=True)
                ]
            )
        carried = chain(np.concatenate([carried, skip], -1), layer.mlp)
    close(model.part_logits(own)[0], chain(chain(carried, model.head), model.classifier))


# SO-Net


def test_sonet_trains_a_map_of_each_cloud():
    """What the model precomputes is the paper's batch update, from the fixed nodes."""
    points = naive.uneven(POINTS)
    found = array(build_sonet(4, 0, width=0.05, grid=3).precompute(points[None])["nodes"][0])
    p, nodes = array(points), initial_nodes(3).astype(np.float64)
    for iteration in [0] * 20 + list(range(60)):
        rate, sigma = (value / (1 + 2 * iteration / 60) for value in (0.5, 0.4))
        winner = ((p[:, None] - nodes) ** 2).sum(-1).argmin(1)
        moved = nodes.copy()
        for i in set(winner.tolist()):
            for j in range(9):
                apart = (i // 3 - j // 3) ** 2 + (i % 3 - j % 3) ** 2
                pull = rate * np.exp(-apart / (2 * np.pi * sigma**2))
                moved[j] += pull * (p[winner == i].mean(0) - nodes[j])
        nodes = moved
    np.testing.assert_allclose(found, nodes, rtol=1e-4, atol=1e-4)
    assert np.abs(found - initial_nodes(3)).max() > 0.1


def test_sonet_classifies_by_what_three_nodes_see_of_each_point():
    """k = 3 as in the paper's default: logits of copies, maxima in nodes, maxima of nodes."""
    torch.manual_seed(0)
    model = naive.settled(build_sonet(4, 3, width=0.05, grid=3, node_neighbours=4))
    own = cloud()
    som = model.precompute(own["points"])["nodes"]
    points, features, nodes = (array(t[0]) for t in (own["points"], own["features"], som))
    of_point = [naive.nearest(point, nodes, 3) for point in points]
    encoder = model.encoder
    members = [[n for n in range(POINTS) if m in of_point[n]] for m in range(9)]
    assert all(members)
    means = np.stack([points[own].mean(0) for own in members])
    first, *middle, last = naive.layers(encoder.points)
    maxima = []
    for m, own_points in enumerate(members):
        seen = np.concatenate([points[own_points] - means[m], features[own_points]], -1)
        low = naive.apply(seen, *first)
        maxima.append(naive.apply(np.concatenate([low, chain(low, middle)], -1), *last).max(0))
    rows = []
    for m in range(9):
        near = naive.nearest(nodes[m], nodes, 4)
        centre = means[near].mean(0)
        joined = np.concatenate([means[near] - centre, np.stack(maxima)[near]], -1)
        rows.append(np.concatenate([centre, chain(joined, encoder.around).max(0)]))
    top = chain(np.stack(rows), encoder.last).max(0, keepdims=True)
    close(model.logits(own | {"nodes": som}), chain(top, model.head))


def test_sonet_moves_its_nodes_in_training(monkeypatch):
    """Noise of 0.04, cut at 0.1: with draws of 1 and of 10 every node is 0.04 and 0.1 away, in evaluation nowhere."""
    encoder = build_sonet(4, 0, width=0.05, grid=3, node_k=1).encoder
    points, nodes = naive.uneven(POINTS)[None], torch.from_numpy(initial_nodes(3))[None]
    for training, drawn, moved in ((True, 1.0, 0.04), (True, 10.0, 0.1), (True, -10.0, -0.1), (False, 10.0, 0.0)):
        monkeypatch.setattr(torch, "randn_like", lambda nodes, drawn=drawn: torch.full_like(nodes, drawn))
        found = encoder.train(training)({"points": points, "nodes": nodes}).index[0]
        apart = ((array(points[0])[:, None] - (array(nodes[0]) + moved)) ** 2).sum(-1)
        assert found.tolist() == apart.argmin(1).tolist()


def test_sonet_tells_parts_by_the_mean_over_a_point_s_copies():
    """What is joined for a copy: itself, its node's maximum, neighbourhood and last feature, and the whole cloud's."""
    torch.manual_seed(0)
    model = naive.settled(build_sonet(4, 3, 6, width=0.05, grid=3, node_neighbours=4))
    own = cloud() | {"label": torch.tensor([2])}
    own |= model.precompute(own["points"])
    of = model.encoder(own)  # held against a loop by the tests of the encoder
    index, local, nodes, first, node_max, around, last, top = (
        array(t[0]) for t in (of.index, of.local, of.nodes, of.first, of.node_max, of.around, of.last, of.top)
    )
    rows = []
    for n in range(POINTS):
        point, normal = array(own["points"][0, n]), array(own["features"][0, n])
        copies = []
        for copy in range(3 * n, 3 * n + 3):
            m = int(index[copy])
            known = [
                local[copy],
                point,
                nodes[m],
                normal,
                [0, 0, 1, 0],
                first[copy],
                node_max[m],
                around[m],
                last[m],
                top,
            ]
            copies.append(chain(np.concatenate(known)[None], model.copies)[0])
        rows.append(np.mean(copies, 0))
    close(model.part_logits(own)[0], chain(chain(np.stack(rows), model.points), model.classifier))


# PointNet


def test_pointnet_aligns_points_and_features_and_takes_the_maximum():
    torch.manual_seed(0)
    model = naive.settled(build_pointnet(4, 3, width=0.06))
    net = model.features
    for align in (net.input_transform, net.feature_transform):
        torch.nn.init.normal_(align.matrix[-1].weight, 0, 0.3)  # the identity at the start hides them
    own = cloud()
    x = array(own["points"][0])

    def transform(align, x: np.ndarray) -> np.ndarray:
        return chain(chain(x, align.points).max(0), align.matrix).reshape(align.k, align.k)

    x = x @ transform(net.input_transform, x)
    local = chain(np.concatenate([x, array(own["features"][0])], -1), net.first)
    x = local @ transform(net.feature_transform, local)
    top = chain(chain(x, net.second), net.last).max(0, keepdims=True)
    logits = chain(top, model.head)
    close(model.logits(own), logits)
    # The loss: cross-entropy and 0.001 times the Frobenius norm of A A^T - I.
    a = transform(net.feature_transform, local)
    entropy = np.log(np.exp(logits[0]).sum()) - logits[0, 1]
    expected = entropy + 0.001 * np.linalg.norm(a @ a.T - np.eye(len(a)))
    assert model(own | {"label": torch.tensor([1])})["loss"].item() == pytest.approx(expected, rel=1e-4)


def test_pointnet_joins_the_cloud_s_feature_to_every_point():
    torch.manual_seed(0)
    model = naive.settled(build_pointnet(4, 3, 6, width=0.06, align=False))
    own = cloud() | {"label": torch.tensor([2])}
    net = model.features
    local = chain(np.concatenate([array(own["points"][0]), array(own["features"][0])], -1), net.first)
    top = chain(chain(local, net.second), net.last).max(0)
    joined = np.concatenate([local, np.tile(top, (POINTS, 1)), np.tile([0, 0, 1, 0], (POINTS, 1))], -1)
    close(model.part_logits(own)[0], chain(chain(joined, model.head), model.classifier))


# PointNet++


def naive_abstraction(layer, points: np.ndarray, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if layer.count is None:
        return np.zeros((1, 3)), chain(np.concatenate([points, features], -1), layer.mlps[0]).max(0, keepdims=True)
    centres = points[naive.farthest(points, layer.count)]
    rows = []
    for centre in centres:
        pooled = []
        for (radius, most), mlp in zip(layer.groups, layer.mlps, strict=True):
            group = naive.ball(centre, points, radius, most)
            pooled.append(chain(np.concatenate([points[group] - centre, features[group]], -1), mlp).max(0))
        rows.append(np.concatenate(pooled))
    return centres, np.stack(rows)


SAMPLED = {"width": 0.06, "counts": (12, 5), "neighbours": (8, 6), "radii": (0.3, 0.9)}


@pytest.mark.parametrize(
    ("scales", "balls"),
    [
        (None, [[(0.3, 8)], [(0.9, 6)]]),
        (((4, 8, 16), (3, 6, 9)), [[(0.15, 4), (0.3, 8), (0.6, 16)], [(0.45, 3), (0.9, 6), (1.8, 9)]]),
    ],
)
def test_pointnet2_samples_far_points_and_sees_balls_around_them(scales, balls):
    torch.manual_seed(0)
    model = naive.settled(build_pointnet2(4, 3, scales=scales, **SAMPLED))
    assert [layer.count for layer in model.levels] == [12, 5, None]
    assert [layer.groups for layer in model.levels[:2]] == balls
    own = cloud()
    seen = array(own["points"][0]), array(own["features"][0])
    for layer in model.levels:
        seen = naive_abstraction(layer, *seen)
    close(model.logits(own), chain(seen[1], model.head))


def test_pointnet2_carries_features_back_to_every_point():
    torch.manual_seed(0)
    model = naive.settled(build_pointnet2(4, 3, 6, **SAMPLED))
    own = cloud() | {"label": torch.tensor([2])}
    points, features = array(own["points"][0]), array(own["features"][0])
    found = [(points, features)]
    for layer in model.levels:
        found.append(naive_abstraction(layer, *found[-1]))
    carried = found[-1][1]
    found[0] = points, np.concatenate([np.tile([0, 0, 1, 0], (POINTS, 1)), points, features], -1)
    for level, layer in zip((2, 1, 0), model.up, strict=True):
        fine, skip = found[level]
        carried = naive.interpolated(fine, found[level + 1][0], carried, power=2)
        carried = chain(np.concatenate([carried, skip], -1), layer.mlp)
    close(model.part_logits(own)[0], chain(chain(carried, model.head), model.classifier))
