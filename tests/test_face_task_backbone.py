"""IResNet: known parameter counts by an independent formula, geometry; heads: definitions and precision."""

import math

import pytest
import torch
import torch.nn.functional as F

from replications.errors import UserError
from replications.layers.faces.backbone import BLOCKS, IBasicBlock, IResNet
from replications.layers.faces.heads import (
    CosineHead,
    FaceClassifier,
    SoftmaxHead,
    replace_target,
    target_of,
)


def parameters_by_formula(blocks, embedding_dim=512, size=112):
    """The published layout, counted by hand: weights, two a BatchNorm channel, one a PReLU channel."""
    total = 3 * 64 * 9 + 2 * 64 + 64
    before = 64
    for number, channels in zip(blocks, (64, 128, 256, 512), strict=True):
        total += before * channels + 2 * channels  # shortcut of the stage's first block
        for index in range(number):
            inputs = before if index == 0 else channels
            total += 2 * inputs + 9 * inputs * channels + 2 * channels + channels
            total += 9 * channels * channels + 2 * channels
        before = channels
        size = math.ceil(size / 2)
    return total + 2 * 512 + 512 * size * size * embedding_dim + embedding_dim + 2 * embedding_dim


# arcface_torch's own classes have these counts too: state dicts and outputs were compared for depths 18 to
# 200.
@pytest.mark.parametrize(("depth", "expected"), [(18, 24_025_600), (50, 43_590_848), (100, 65_156_160)])
def test_parameter_counts_of_the_published_networks(depth, expected):
    with torch.device("meta"):
        network = IResNet(depth)
    assert sum(p.numel() for p in network.parameters()) == expected == parameters_by_formula(BLOCKS[depth])


def test_parameter_names_are_those_of_arcface_torch():
    with torch.device("meta"):
        names = set(IResNet(18).state_dict())
    assert {
        "conv1.weight",
        "prelu.weight",
        "layer1.0.downsample.0.weight",
        "layer1.0.downsample.1.running_var",
        "layer4.1.bn1.bias",
        "layer4.1.conv1.weight",
        "layer4.1.prelu.weight",
        "layer4.1.bn3.weight",
        "bn2.running_mean",
        "fc.bias",
        "features.num_batches_tracked",
    } <= names


@pytest.mark.parametrize("size", [16, 31, 32, 56, 112])
def test_any_image_size(size):
    network = IResNet(10, width=0.125, embedding_dim=7, image_size=size)
    assert network(torch.randn(2, 3, size, size)).shape == (2, 7)
    assert network.fc.in_features == 64 * math.ceil(size / 16) ** 2


def test_width_scales_every_stage():
    network = IResNet(18, width=0.25, embedding_dim=64, image_size=56)
    assert [getattr(network, f"layer{i}")[-1].conv2.out_channels for i in range(1, 5)] == [16, 32, 64, 128]
    assert len(network.layer1) == 2
    with pytest.raises(UserError, match="no depth 19"):
        IResNet(19)


def test_block_is_the_sum_of_its_branches_in_order():
    torch.manual_seed(0)
    block = IBasicBlock(4, 4, stride=1).eval()
    for module in block.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    x = torch.randn(2, 4, 6, 6)
    assert block.downsample is None
    out = F.conv2d(block.bn1(x), block.conv1.weight, padding=1)
    out = F.conv2d(F.prelu(block.bn2(out), block.prelu.weight), block.conv2.weight, padding=1)
    torch.testing.assert_close(block(x), block.bn3(out) + x)
    assert IBasicBlock(4, 4, stride=2).downsample[0].stride == (2, 2)


