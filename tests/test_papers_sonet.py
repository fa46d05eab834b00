"""SO-Net as released: its encoder and decoder against float64 loops, its sizes by layer, its initialisation."""

import numpy as np
import pytest
import torch
from naive_points import apply, array, chain, layers, normed, settled
from torch import nn

from replications.errors import UserError
from replications.layers.points.chamfer import chamfer_distance
from replications.papers.sonet.decoder import PointDecoder
from replications.papers.sonet.model import build

GRID, K, NEAR = 3, 2, 4
SMALL = {"width": 0.05, "grid": GRID, "node_k": K, "node_neighbours": NEAR, "dropout": 0.0}


def residual(x: np.ndarray, module: nn.Module) -> np.ndarray:
    """The last layer sees the first one's output beside its own input."""
    first, *middle, last = layers(module)
    low = apply(x, *first)
    return apply(np.concatenate([low, chain(low, middle)], -1), *last)


def naive_encoder(encoder, points: np.ndarray, features: np.ndarray, som: np.ndarray, *, form: str, around_node: bool):
    """The released encoder on one cloud, copy by copy and node by node: [nodes, last] and the cloud's feature."""
    nearest = ((points[:, None] - som) ** 2).sum(-1).argsort(1)[:, :K]
    means = np.stack([points[(nearest == m).any(1)].mean(0) for m in range(len(som))])
    copies = [(n, m) for n in range(len(points)) for m in nearest[n]]
    seen = np.stack([np.concatenate([points[n] - means[m], features[n]]) for n, m in copies])
    first = residual(seen, encoder.points)
    node_max = np.stack([first[[m == own for _, m in copies]].max(0) for own in range(len(som))])
    if form == "none":
        last = residual(np.concatenate([means, node_max], -1), encoder.last)
        return last, last.max(0)
    rows = []
    for m in range(len(som)):
        near = ((som - som[m]) ** 2).sum(-1).argsort()[:NEAR]  # of the map, not of the means
        centre = means[m] if around_node else means[near].mean(0)
        joined = np.stack([np.concatenate([means[j] - centre, node_max[j]]) for j in near])
        rows.append(np.concatenate([centre, chain(joined, encoder.around).max(0)]))
    last = chain(np.stack(rows), encoder.last)
    return last, last.max(0)


