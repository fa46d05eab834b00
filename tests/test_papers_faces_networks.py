"""DeepID, DeepFace and Eigenfaces: layers against naive loops, sizes and parameters of the papers."""

import copy

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from replications.layers.faces.locally_connected import LocallyConnected2d
from replications.papers.deepface.model import InnerProduct
from replications.papers.deepface.model import build as build_deepface
from replications.papers.deepid.model import ConvNets, DeepID, FirstPatch
from replications.papers.deepid.model import build as build_deepid
from replications.papers.deepid.patches import RECTANGLE, SQUARE, CropAndResize, patch_set
from replications.papers.eigenfaces.model import build as build_eigenfaces

LAYERS = [
    {"kernel": 3, "input_size": (8, 6), "share": 2},
    {"kernel": 2, "input_size": (3, 2)},
    {"kernel": 3, "input_size": (9, 7), "stride": 2},
]


def layer_of(nets, **options):
    torch.manual_seed(0)
    layer = LocallyConnected2d(4, 5, nets=nets, **options)
    torch.nn.init.normal_(layer.bias)
    return layer


@pytest.mark.parametrize("nets", [1, 3])
@pytest.mark.parametrize("options", LAYERS)
def test_locally_connected_equals_a_naive_loop(options, nets):
    layer = layer_of(nets, **options)
    x = torch.randn(2, nets * 4, *options["input_size"])
    height, width = layer.output_size
    columns = width // layer.share
    weight = layer.weight.view(nets, -1, 4, layer.kernel, layer.kernel, 5)
    bias = layer.bias.view(nets, -1, 5)
    expected = torch.empty(2, nets * 5, height, width)
    for net in range(nets):
        for i in range(height):
            for j in range(width):
                region = (i // layer.share) * columns + j // layer.share
                top, left = i * layer.stride, j * layer.stride
                window = x[:, net * 4 : net * 4 + 4, top : top + layer.kernel, left : left + layer.kernel]
                out = torch.einsum("bchw,chwo->bo", window, weight[net, region]) + bias[net, region]
                expected[:, net * 5 : net * 5 + 5, i, j] = out
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", LAYERS)
def test_locally_connected_with_tied_weights_is_a_convolution(options):
    nets = 2
    layer = layer_of(nets, **options)
    weight, bias = torch.randn(nets * 5, 4, layer.kernel, layer.kernel), torch.randn(nets * 5)
    with torch.no_grad():
        for parameter, tied in (
            (layer.weight, weight.view(nets, 1, 5, -1).transpose(2, 3)),
            (layer.bias, bias.view(nets, 1, 1, 5)),
        ):
            parameter.view(nets, -1, *parameter.shape[1:]).copy_(tied)
    x = torch.randn(2, nets * 4, *options["input_size"])
    expected = F.conv2d(x, weight, bias, stride=layer.stride, groups=nets)
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)


def test_locally_connected_refuses_an_output_that_does_not_divide():
    with pytest.raises(ValueError, match="regions of 2x2"):
        LocallyConnected2d(1, 1, 3, (7, 6), share=2)


@pytest.mark.parametrize(
    ("size", "channels", "pool3", "conv4", "weights"),
    [(RECTANGLE, 3, 360, 160, 259_360), (SQUARE, 1, 240, 80, 164_320)],
)
def test_deepid_convnet_has_the_papers_sizes(size, channels, pool3, conv4, weights):
    net = ConvNets(1, channels, size, multi_scale=True)
    assert net.from_conv3.weight.shape[1] == pool3
    assert net.from_conv4.weight.shape[1] == conv4
    assert sum(p.numel() for name, p in net.named_parameters() if name.endswith("weight")) == weights
    assert net(torch.zeros(2, channels, *size)).shape == (1, 2, 160)


def test_deepid_layer_without_multi_scale_sees_conv4_alone():
    both, one = (ConvNets(1, 3, RECTANGLE, multi_scale=m) for m in (True, False))
    difference = set(dict(both.named_parameters())) - set(dict(one.named_parameters()))
    assert difference == {"from_conv3.weight"}


