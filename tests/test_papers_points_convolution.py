"""PointConv: its two forms, its densities, its invariances, its size."""

import inspect

import numpy as np
import pytest
import torch
from torch import nn

from replications import catalogue
from replications.errors import UserError
from replications.layers.points.interpolation import interpolate
from replications.layers.points.shared_mlp import SharedMLP
from replications.papers.pointconv.density import inverse_scale, kernel_density, released_density
from replications.papers.pointconv.images import build_image, build_point
from replications.papers.pointconv.layers import Options, PointConvLayer, PointDeconv
from replications.papers.pointconv.measures import compare_forms, peak_bytes
from replications.papers.pointconv.model import build
from replications.papers.pointconv.operator import DensityNet, PointConv

SMALL = {"width": 0.1, "counts": (12, 5), "neighbours": (6, 4), "bandwidths": (0.2, 0.4, 0.8), "dropout": 0.0}


def settled(module: nn.Module) -> nn.Module:
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d):
            nn.init.uniform_(layer.running_mean, -0.2, 0.2)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    return module.eval()


def test_both_forms_are_the_sum_over_neighbours_and_channels():
    torch.manual_seed(0)
    operator = settled(PointConv(5, [6], 4, weight_widths=(7, 3))).double()
    x, m = torch.randn(2, 3, 8, 6).double(), torch.randn(2, 3, 8, 3).double()
    last = operator.kernel.weight.view(4, 6, 3)  # the weight MLP's last layer, without which W is not complete
    expected = torch.zeros(2, 3, 4).double()
    for b in range(2):
        for n in range(3):
            for k in range(8):
                for c in range(6):
                    expected[b, n] += x[b, n, k, c] * (last[:, c] @ m[b, n, k])
    expected += operator.kernel.bias
    for form in ("reordered", "naive"):
        torch.testing.assert_close(operator.sum(x, m, form), expected, rtol=1e-12, atol=1e-12)


def test_both_forms_have_the_same_gradients():
    torch.manual_seed(0)
    forms = {form: PointConv(5, [6], 4, form=form).double() for form in ("reordered", "naive")}
    forms["naive"].load_state_dict(forms["reordered"].state_dict())
    offset, features = torch.randn(2, 3, 8, 3).double(), torch.randn(2, 3, 8, 5).double()
    density = torch.rand(2, 3, 8).double()
    for operator in forms.values():
        operator(offset, features, density).square().sum().backward()
    for a, b in zip(forms["reordered"].parameters(), forms["naive"].parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-8, atol=1e-10)


def test_the_naive_form_needs_k_c_out_over_c_mid_times_the_memory():
    torch.manual_seed(0)
    operator = PointConv(5, [64], 64)  # c_mid 16
    with torch.no_grad():
        found = compare_forms(operator, torch.randn(1, 16, 32, 64), torch.randn(1, 16, 32, 16))
    assert found["form_memory_computed"] == 32 * 64 / 16
    assert found["form_memory_ratio"] == pytest.approx(found["form_memory_computed"], rel=0.1)
    assert found["form_difference"] < 1e-12


def test_peak_bytes_counts_what_is_held_at_once():
    def block():
        a = torch.ones(1000)
        b = a + 1  # two are held
        del a
        c = b[:500].view(5, 100)  # no new storage
        return c + 1

    assert peak_bytes(block, torch.device("cpu")) == 8000


def test_neighbours_have_no_order():
    torch.manual_seed(0)
    operator = settled(PointConv(5, [6], 4))
    offset, features, density = torch.randn(2, 3, 8, 3), torch.randn(2, 3, 8, 5), torch.rand(2, 3, 8)
    order = torch.randperm(8)
    torch.testing.assert_close(
        operator(offset[:, :, order], features[:, :, order], density[:, :, order]),
        operator(offset, features, density),
    )


def test_the_network_does_not_see_where_the_cloud_is_nor_the_order_of_points():
    torch.manual_seed(0)
    model = settled(build(4, 3, **SMALL))
    cloud = {"points": torch.rand(2, 40, 3), "features": torch.randn(2, 40, 3)}
    before = model.logits(cloud)
    shift = torch.tensor([0.5, -0.25, 0.125])
    torch.testing.assert_close(model.logits(cloud | {"points": cloud["points"] + shift}), before, rtol=1e-3, atol=1e-4)
    # Sampling starts at the first point, which stays.
    order = torch.cat([torch.zeros(1, dtype=torch.long), 1 + torch.randperm(39)])
    shuffled = {name: value[:, order] for name, value in cloud.items()}
    torch.testing.assert_close(model.logits(shuffled), before, rtol=1e-4, atol=1e-5)