@pytest.mark.parametrize(("form", "parts"), [("knn", None), ("knn", 5), ("none", None)])
def test_the_encoder_against_a_float64_loop(form, parts):
    """The map is not where the means are: neighbours of a node, and what the last network sees, differ between them."""
    torch.manual_seed(0)
    model = settled(build(4, 3, parts, aggregation=form, **SMALL))
    points, features = torch.rand(40, 3) * 2 - 1, torch.randn(40, 3)
    som = model.precompute(points[None])["nodes"][0]
    som = som + 0.15 * torch.randn(som.shape)
    found = model.encoder({"points": points[None], "features": features[None], "nodes": som[None]})
    last, top = naive_encoder(
        model.encoder, array(points), array(features), array(som), form=form, around_node=parts is not None
    )
    assert (last < 0).any()  # the last layer has no ReLU
    np.testing.assert_allclose(array(found.last[0]), last, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(array(found.top[0]), top, rtol=1e-4, atol=1e-5)


def test_sizes_of_the_released_networks():
    """Released: 1,814,592, two layers 2,336,576, decoder 18,316,294; there every layer before a norm has a bias too."""

    def size(module: nn.Module) -> int:
        return sum(p.numel() for p in module.parameters())

    before_norms = 64 + 128 + 256 + 512 + 512 + 768
    model = build(40, 3)
    assert size(model.encoder) == 1_814_592 - before_norms
    assert size(build(40, 3, aggregation="none").encoder) == 2_336_576 - before_norms
    assert size(model.head) == 1024 * 512 + 512 * 256 + 2 * (512 + 256) + 257 * 40
    joined = 3 + 3 + 3 + 3 + 16 + 384 + 384 + 512 + 1024 + 1024
    segmenter = build(16, 3, 50)
    assert segmenter.copies.layers[0].in_features == joined
    assert segmenter.classifier[1].out_features == 50
    decoder = build(40, 3, reconstruct=True).decoder
    connected = 1024 * 512 + 512 * 768 + 768 * 1024 + 2 * (512 + 768 + 1024) + 1025 * 768
    steps = sum(9 * a * b + 2 * b for a, b in ((1024, 1024), (1024, 512), (512, 256), (256, 128), (128, 128)))
    to_points = 2 * (128 * 128 + 2 * 128 + 129 * 3)
    assert size(decoder) == connected + steps + to_points == 18_316_294 - 4_608


def test_the_last_layer_of_two_layers_sees_1280_channels():
    last = build(40, 3, aggregation="none").encoder.last.last
    assert (last.in_features, last.out_features) == (512 + 768, 1024)


def test_weights_are_he_normal_by_a_layer_s_inputs_and_biases_0():
    torch.manual_seed(0)
    for model in (build(40, 3), build(16, 3, 50), build(40, 3, aggregation="none"), build(40, 3, aggregation="grid")):
        for name, layer in model.named_modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                inputs = layer.weight[0].numel()
                tolerance = 5 / (2 * layer.weight.numel()) ** 0.5  # five standard errors
                assert layer.weight.std().item() == pytest.approx((2 / inputs) ** 0.5, rel=tolerance), name
                assert layer.weight.abs().max() > 2 * (2 / inputs) ** 0.5, name  # normal, not uniform
                assert layer.bias is None or not layer.bias.any(), name
    # In numbers, as the released code draws them: 3 + 3 -> 64 and 896 -> 768 channels.
    encoder = build(40, 3).encoder
    assert encoder.points.first.layers[0].weight.std().item() == pytest.approx(0.577, rel=0.15)
    assert encoder.last.layers[0].weight.std().item() == pytest.approx(0.0623, rel=0.01)


def test_the_decoder_starts_with_points_all_over_the_cube():
    torch.manual_seed(0)
    decoder = PointDecoder(1024, 1.0, 256, 3)
    for step, (inputs, outputs) in zip(
        decoder.steps, ((1024, 1024), (1024, 512), (512, 256), (256, 128), (128, 128)), strict=True
    ):
        convolution = step[1]
        assert (convolution.in_channels, convolution.out_channels) == (inputs, outputs)
        assert convolution.weight.std().item() == pytest.approx((2 / (9 * outputs)) ** 0.5, rel=0.01)
    bias = decoder.connected.layers[-1].bias
    assert bias.abs().max() <= 1 and bias.std().item() == pytest.approx(3**-0.5, rel=0.1)
    assert all(points[-1].bias.any() for points in decoder.to_points)


def test_the_decoder_against_its_layers_in_float64():
    """Up-convolutions from 1 x 1, each doubled by repetition and convolved 3 x 3; the last two levels are points."""
    torch.manual_seed(0)
    decoder = settled(PointDecoder(20, 0.02, 5, 2)).double()
    x = torch.randn(2, 20).double()
    found = decoder(x)
    image = array(x)[:, :, None, None]
    levels = []
    for number, step in enumerate(decoder.steps):
        image = image.repeat(2, axis=2).repeat(2, axis=3)
        image = convolved(image, step[1], step[2])
        if number >= 2:
            points = decoder.to_points[number - 2]
            pixels = convolved(convolved(image, points[0], points[1]), points[3], None)
            levels.append(pixels.reshape(2, 3, -1).transpose(0, 2, 1))
    assert [level.shape[1] for level in levels] == [64, 256]
    connected = chain(array(x), decoder.connected).reshape(2, 3, 5).transpose(0, 2, 1)
    np.testing.assert_allclose(array(found[0]), levels[0], rtol=1e-9)
    np.testing.assert_allclose(array(found[1]), np.concatenate([connected, levels[1]], 1), rtol=1e-9)


def convolved(image: np.ndarray, layer: nn.Conv2d, norm: nn.BatchNorm2d | None) -> np.ndarray:
    """A convolution with a border of zeros, pixel by pixel of the kernel, then norm and ReLU."""
    kernel = array(layer.weight)
    border = kernel.shape[-1] // 2
    padded = np.pad(image, ((0, 0), (0, 0), (border, border), (border, border)))
    side = image.shape[-1]
    y = sum(
        np.einsum("oc,bchw->bohw", kernel[:, :, i, j], padded[:, :, i : i + side, j : j + side])
        for i in range(kernel.shape[-1])
        for j in range(kernel.shape[-1])
    )
    if norm is None:
        return y + array(layer.bias)[:, None, None]
    return np.maximum(normed(y, norm, axis=1), 0)


@pytest.mark.parametrize(
    ("levels", "points"), [(1, [16, 64]), (2, [64, 256]), (3, [256, 1024]), (4, [256, 1024, 4096])]
)
def test_the_loss_sees_16_x_16_and_finer_levels(levels, points):
    decoder = PointDecoder(20, 0.02, 5, levels).eval()
    assert [level.shape[1] for level in decoder(torch.randn(2, 20))] == [*points[:-1], points[-1] + 5]


def test_the_chamfer_distance_is_not_squared():
    a = torch.tensor([[[0.0, 0, 0], [10, 0, 0]]])
    b = torch.tensor([[[3.0, 4, 0]]])
    # To b: 5 and sqrt(7^2 + 4^2); to a: 5.
    assert chamfer_distance(a, b).item() == pytest.approx((5 + 65**0.5) / 2 + 5)


def test_the_chamfer_gradient_is_of_unit_length_and_finite_where_points_coincide():
    a = torch.tensor([[[0.0, 0, 0]]], requires_grad=True)
    for b, expected in (([[[3.0, 4, 0]]], [-1.2, -1.6, 0]), ([[[0.0, 0, 0]]], [0, 0, 0])):
        (found,) = torch.autograd.grad(chamfer_distance(a, torch.tensor(b)).sum(), a)
        np.testing.assert_allclose(found[0, 0].numpy(), expected, atol=1e-6)


def test_the_autoencoder_s_loss_is_the_chamfer_distance_of_both_levels():
    torch.manual_seed(0)
    model = build(4, 0, reconstruct=True, connected_points=5, pyramid_levels=1, **SMALL).eval()
    points = torch.rand(2, 30, 3) * 2 - 1
    cloud = {"points": points, **model.precompute(points)}
    losses = []
    for drawn in model.decoder(model.encode(cloud)):
        d = np.linalg.norm(array(drawn)[:, :, None] - array(points)[:, None], axis=-1)
        losses.append((d.min(2).mean(1) + d.min(1).mean(1)).mean())
    found = model(cloud)
    assert found["loss"].item() == pytest.approx(sum(losses), rel=1e-4)
    assert found["chamfer"].item() == pytest.approx(losses[-1], rel=1e-4)


def test_wrong_levels_of_the_pyramid_are_named():
    for wrong in (0, 5):
        with pytest.raises(UserError, match=f"pyramid_levels must be between 1 and 4, not {wrong}"):
            build(4, 0, reconstruct=True, pyramid_levels=wrong, **SMALL)
