"""PointNet++'s layers: against a loop, their invariances, and their options."""

import pytest
import torch
from torch import nn

from replications.layers.points.neighbours import ball_query
from replications.layers.points.pointnet2 import MultiScaleSetAbstraction, SetAbstraction
from replications.layers.points.propagation import FeaturePropagation
from replications.layers.points.sampling import farthest_point_sample
from replications.layers.points.shared_mlp import SharedMLP, he_normal_


def settled(module: nn.Module) -> nn.Module:
    """In eval mode, with norms that are not the identity."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d):
            nn.init.uniform_(layer.running_mean, -0.2, 0.2)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    return module.eval()


@pytest.mark.parametrize("normalise", [False, True])
def test_set_abstraction_against_a_loop(normalise):
    torch.manual_seed(0)
    points, features = torch.rand(2, 40, 3), torch.rand(2, 40, 5)
    layer = settled(SetAbstraction(7, 0.4, 6, 5, [8, 9], normalise_xyz=normalise))
    centres, pooled, indices = layer(points, features)
    assert torch.equal(indices, farthest_point_sample(points, 7))
    for b in range(2):
        for m, index in enumerate(indices[b]):
            group = ball_query(points[b : b + 1, index : index + 1], points[b : b + 1], 0.4, 6)[0, 0]
            offset = (points[b, group] - points[b, index]) / (0.4 if normalise else 1)
            expected = layer.mlps[0](torch.cat([offset, features[b, group]], 1)).amax(0)
            torch.testing.assert_close(pooled[b, m], expected)
            torch.testing.assert_close(centres[b, m], points[b, index])


def test_multi_scale_is_its_scales_side_by_side():
    torch.manual_seed(0)
    points = torch.rand(2, 40, 3)
    scales = [(0.2, 4, [8]), (0.5, 8, [6])]
    both = settled(MultiScaleSetAbstraction(7, scales, 0))
    pooled = both(points)[1]
    for (radius, k, widths), mlp, part in zip(scales, both.mlps, pooled.split([8, 6], dim=-1), strict=True):
        single = SetAbstraction(7, radius, k, 0, widths).eval()
        single.mlps[0].load_state_dict(mlp.state_dict())
        torch.testing.assert_close(single(points)[1], part)


def test_set_abstraction_moves_with_the_cloud():
    torch.manual_seed(0)
    points = torch.rand(2, 40, 3)
    layer = settled(SetAbstraction(7, 0.4, 40, 0, [8, 9]))
    centres, pooled, _ = layer(points)
    shift = torch.tensor([0.5, -0.25, 2.0])
    moved_centres, moved, _ = layer(points + shift)
    torch.testing.assert_close(moved_centres, centres + shift)
    torch.testing.assert_close(moved, pooled, rtol=1e-4, atol=1e-4)


def test_set_abstraction_does_not_depend_on_the_order_of_points():
    torch.manual_seed(0)
    points, features = torch.rand(2, 40, 3), torch.rand(2, 40, 5)
    layer = settled(SetAbstraction(7, 0.4, 40, 5, [8, 9]))
    # The first point stays: sampling starts there. The groups hold all points within, so their order is no matter.
    order = torch.cat([torch.zeros(1, dtype=torch.long), 1 + torch.randperm(39)])
    torch.testing.assert_close(layer(points[:, order], features[:, order])[1], layer(points, features)[1])


def test_given_centres_are_used():
    points = torch.rand(1, 20, 3)
    indices = torch.tensor([[3, 1, 4]])
    centres, pooled, returned = SetAbstraction(9, 0.5, 4, 0, [8])(points, indices=indices)
    assert torch.equal(returned, indices)
    assert torch.equal(centres[0], points[0, indices[0]])
    assert pooled.shape == (1, 3, 8)


def test_the_whole_cloud_as_one_group():
    torch.manual_seed(0)
    points, features = torch.rand(2, 10, 3), torch.rand(2, 10, 5)
    layer = settled(SetAbstraction(None, None, None, 5, [8]))
    centres, pooled, _ = layer(points, features)
    torch.testing.assert_close(pooled[:, 0], layer.mlps[0](torch.cat([points, features], -1)).amax(1))
    assert (centres == 0).all()


def test_feature_propagation_against_its_parts():
    torch.manual_seed(0)
    fine, own = torch.rand(2, 12, 3), torch.rand(2, 12, 4)
    layer = settled(FeaturePropagation(6 + 4, [8]))
    coarse = fine[:, :1]
    carried = torch.rand(2, 1, 6)
    expected = layer.mlp(torch.cat([carried.expand(2, 12, 6), own], -1))
    torch.testing.assert_close(layer(fine, coarse, own, carried), expected)
    assert settled(FeaturePropagation(6, [8]))(fine, coarse, None, carried).shape == (2, 12, 8)


def test_a_layer_without_positions_and_features_is_refused():
    with pytest.raises(ValueError, match="use_xyz"):
        SetAbstraction(4, 0.1, 4, 0, [8], use_xyz=False)


@pytest.mark.parametrize("options, power", [({}, 2), ({"power": 1}, 1)])
def test_propagation_weighs_coarse_points_by_a_power_of_their_distance(options, power):
    fine, coarse = torch.zeros(1, 1, 3), torch.tensor([[[0.1, 0, 0], [0, 0.2, 0], [0, 0, 0.4]]])
    layer = FeaturePropagation(1, [], **options)
    inverse = [1 / d**power for d in (0.1, 0.2, 0.4)]
    expected = sum(w * v for w, v in zip(inverse, (1.0, 5.0, 9.0), strict=True)) / sum(inverse)
    found = layer(fine, coarse, None, torch.tensor([[[1.0], [5.0], [9.0]]]))
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_he_normal_draws_the_weights_of_shared_networks_and_of_nothing_else():
    torch.manual_seed(0)
    module = nn.ModuleList([SharedMLP(64, [512, 256], last_plain=True), nn.Linear(64, 512)])
    apart, bias = module[1].weight.clone(), module[0].layers[-1].bias.clone()
    he_normal_(module)
    for layer, channels in ((module[0].layers[0], 64), (module[0].layers[3], 512)):
        drawn = layer.weight.double().flatten() / (2 / channels) ** 0.5
        assert drawn.std().item() == pytest.approx(1, abs=0.02) and abs(drawn.mean().item()) < 0.02
        assert (drawn**4).mean().item() == pytest.approx(3, abs=0.2)  # of a normal; 1.8 of a uniform
    assert torch.equal(module[1].weight, apart) and torch.equal(module[0].layers[-1].bias, bias)
