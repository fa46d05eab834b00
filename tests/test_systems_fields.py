"""Receptive fields: the formula against sets of pixels made by a loop, effective fields against closed forms."""

import random

import numpy as np
import pytest
import torch

from replications.errors import UserError
from replications.papers.receptive_field import effective, fields, model
from replications.papers.receptive_field.fields import NETWORKS, Layer, field


def pixels(layers, unit):
    """The pixels that a unit sees along an axis, layer by layer from the top."""
    seen = {unit}
    for layer in reversed(layers):
        seen = {i * layer.stride - layer.padding + layer.dilation * t for i in seen for t in range(layer.kernel)}
    return seen


def test_the_formula_is_what_a_loop_over_sets_finds():
    draws = random.Random(0)
    for _ in range(200):
        layers = [
            Layer(draws.randint(1, 5), draws.randint(1, 3), draws.randint(0, 2), draws.randint(1, 3))
            for _ in range(draws.randint(1, 5))
        ]
        found, unit = field(layers), draws.randint(0, 9)
        seen = pixels(layers, unit)
        assert (min(seen), max(seen)) == (found.first(unit), found.first(unit) + found.size - 1)


@pytest.mark.parametrize(
    ("network", "size", "jump", "padding"),
    [
        ("vgg_16", 212, 32, 90),
        ("resnet_50", 483, 32, 241),
        ("resnet_101", 1027, 32, 513),
        ("resnet_152", 1507, 32, 753),
        ("resnet_50_on_3x3", 427, 32, 213),
        ("lenet", 16, 4, 0),
        ("dilated", 31, 1, 15),
    ],
)
def test_published_fields(network, size, jump, padding):
    found = field(NETWORKS[network])
    assert (found.size, found.jump) == (size, jump)
    assert found.padding == padding


def test_gradients_reach_the_sets_of_the_loop():
    layers = [Layer(3, 2, 1), Layer(2, 1, 0, 4), Layer(3, 1, 1)]
    seen = pixels(layers, 4)
    image = torch.zeros(1, 1, 40, 40, dtype=torch.float64, requires_grad=True)
    fields.path_counts(layers, image)[0, 0, 4, 4].backward()
    assert set(image.grad[0, 0].any(1).nonzero().flatten().tolist()) == seen
    rows, columns, differ = model.gradient_extent(layers, 4, 40, min(seen), max(seen))
    assert rows == columns == (min(seen), max(seen))
    assert len(seen) == max(seen) - min(seen)  # one pixel is missed between the taps of the dilated layer
    assert differ == (max(seen) - min(seen) + 1) ** 2 - len(seen) ** 2


def test_a_row_compares_gradient_and_formula(monkeypatch):
    row = model.formula(["lenet", "dilated"])
    assert np.array_equal(row.found, row.stated) and row.metrics["support_difference"] == 0
    monkeypatch.setattr(model, "field", lambda layers: fields.Field(field(layers).size + 2, 1, 0))
    row = model.formula(["dilated"])
    assert np.abs(np.subtract(row.found, row.stated)).max() > 0 and row.metrics["support_difference"] > 0
    with pytest.raises(UserError, match=r"networks: unknown 'lenett'.*lenet"):
        model.formula(["lenett"])


@pytest.mark.parametrize("depth", [1, 4, 9])
def test_equal_weights_give_the_closed_forms(depth):
    """n uniform kernels of width 3 have variance 2n/3; with a skip each is averaged with a point: n/3."""
    for skip, variance in ((False, 2 * depth / 3), (True, depth / 3)):
        gradients = effective.gradient_maps([Layer(3)] * depth, 2, 3, weights="uniform", skip=skip)
        assert effective.spread(effective.importance(gradients, "uniform")) == pytest.approx(variance**0.5, abs=1e-12)


def test_gradients_of_random_networks_fill_the_square_and_no_more():
    layers = [Layer(3), Layer(3, 2), Layer(3, 1, 0, 2)]
    square = effective.square(layers)
    reached = (effective.gradient_maps(layers, 3, 2, weights="random") != 0).any(1).any(0)
    assert torch.equal(reached, square) and int(square.sum()) == field(layers).size ** 2 == 13**2
    rectified = effective.gradient_maps(layers, 3, 2, weights="random", relu=True) != 0
    assert not (rectified.any(1).any(0) & ~square).any() and rectified.float().mean() < reached.float().mean()


def test_random_gradients_are_of_single_networks():
    """One layer's gradient is its kernel: normal of variance 1 / 18, and its square's map is flat."""
    gradients = effective.gradient_maps([Layer(3)], 4000, 2, weights="random")[..., 2:5, 2:5]
    assert float(gradients.var()) == pytest.approx(1 / 18, rel=0.03) and abs(float(gradients.mean())) < 0.005
    assert effective.importance(gradients, "random") == pytest.approx(np.full((3, 3), 1 / 9), rel=0.1)


def test_area_and_distance_of_maps_that_are_known():
    places = np.arange(81) - 40.0
    normal = np.exp(-(places**2) / (2 * 5.0**2))
    disc = np.outer(normal, normal) / normal.sum() ** 2
    assert effective.spread(disc) == pytest.approx(5.0) and effective.gaussian_distance(disc) < 1e-9
    radius = (-2 * np.log(effective.TWO_SIGMA)) ** 0.5 * 5
    assert effective.effective_area(disc) == pytest.approx(np.pi * radius**2, rel=0.02)
    edges = np.zeros((81, 81))
    edges[[0, 0, -1, -1], [0, -1, 0, -1]] = 0.25
    assert effective.gaussian_distance(edges) > 0.9


def test_growth_is_fitted_over_depths():
    row = model.build([4, 8, 16], 8, 1, weights="uniform")
    assert row.metrics["growth_exponent"] == pytest.approx(0.5) and row.metrics["spread_error"] < 1e-9
    assert row.metrics["spread"] == pytest.approx((16 / 3) ** 0.5) and row.metrics["shape_exponent"] < -0.5
    shares = []
    for depth in (4, 8, 16):  # n-fold convolutions, without a network
        profile = np.ones(1)
        for _ in range(depth):
            profile = np.convolve(profile, np.ones(3))
        kernel = np.outer(profile, profile)
        shares.append(np.mean(kernel >= 0.0455 * kernel.max()))
    slope = np.polyfit(np.log([4, 8, 16]), np.log(shares), 1)[0]
    assert row.metrics["area_exponent"] == pytest.approx(slope) and slope < -0.7
    assert np.array_equal(row.found, row.stated) and set(row.arrays) == {"map_4", "map_8", "map_16"}