def plane(ratio: int = 16) -> torch.Tensor:
    """A square whose left half has `ratio` times the points of its right half, each half a regular grid."""
    fine, coarse = 64, int(64 / ratio**0.5)
    parts = []
    for side, left in ((fine, 0.0), (coarse, 1.0)):
        axis = (torch.arange(side) + 0.5) / side
        x, y = torch.meshgrid(axis + left, axis, indexing="ij")
        parts.append(torch.stack([x.flatten(), y.flatten(), torch.zeros(side * side)], 1))
    return torch.cat(parts)[None]


def middle_ratio(points: torch.Tensor, density: torch.Tensor) -> float:
    x, y = points[0, :, 0], points[0, :, 1]
    inner = (y - 0.5).abs() < 0.2
    left = density[0][inner & ((x - 0.5).abs() < 0.2)].mean()
    return (left / density[0][inner & ((x - 1.5).abs() < 0.2)].mean()).item()


def test_the_kernel_estimate_tells_a_dense_half_from_a_sparse_one_and_the_released_one_does_not():
    points = plane()
    assert middle_ratio(points, kernel_density(points, 0.1)) == pytest.approx(16, rel=0.15)
    # Radius and variance of the released first level; 128 points in a ball are its most.
    assert middle_ratio(points, released_density(points, 0.1, 0.05)) == pytest.approx(1.0, abs=0.05)


def test_densities_against_float64_loops():
    torch.manual_seed(0)
    points = torch.rand(1, 30, 3)
    p = points[0].double().numpy()
    d = ((p[:, None] - p[None]) ** 2).sum(-1)
    expected = np.exp(-d / (2 * 0.3**2)).mean(1) / (2.5 * 0.3)
    torch.testing.assert_close(kernel_density(points, 0.3)[0].double().numpy(), expected, rtol=1e-5, atol=1e-7)
    inside = d < 0.4**2
    kernel = np.exp(-d / (2 * 0.2)) / (2.5 * np.sqrt(0.2)) * inside
    expected = kernel.sum(1) / inside.sum(1)
    torch.testing.assert_close(released_density(points, 0.4, 0.2)[0].double().numpy(), expected, rtol=1e-5, atol=1e-7)


def test_the_inverse_density_is_1_at_the_sparsest_neighbour():
    scale = inverse_scale(torch.tensor([[[1.0, 2.0, 4.0]]]))
    torch.testing.assert_close(scale, torch.tensor([[[1.0, 0.5, 0.25]]]))


def test_the_released_scale_is_zero_for_about_half_of_the_points():
    torch.manual_seed(0)
    values = torch.rand(8, 16, 32)
    share = torch.stack([(DensityNet("relu")(values) == 0).float().mean() for _ in range(10)]).mean()
    assert 0.3 < share < 0.7
    assert (DensityNet("sigmoid")(values) > 0).all()


def test_size_of_the_public_checkpoint():
    """156,655,599 bytes hold weights and momentum of 40 classes with normals; ours has no biases before a norm."""
    model = build(40, 3)
    weights = sum(p.numel() for p in model.parameters())
    buffers = sum(b.numel() for b in model.buffers())
    assert (8 * weights + 4 * buffers) / 156_655_599 == pytest.approx(1, abs=0.001)


def test_deconvolution_is_interpolation_then_convolution_then_the_skip():
    torch.manual_seed(0)
    fine, coarse = torch.rand(2, 20, 3), torch.rand(2, 6, 3)
    skip, features = torch.randn(2, 20, 4), torch.randn(2, 6, 5)
    layer = settled(PointDeconv(8, 0.3, 5, 4, [7, 6], Options()))
    found = layer(fine, coarse, skip, features)
    carried = interpolate(fine, coarse, features)
    _, convolved = layer.convolution(fine, carried, centres=fine)
    torch.testing.assert_close(found, layer.mlp(torch.cat([convolved, skip], -1)))
    assert found.shape == (2, 20, 6)


