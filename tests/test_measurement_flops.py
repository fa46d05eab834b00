"""FLOP counts against closed forms; one multiply-add is two."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from replications.measurement.flops import count_flops, forward_flops

ROOT = Path(__file__).parent.parent


def train(module: nn.Module, x: torch.Tensor) -> None:
    module(x).sum().backward()


def test_linear():
    layer, x = nn.Linear(7, 5), torch.randn(3, 7)
    assert forward_flops(lambda: layer(x)) == 2 * 3 * 7 * 5
    assert forward_flops(lambda: layer(x), samples=3) == 2 * 7 * 5


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_convolution_and_its_gradients(groups):
    layer = nn.Conv2d(8, 16, 3, stride=2, padding=1, groups=groups, bias=False)
    x = torch.randn(2, 8, 9, 9, requires_grad=True)
    closed_form = 2 * 2 * 16 * (8 // groups) * 9 * 5 * 5  # 2 x batch x out x in/groups x kernel x output
    assert forward_flops(lambda: layer(x)) == closed_form
    assert count_flops(lambda: train(layer, x)).total == 3 * closed_form
    first_layer = count_flops(lambda: train(layer, x.detach()))  # the image needs no gradient
    assert first_layer.total == 2 * closed_form


def test_transposed_convolution_counts_its_input_positions():
    layer, x = nn.ConvTranspose2d(4, 6, 2, stride=2), torch.randn(1, 4, 5, 5)
    assert forward_flops(lambda: layer(x)) == 2 * 4 * 6 * 2 * 2 * 5 * 5


def attention(q, k, v):
    weights = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(-1)
    return weights @ v


@pytest.mark.parametrize("causal", [False, True])
def test_fused_attention_counts_as_the_matrix_products_it_replaces(causal):
    q, k, v = (torch.randn(2, 4, n, d, requires_grad=True) for n, d in ((6, 8), (10, 8), (10, 8)))
    fused = count_flops(lambda: F.scaled_dot_product_attention(q, k, v, is_causal=causal).sum().backward())
    plain = count_flops(lambda: attention(q, k, v).sum().backward())
    forward = 2 * (2 * 4) * 6 * 10 * (8 + 8)
    assert forward_flops(lambda: F.scaled_dot_product_attention(q, k, v, is_causal=causal)) == forward
    assert fused.total == plain.total == 3 * forward


def test_transformer_layer_is_not_hidden_by_the_fused_path():
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True).eval()
    x = torch.randn(2, 16, 32)
    projections, feed_forward = 4 * 32 * 32, 2 * 32 * 64
    closed_form = 2 * 2 * 16 * (projections + feed_forward) + 2 * 2 * 2 * 16 * 16 * 32
    assert forward_flops(lambda: layer(x)) == closed_form
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize(
    ("product", "closed_form"),
    [
        (lambda a, b, v: torch.einsum("bij,bjk->bik", a, b), 2 * 3 * 4 * 5 * 6),
        (lambda a, b, v: torch.bmm(a, b), 2 * 3 * 4 * 5 * 6),
        (lambda a, b, v: torch.baddbmm(torch.zeros(3, 4, 6), a, b), 2 * 3 * 4 * 5 * 6),
        (lambda a, b, v: a[0] @ v, 2 * 4 * 5),
        (lambda a, b, v: torch.addmv(torch.zeros(4), a[0], v), 2 * 4 * 5),
        (lambda a, b, v: torch.dot(v, v), 2 * 5),
        (lambda a, b, v: torch.cdist(a[0], b[0].T), 2 * 4 * 6 * 5),
        (lambda a, b, v: a.relu() + 1, 0),
    ],
)
def test_products(product, closed_form):
    a, b, v = torch.randn(3, 4, 5), torch.randn(3, 5, 6), torch.randn(5)
    assert forward_flops(lambda: product(a, b, v)) == closed_form


def test_a_locally_connected_layer_by_unfolding():
    """DeepFace's layer: a filter of its own at every position, as one batched product over positions."""
    x, weights = torch.randn(2, 3, 6, 6), torch.randn(16, 3 * 9, 8)
    flops = forward_flops(lambda: torch.einsum("nfp,pfo->npo", F.unfold(x, 3), weights))
    assert flops == 2 * 2 * 16 * 27 * 8


@pytest.mark.parametrize("weights", ["ResNet50_Weights", "ViT_B_16_Weights", "EfficientNet_B0_Weights"])
def test_whole_networks_against_torchvisions_figures(weights):
    """torchvision publishes each network's billions of multiply-adds; shapes alone decide, so nothing is computed."""
    published = getattr(torchvision.models, weights).IMAGENET1K_V1.meta["_ops"]
    with torch.device("meta"):
        network = getattr(torchvision.models, weights.removesuffix("_Weights").lower())().eval()
        count = forward_flops(lambda: network(torch.empty(1, 3, 224, 224)))
    assert count / 2e9 == pytest.approx(published, abs=0.001)


def test_what_cannot_be_counted_is_named():
    lstm = nn.LSTM(4, 8)
    assert "aten::mkldnn_rnn_layer" in count_flops(lambda: lstm(torch.randn(5, 2, 4))).uncounted
    assert count_flops(lambda: torch.fft.rfft(torch.randn(64))).uncounted == ("aten::_fft_r2c",)
    x = torch.eye(3)
    assert count_flops(lambda: (x.norm(dim=1), torch.linalg.cholesky(x))).uncounted == ("aten::linalg_cholesky_ex",)
    assert count_flops(lambda: train(nn.Conv2d(3, 4, 3), torch.randn(1, 3, 8, 8))).uncounted == ()


def test_a_foreign_kernel_is_named():
    boxes, scores = torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.ones(1)
    assert count_flops(lambda: torchvision.ops.nms(boxes, scores, 0.5)).uncounted == ("torchvision::nms",)


def test_inference_mode_is_seen_through():
    layer, x = nn.Linear(7, 5), torch.randn(3, 7)
    with torch.inference_mode():
        assert count_flops(lambda: layer(x)).by_operation == {"aten::addmm": 2 * 3 * 7 * 5}
        assert count_flops(lambda: x @ x.mT).by_operation == {"aten::mm": 2 * 3 * 7 * 3}


def test_counting_leaves_the_compiler_unimported():
    """The import takes seconds, and every run counts."""
    code = (
        "import sys, torch; from replications.measurement.flops import forward_flops\n"
        "layers = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Linear(6, 2))\n"
        "with torch.inference_mode(): forward_flops(lambda: layers(torch.ones(1, 3, 8, 8)))\n"
        "print({'torch._dynamo', 'sympy'} & set(sys.modules))"
    )
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "set()"


def test_a_compiled_module_counts_as_the_plain_one():
    layer, x = nn.Linear(7, 5), torch.randn(3, 7)
    compiled = torch.compile(layer, backend="eager")
    compiled(x)
    assert forward_flops(lambda: compiled(x)) == 2 * 3 * 7 * 5


def test_autocast_and_precision_do_not_change_the_count():
    layer, x = nn.Conv2d(3, 4, 3), torch.randn(2, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert forward_flops(lambda: layer(x)) == 2 * 2 * 4 * 3 * 9 * 36