def test_initialisation_and_fixed_scale_of_the_last_norm():
    torch.manual_seed(0)
    network = IResNet(18, width=0.5, image_size=32)
    assert network.layer3[0].conv1.weight.std().item() == pytest.approx(0.1, rel=0.05)
    assert not network.features.weight.requires_grad and bool((network.features.weight == 1).all())
    assert network.features.bias.requires_grad
    assert {m.eps for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {1e-5}


def test_cosine_head_is_scaled_cosine_whatever_the_lengths():
    torch.manual_seed(0)
    head = CosineHead(8, 5, scale=30.0)
    assert head.weight.std().item() == pytest.approx(0.01, rel=0.5)
    embedding, label = torch.randn(6, 8), torch.arange(6) % 5
    output = head(embedding, label)
    expected = F.cosine_similarity(embedding[:, None], head.weight[None], dim=2)
    torch.testing.assert_close(output.cosine, expected.detach())
    torch.testing.assert_close(output.logits, 30.0 * expected)
    scaled = head(embedding * 100, label)
    torch.testing.assert_close(scaled.logits, output.logits)


def test_margin_hook_changes_the_loss_and_not_the_prediction():
    class Margin(CosineHead):
        def margin_logits(self, cosine, label):
            return replace_target(cosine, label, target_of(cosine, label) - 0.35)

    torch.manual_seed(0)
    head = Margin(8, 5, scale=10.0)
    embedding, label = torch.randn(6, 8), torch.arange(6) % 5
    output = head(embedding, label)
    own = F.one_hot(label, 5).bool()
    torch.testing.assert_close(output.logits, 10.0 * (output.cosine - 0.35 * own))
    torch.testing.assert_close(output.plain.argmax(1), output.cosine.argmax(1))
    torch.testing.assert_close(target_of(output.cosine, label), output.cosine[own])


def test_heads_compute_in_float32_under_autocast():
    torch.manual_seed(0)
    label = torch.tensor([0, 1])
    for head in (CosineHead(16, 3), SoftmaxHead(16, 3)):
        embedding = torch.randn(2, 16)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = head(embedding, label)
        assert mixed.logits.dtype == torch.float32
        torch.testing.assert_close(mixed.logits, head(embedding, label).logits, rtol=0, atol=0)


def test_cosine_stays_in_range_and_finite_at_the_ends():
    head = CosineHead(3, 2)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[0.1, 0.1, 0.1], [-0.1, -0.1, -0.1]]))
    embedding = torch.full((1, 3), 0.7, requires_grad=True)
    output = head(embedding, torch.tensor([0]))
    assert output.cosine.abs().max() <= 1.0
    F.cross_entropy(output.logits, torch.tensor([0])).backward()
    assert torch.isfinite(embedding.grad).all() and torch.isfinite(head.weight.grad).all()


def test_softmax_head_is_linear_with_bias():
    torch.manual_seed(0)
    head = SoftmaxHead(4, 3)
    with torch.no_grad():
        head.bias.normal_()
    embedding, label = torch.randn(5, 4), torch.zeros(5, dtype=torch.long)
    output = head(embedding, label)
    torch.testing.assert_close(output.logits, F.linear(embedding, head.weight, head.bias))
    torch.testing.assert_close(
        output.cosine, F.cosine_similarity(embedding[:, None], head.weight[None], dim=2).detach()
    )


def test_classifier_logs_accuracy_and_angle_and_drops_its_head_at_test_time():
    torch.manual_seed(0)
    backbone = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2, bias=False))
    model = FaceClassifier(backbone, CosineHead(2, 3, scale=8.0))
    with torch.no_grad():
        model.head.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]))
    image, label = torch.randn(4, 3, 2, 2), torch.tensor([0, 1, 2, 0])
    logged = model({"image": image, "label": label})
    cosine = F.cosine_similarity(backbone(image)[:, None], model.head.weight[None], dim=2)
    assert logged["loss"].item() == pytest.approx(F.cross_entropy(8 * cosine, label).item(), rel=1e-5)
    correct = (cosine.argmax(1) == label).float().mean()
    assert logged["identification_accuracy"].item() == pytest.approx(100 * correct.item())
    angle = torch.rad2deg(torch.acos(target_of(cosine, label))).mean().item()
    assert logged["target_angle"].item() == pytest.approx(angle, rel=1e-4)
    assert not logged["target_angle"].requires_grad
    assert model.inference_parameters() == 24
    assert model.class_weights() is model.head.weight
    assert list(model.verifiers()) == ["cosine"]