def test_deconvolution_interpolates_with_the_inverse_squared_distance():
    """As the released TensorFlow code: coarse points at 0.1, 0.2 and 0.4 weigh 16, 4 and 1 parts of 21."""
    layer = PointDeconv(1, 0.3, 3, 0, [7], Options()).eval()
    seen = []
    layer.convolution.register_forward_pre_hook(lambda module, given: seen.append(given[1]))
    coarse = torch.tensor([[[0.1, 0, 0], [0, 0.2, 0], [0, 0, 0.4], [9, 9, 9]]])
    layer(torch.zeros(1, 1, 3), coarse, None, torch.eye(4)[None, :, :3])
    torch.testing.assert_close(seen[0][0, 0], torch.tensor([16.0, 4, 1]) / 21, rtol=1e-4, atol=1e-5)


def test_the_last_level_is_the_whole_cloud_around_its_mean():
    torch.manual_seed(0)
    points = torch.rand(2, 9, 3)
    layer = PointConvLayer(None, None, 0.3, 0, [4], 5, Options())
    group = layer.group(points, None)
    torch.testing.assert_close(group.centres[:, 0], points.mean(1))
    torch.testing.assert_close(group.offset[:, 0], points - points.mean(1, keepdim=True))
    assert group.inverse_density.amax(-1).eq(1).all()


def test_decoders_and_parts():
    cloud = {"points": torch.rand(3, 40, 3), "label": torch.tensor([0, 1, 3])}
    for decoder in ("deconvolution", "interpolation"):
        model = build(4, 0, num_parts=7, decoder=decoder, decoder_neighbours=4, **SMALL)
        assert model.part_logits(cloud).shape == (3, 40, 7)


def test_image_networks_have_the_same_layers_and_one_equals_a_convolution_given_its_weights():
    """With c_mid = 9 and a weight MLP that tells the nine places apart, the sum is a 3 x 3 convolution."""
    torch.manual_seed(0)
    operator = PointConv(2, [], 3, weight_widths=(9,), density="none")
    image = torch.randn(1, 2, 5, 5)
    convolution = nn.Conv2d(2, 3, 3)
    windows = image.unfold(2, 3, 1).unfold(3, 3, 1).permute(0, 2, 3, 4, 5, 1).reshape(1, 9, 9, 2)
    m = torch.eye(9).expand(1, 9, 9, 9)
    with torch.no_grad():
        operator.kernel.weight.copy_(convolution.weight.flatten(2).flatten(1))
        operator.kernel.bias.copy_(convolution.bias)
    torch.testing.assert_close(operator.sum(windows, m).transpose(1, 2).view(1, 3, 3, 3), convolution(image))
    cloud = {"points": torch.rand(2, 64, 3), "features": torch.randn(2, 64, 1)}
    assert build_point(10, 1, 64, width=0.1).logits(cloud).shape == (2, 10)
    assert build_image(10, 1, 64, width=0.1).logits(cloud).shape == (2, 10)


def test_wrong_options_are_named():
    with pytest.raises(UserError, match="did you mean 'reordered'"):
        build(4, 0, **SMALL | {"form": "reorderd"})
    with pytest.raises(UserError, match="unknown density 'kd'"):
        build(4, 0, **SMALL | {"density": "kd"})
    with pytest.raises(UserError, match="decoder must be one of"):
        build(4, 0, num_parts=3, **SMALL | {"decoder": "none"})
    with pytest.raises(UserError, match="do not form a square"):
        build_point(10, 1, 60)


def test_a_shared_mlp_without_layers_is_the_identity():
    x = torch.randn(2, 3, 4)
    assert torch.equal(SharedMLP(4, [])(x), x)


def paper_segmenter(decoder: str) -> nn.Module:
    method = {"deconvolution": "pointconv/pointconv", "interpolation": "pointconv/interpolation"}[decoder]
    spec = catalogue.resolve(method, "paper", 0)
    accepted = inspect.signature(build).parameters
    return build(16, 3, 50, **{name: value for name, value in spec.options.items() if name in accepted})