def test_patch_set_is_the_papers_60():
    patches = patch_set(60)
    assert len(set(patches)) == 60
    assert sum(p.channels == 3 for p in patches) == sum(p.size == SQUARE for p in patches) == 30
    for patch in patches:
        assert min(patch.left, patch.top) >= 0
        assert max(patch.left + patch.width, patch.top + patch.height) <= 1 + 1e-9
        assert patch.height / patch.width == pytest.approx(patch.size[0] / patch.size[1])
    eyes = [p for p in patch_set(3) if p.size == SQUARE]
    centres = [112 * (p.left + p.width / 2) for p in eyes]
    assert centres == pytest.approx([38.3, 73.5])
    for count in (0, 61):
        with pytest.raises(ValueError, match="60 patches"):
            patch_set(count)


@pytest.mark.parametrize("channels", [3, 1])
def test_crop_and_resize_equals_cropping_and_interpolating(channels):
    patches = [p for p in patch_set(60) if p.size == RECTANGLE and p.channels == channels]
    image = torch.rand(2, 3, 112, 112)
    out = CropAndResize(patches, 112)(image).view(2, len(patches), channels, 39, 31)
    if channels == 1:
        image = (image * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    for i, p in enumerate(patches):
        top, left, bottom, right = (round(112 * v) for v in (p.top, p.left, p.top + p.height, p.left + p.width))
        expected = F.interpolate(image[:, :, top:bottom, left:right], RECTANGLE, mode="bilinear", antialias=True)
        torch.testing.assert_close(out[:, i], expected, rtol=1e-4, atol=1e-5)


def tiny_deepid(patches=8, classes=7, image_size=28):
    torch.manual_seed(0)
    return DeepID(classes, image_size, patch_set(60)[:: 60 // patches][:patches])


def alone(model, index, patches):
    """The model's net of one patch as a model of its own, with the same weights."""
    single = DeepID(model.head.weight.shape[2], 28, [patches[index]])
    place = int(model.order[index])
    for net in model.nets:
        if place < net.nets:
            break
        place -= net.nets
    source = dict(net.named_parameters())
    with torch.no_grad():
        for name, parameter in single.nets[0].named_parameters():
            parameter.copy_(source[name].unflatten(0, (net.nets, -1))[place])
        single.head.weight.copy_(model.head.weight[index : index + 1])
        single.head.bias.copy_(model.head.bias[index : index + 1])
    return single


def test_training_the_nets_together_is_training_each_alone():
    patches = patch_set(60)[::7]  # all four kinds: rectangle and square, colour and grey, out of group order
    assert len({(p.size, p.channels) for p in patches}) == 4
    torch.manual_seed(0)
    model = DeepID(7, 28, patches)
    singles = [alone(model, i, patches) for i in range(len(patches))]
    batch = {"image": torch.randn(4, 3, 28, 28), "label": torch.tensor([0, 3, 6, 3])}
    image = torch.randn(2, 3, 28, 28)
    options = {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3}
    losses = []
    for module in (model, *singles):
        optimizer = torch.optim.SGD(module.parameters(), **options)
        for _ in range(3):
            optimizer.zero_grad()
            loss = module(batch)["loss"]
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(sum(losses[1:]), rel=1e-4)
    together = model.embed(image).unflatten(1, (len(patches), -1))
    for i, single in enumerate(singles):
        torch.testing.assert_close(together[:, i], single.embed(image), rtol=1e-4, atol=1e-5)


def test_deepid_embedding_holds_each_patch_then_its_mirror():
    model = build_deepid(7, 28, patches=5).eval()
    image = torch.randn(3, 3, 28, 28)
    with torch.no_grad():
        embedding, mirrored = model.embed(image), model.embed(image.flip(3))
    assert embedding.shape == (3, 5 * 2 * 160)
    assert torch.equal(embedding.view(3, 5, 2, 160).flip(2), mirrored.view(3, 5, 2, 160))
    single = build_deepid(7, 28, patches=1)
    assert single.embed(image).shape == (3, 320)


def test_deepid_verifiers_take_the_columns_they_say():
    rng = np.random.default_rng(0)
    people = rng.normal(size=(30, 2, 320)).astype(np.float32).repeat(4, axis=0)
    features = (people + 0.7 * rng.normal(size=people.shape)).reshape(120, 640).astype(np.float32)
    identity = np.arange(30).repeat(4)
    verifier = FirstPatch(20)
    verifier.fit(features, identity)
    scores = verifier.score(features[:60], features[60:])
    changed = features.copy()
    changed[:, 320:] = rng.normal(size=(120, 320))
    assert np.array_equal(verifier.score(changed[:60], changed[60:]), scores)
    model = build_deepid(7, 28, patches=2)
    assert next(iter(model.verifiers())) == "joint_bayesian"
    assert model.embeds_mirror


def test_deepface_has_the_papers_sizes_and_parameters():
    with torch.device("meta"):
        model = build_deepface(4030, 152)
    sizes = []
    for layer in (model.c1, model.m2, model.c3, model.l4, model.l5, model.l6):
        layer.register_forward_hook(lambda module, args, out: sizes.append(tuple(out.shape[1:])))
    logits = model.head(model.features(torch.empty(1, 3, 152, 152, device="meta")))
    assert sizes == [
        (32, 142, 142),
        (32, 71, 71),
        (16, 63, 63),
        (16, 55, 55),
        (16, 25, 25),
        (16, 21, 21),
    ]
    assert logits.shape == (1, 4030)
    count = {name: p.numel() for name, p in model.named_parameters()}
    total = sum(count.values())
    # The paper says "more than 120 million", "more than 95 %" of them in the local and full layers. Its layer
    # sizes and 4,030 people come to 118.9 million.
    assert total == 118_923_774
    shared = sum(n for name, n in count.items() if name[:2] in ("c1", "c3"))
    assert shared / total < 0.05


def test_deepface_resizes_and_drops_out_f7_alone():
    torch.manual_seed(0)
    model = build_deepface(5, 40, input_size=80, filters=[4, 4, 4, 4, 4], features=32)
    image = torch.randn(2, 3, 40, 40)
    assert torch.equal(model.train().embed(image), model.eval().embed(image))
    model.train()
    batch = {"image": image, "label": torch.tensor([0, 1])}
    assert model(batch)["loss"] != model(batch)["loss"]
    assert (model.embed(image) >= 0).all()


def test_inner_product_is_of_features_over_their_maximum():
    rng = np.random.default_rng(0)
    features = np.abs(rng.normal(size=(50, 6))).astype(np.float32)
    features[:, 5] = 0
    verifier = InnerProduct()
    verifier.fit(features, np.zeros(50))
    scale = np.array([1, 10, 100, 0.1, 3, 1], np.float32)
    scaled = InnerProduct()
    scaled.fit(features * scale, np.zeros(50))
    a, b = features[:25], features[25:]
    scores = verifier.score(a, b)
    assert np.isfinite(scores).all()
    np.testing.assert_allclose(scores, scaled.score(a * scale, b * scale), rtol=1e-5)
    np.testing.assert_allclose(verifier.score(a, a), 1.0, rtol=1e-6)


def test_eigenfaces_is_the_distance_in_the_space_of_the_largest_variance():
    model = build_eigenfaces(10, 112, side=8, components=3)
    assert not list(model.parameters())
    torch.manual_seed(0)
    strength = torch.tensor([4.0, 2.0, 1.0, 0.05, 0.05])
    image = torch.einsum("nk,kchw->nchw", torch.randn(20, 5) * strength, torch.randn(5, 3, 112, 112))
    features = model.embed(image).numpy()
    assert features.shape == (20, 64)
    name, make = next(iter(model.verifiers().items()))
    verifier = make()
    verifier.fit(features, np.zeros(20))
    centred = features - features.mean(0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    projected = centred @ axes[:3].T
    expected = -np.linalg.norm(projected[:10] - projected[10:], axis=1)
    assert name == "euclidean"
    np.testing.assert_allclose(verifier.score(features[:10], features[10:]), expected, rtol=1e-4)


def test_models_are_the_same_after_a_copy_of_their_weights():
    """What is not in the state (patch boxes, order of nets) is rebuilt from the options."""
    model, other = build_deepid(7, 28, patches=6), build_deepid(7, 28, patches=6)
    other.load_state_dict(copy.deepcopy(model.state_dict()))
    image = torch.randn(2, 3, 28, 28)
    assert torch.equal(model.embed(image), other.embed(image))