def test_the_paper_s_segmentation_network_is_the_released_one_level_by_level():
    """1024/256/64/36 centres, K = 32, one hidden layer of 32 in the weight net, 1-16-1 for density; sizes by hand."""
    torch.manual_seed(0)
    model = paper_segmenter("deconvolution")
    assert [layer.count for layer in model.down] == [1024, 256, 64, 36]
    assert [layer.k for layer in model.down] == [32, 32, 32, 32]
    assert [layer.bandwidth for layer in model.down] == [0.1, 0.2, 0.4, 0.8]
    assert [layer.convolution.k for layer in model.up] == [16, 16, 16, 16]
    assert [layer.convolution.bandwidth for layer in model.up] == [0.8, 0.4, 0.2, 0.1]

    def size(module: nn.Module) -> int:
        return sum(p.numel() for p in module.parameters())

    def dense(a: int, b: int) -> int:  # with the scale and shift of its norm, without a bias
        return a * b + 2 * b

    def operator(channels: int, shared: tuple[int, ...], out: int) -> int:
        found = dense(3, 32) + dense(1, 16) + 16 + 1  # weight net, density net
        for width in shared:
            found += dense(channels, width)
            channels = width
        return found + dense(32 * channels, out) + out  # C_mid times C_in to C_out, with a bias

    encoder = ((6, (32, 32), 64), (64, (64, 64), 128), (128, (128, 128), 256), (256, (256, 256), 512))
    for layer, (channels, shared, out) in zip(model.down, encoder, strict=True):
        assert layer.operator.c_mid == 32
        assert size(layer) == operator(3 + channels, shared, out)
    # Coarse channels, skip, widths; the skip of all points is class, position and normal.
    decoder = (
        (512, 256, (512, 512)),
        (512, 128, (256, 256)),
        (256, 64, (256, 128)),
        (128, 16 + 6, (128, 128, 128)),
    )
    for layer, (channels, skip, (first, *rest)) in zip(model.up, decoder, strict=True):
        expected, seen = operator(3 + channels, (), first), first + skip
        for width in rest:
            expected += dense(seen, width)
            seen = width
        assert size(layer) == expected
    assert size(model.head) + size(model.classifier) == dense(128, 128) + 129 * 50
    assert [layer.mlp.channels for layer in paper_segmenter("interpolation").up] == [512, 256, 128, 128]


def test_the_paper_s_segmentation_network_runs_on_2048_points():
    torch.manual_seed(0)
    model = paper_segmenter("deconvolution").eval()
    cloud = {"points": torch.rand(1, 2048, 3), "features": torch.randn(1, 2048, 3), "label": torch.tensor([3])}
    with torch.no_grad():
        assert model.part_logits(cloud).shape == (1, 2048, 50)


def test_parts_have_their_own_levels_and_leave_those_of_classification_alone():
    parts = {"counts": [12, 8, 4], "neighbours": [6, 4, 3], "bandwidths": [0.2, 0.4, 0.8], "weight_widths": [5]}
    segmenter = build(4, 0, num_parts=7, parts=parts, **SMALL)
    assert [(layer.count, layer.k, layer.operator.c_mid) for layer in segmenter.down] == [
        (12, 6, 5),
        (8, 4, 5),
        (4, 3, 5),
    ]
    rest = build(4, 0, num_parts=7, parts={"weight_widths": [5]}, **SMALL)  # what is not named stays as given
    assert [(layer.count, layer.k, layer.bandwidth, layer.operator.c_mid) for layer in rest.down] == [
        (12, 6, 0.2, 5),
        (5, 4, 0.4, 5),
    ]
    classifier = build(4, 0, parts=parts, **SMALL)
    assert [layer.count for layer in classifier.levels] == [12, 5, None]


@pytest.mark.parametrize(
    ("change", "levels"),
    [
        ({"counts": (12, 5, 3), "neighbours": (6, 4)}, "3 counts, 2 neighbours"),
        ({"counts": (12,), "neighbours": (6, 4)}, "1 counts, 2 neighbours"),
        ({"counts": (12, 9, 7, 5, 3), "neighbours": (4,) * 5, "bandwidths": (0.1,) * 5}, "do not make 4 levels"),
        ({"bandwidths": (0.1,)}, "1 bandwidths"),
    ],
)
def test_levels_of_unequal_numbers_are_refused_not_cut(change, levels):
    with pytest.raises(UserError, match=levels):
        build(4, 0, num_parts=7, **SMALL | change)
    with pytest.raises(UserError, match="do not make 3 levels"):
        build(4, 0, **SMALL | change)


def test_an_unknown_option_of_parts_is_named():
    with pytest.raises(UserError, match="the option 'parts' may name counts"):
        build(4, 0, num_parts=7, parts={"count": [4]}, **SMALL)
