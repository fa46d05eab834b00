"""The sequence mixers against their definitions, in float64: causality, equal forms, padding, decoding, counts."""

import math

import pytest
import torch
from torch.nn import functional as F

from replications.layers.text.attention import SoftmaxAttention
from replications.papers.flash import mixed
from replications.papers.flash.gau import QuadraticUnit
from replications.papers.flash.mixed import MixedChunkUnit
from replications.papers.flash.model import build_flash, build_quad
from replications.papers.linear_attention import forms, model
from replications.papers.linear_attention.features import RandomFeatures
from replications.papers.linear_attention.model import build as build_linear
from replications.papers.transformer.model import build as build_transformer

SIZE = {"width": 16, "depth": 1}
HEADED = {**SIZE, "heads": 2}
GATED = {**SIZE, "key_size": 8}
LENGTH = 12
MODELS = {
    "transformer": (build_transformer, HEADED),
    "transformer_pp": (build_transformer, {**HEADED, "gated": True}),
    "sinusoidal": (build_transformer, {**HEADED, "positions": "sinusoidal"}),
    "naive_softmax": (build_transformer, {**HEADED, "attention": "naive"}),
    "linear": (build_linear, {**HEADED, "chunk": 4}),
    "linear_rotary": (build_linear, {**HEADED, "positions": "rotary", "chunk": 4}),
    "cosformer": (build_linear, {**HEADED, "features": "cosformer", "chunk": 4}),
    "favor": (build_linear, {**HEADED, "features": "favor", "chunk": 4}),
    "efficient": (build_linear, {**HEADED, "features": "efficient", "chunk": 4}),
    "quad_length": (build_quad, GATED),
    "quad_longest": (build_quad, {**GATED, "divisor": "longest"}),
    "quad_softmax": (build_quad, {**GATED, "kernel": "softmax"}),
    "quad_softmax_plus": (build_quad, {**GATED, "kernel": "softmax_plus"}),
    "flash": (build_flash, {**GATED, "chunk": 4}),
    "flash_local": (build_flash, {**GATED, "chunk": 4, "parts": "local"}),
    "flash_global": (build_flash, {**GATED, "chunk": 4, "parts": "global"}),
}
LOCAL = {"flash_local"}


def make(name, causal=True, num_classes=None, **changes):
    build, options = MODELS[name]
    info = {"vocabulary": 11, "length": LENGTH, "causal": causal, "num_classes": num_classes}
    if build in (build_transformer, build_flash):
        del info["length"]
    torch.manual_seed(0)
    return build(**info, **{**options, **changes}).double()


def tokens(*shape, seed=1):
    return torch.randint(11, shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("at", [1, 5, 11])
def test_a_changed_token_changes_nothing_before_it_and_something_after(name, at):
    network, before = make(name), tokens(1, LENGTH)
    after = before.clone()
    after[0, at] = (after[0, at] + 1) % 11
    difference = (network.logits(before) - network.logits(after)).abs().amax(dim=-1)[0]
    assert difference[:at].max() < 1e-12
    assert difference[at] > 1e-9
    last = min(LENGTH, 4 * (at // 4 + 1)) if name in LOCAL else LENGTH
    assert (difference[at:last] > 1e-12).all()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("causal", [True, False])
def test_padding_changes_no_real_position(name, causal):
    network, text = make(name, causal), tokens(2, 7)
    padded = torch.cat([text, tokens(2, 4, seed=2)], dim=1)
    valid = (torch.arange(11) < 7).expand(2, 11)
    plain = network.logits(text, None if causal else torch.ones(2, 7, dtype=torch.bool))
    if name == "quad_length" and causal:
        pytest.skip("a causal window is never padded; its divisor is the window's length")
    torch.testing.assert_close(network.logits(padded, valid)[:, :7], plain)
    if not causal:
        torch.testing.assert_close(network.logits(text), plain)


@pytest.mark.parametrize("name", MODELS)
def test_decoding_token_by_token_equals_the_parallel_form(name):
    network, text = make(name), tokens(2, LENGTH)
    if not network.decodes:
        assert name == "quad_length"
        return
    states = network.start(2, LENGTH)
    decoded = torch.stack([network.step(text[:, i], i, states) for i in range(LENGTH)], dim=1)
    torch.testing.assert_close(decoded, network.logits(text))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("n", [1, 3, 13])
def test_every_length_is_handled(name, n):
    assert make(name).logits(tokens(2, n)).shape == (2, n, 11)
    if n > 1:
        assert make(name, causal=False, num_classes=3).class_logits(tokens(2, n), torch.tensor([n, 1])).isfinite().all()


@pytest.mark.parametrize("name", MODELS)
def test_gradients_of_tiny_mixers(name):
    mixer = make(name, width=4 if "quad" not in name and "flash" not in name else 2).blocks[0].mixer
    width = mixer.out.out_features
    x = torch.randn(1, 5, width, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(mixer, (x,))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("causal", [True, False])
def test_the_weights_of_a_picture_are_those_of_the_output(name, causal):
    mixer = make(name, causal).blocks[0].mixer
    x = torch.randn(2, LENGTH, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    if hasattr(mixer, "project"):
        gate, value, _ = mixer.project(x)
        mixed = gate * (mixer.weights(x)[:, 0] @ value)
    else:
        value = mixer.into(x).chunk(3, dim=-1)[2].unflatten(-1, (mixer.heads, -1)).transpose(1, 2)
        mixed = (mixer.weights(x) @ value).transpose(1, 2).flatten(2)
    torch.testing.assert_close(mixer.out(mixed), mixer(x))


def features(*shape, seed=0):
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + 0.01


@pytest.mark.parametrize("n, chunk", [(1, 4), (4, 4), (10, 4), (16, 4), (10, 64)])
def test_chunked_equals_naive_equals_recurrent(n, chunk):
    query, key, value = (features(2, 3, n, 5, seed=i) for i in range(3))
    naive = forms.causal_naive(query, key, value)
    torch.testing.assert_close(forms.causal_chunked(query, key, value, chunk), naive)
    state = torch.zeros(2, 3, 5, 6, dtype=torch.float64)
    steps = [forms.causal_step(query[:, :, i], key[:, :, i], value[:, :, i], state) for i in range(n)]
    torch.testing.assert_close(torch.stack(steps, dim=2), naive)


def test_full_linear_attention_equals_its_weights():
    query, key, value = (features(2, 3, 9, 5, seed=i) for i in range(3))
    weights = query @ key.transpose(-1, -2)
    torch.testing.assert_close(forms.full(query, key, value), weights @ value / (weights.sum(-1, True) + forms.EPS))


def test_half_precision_keeps_its_sums_in_float32():
    n = 20_000  # a bfloat16 sum of ones stops growing at 256
    ones = torch.ones(1, 1, n, 1, dtype=torch.bfloat16)
    sums = forms.causal_sums(ones, ones, ones)
    assert sums.dtype == torch.float32 and abs(sums[0, 0, -1, 0].item() - n) < 0.01 * n


@pytest.mark.parametrize("causal", [True, False])
def test_efficient_attention_weights_sum_to_one(causal):
    mixer = model.EfficientAttention(8, 2, causal, chunk=4).double()
    with torch.no_grad():  # every value is one, and the output shows the sums of the weights
        mixer.into.weight[16:] = 0
        mixer.out.weight.copy_(torch.eye(8))
        x = torch.randn(2, 10, 8, dtype=torch.float64)
        mixer.into.register_forward_hook(lambda module, args, out: torch.cat([out[..., :16], torch.ones_like(x)], -1))
        torch.testing.assert_close(mixer(x), torch.ones_like(x))


def test_favor_has_less_bias_and_spread_with_more_features():
    torch.manual_seed(0)
    query, key = 0.6 * torch.randn(2, 1, 1, 16, 8).double()
    value = torch.randn(1, 1, 16, 4).double()
    exact = F.scaled_dot_product_attention(query, key, value)
    bias, spread = [], []
    for count in (8, 64, 512):
        estimates = []
        for _ in range(60):
            phi = RandomFeatures(8, count).double()
            estimates.append(forms.full(phi.query(query), phi.key(key), value))
        estimates = torch.stack(estimates)
        bias.append((estimates.mean(0) - exact).square().mean().sqrt().item())
        spread.append(estimates.std(0).square().mean().sqrt().item())
    assert bias[0] > 1.5 * bias[1] > 1.5 * bias[2], bias
    assert spread[0] > 1.4 * spread[1] > 1.96 * spread[2], spread


def test_random_feature_kernel_is_unbiased():
    torch.manual_seed(0)
    q, k = 0.7 * torch.randn(2, 1, 8).double()
    wanted = torch.exp((q @ k.T) / math.sqrt(8)).item()
    found = []
    for _ in range(400):
        phi = RandomFeatures(8, 64).double()
        exponent = phi._exponent(q)
        found.append((exponent.exp() @ phi.key(k).T).item())
    found = torch.tensor(found)
    assert abs(found.mean() - wanted) < 4 * found.std() / math.sqrt(len(found))


@pytest.mark.parametrize("causal", [True, False])
def test_fused_softmax_equals_the_materialised_one(causal):
    torch.manual_seed(0)
    fused = SoftmaxAttention(16, 2, causal).double()
    naive = SoftmaxAttention(16, 2, causal, "naive").double()
    naive.load_state_dict(fused.state_dict())
    x, valid = torch.randn(2, 9, 16).double(), torch.arange(9) < torch.tensor([[9], [4]])
    torch.testing.assert_close(fused(x), naive(x))
    torch.testing.assert_close(fused(x, valid)[1, :4], naive(x, valid)[1, :4])


@pytest.mark.parametrize("causal", [True, False])
def test_one_chunk_without_its_linear_part_is_the_gated_attention_unit(causal):
    torch.manual_seed(0)
    quad = QuadraticUnit(16, 8, 2, causal, longest=10, kernel="relu2", divisor="length").double()
    flash = MixedChunkUnit(16, 8, 2, causal, chunk=10, parts="local").double()
    flash.load_state_dict(quad.state_dict())
    x = torch.randn(2, 10, 16).double()
    torch.testing.assert_close(flash(x), quad(x))


def test_a_large_chunk_in_halves_is_the_whole_one(monkeypatch):
    whole = make("flash", chunk=12).blocks[0].mixer
    x = torch.randn(2, 30, 16, dtype=torch.float64, requires_grad=True)
    expected = whole(x)
    (gradient,) = torch.autograd.grad(expected.square().sum(), x)
    monkeypatch.setattr(mixed, "SMALLEST_HALF", 3)  # halves of 6, quarters of 3
    torch.testing.assert_close(whole(x), expected)
    torch.testing.assert_close(torch.autograd.grad(whole(x).square().sum(), x)[0], gradient)


def test_linear_attention_with_rotary_positions_knows_distances_alone():
    network = make("linear_rotary").blocks[0].mixer
    query, key, _ = network._projections(torch.randn(1, 9, 16, dtype=torch.float64))
    early, late = (forms.causal_weights(query, key, network._turned(query, key, start)) for start in (0, 50))
    torch.testing.assert_close(early, late)
    plain = query @ key.transpose(-1, -2)
    turned = network._turned(query, key)
    above = turned[0] @ turned[1].transpose(-1, -2)
    torch.testing.assert_close(above.diagonal(dim1=-2, dim2=-1), plain.diagonal(dim1=-2, dim2=-1))
    assert (above - plain).abs().max() > 0.1


def test_the_first_chunk_has_no_global_part():
    torch.manual_seed(0)
    both = MixedChunkUnit(16, 8, 2, True, chunk=4, parts="both").double()
    local = MixedChunkUnit(16, 8, 2, True, chunk=4, parts="local").double()
    state = both.state_dict()
    state["heads.gamma"], state["heads.beta"] = state["heads.gamma"][:2], state["heads.beta"][:2]
    local.load_state_dict(state)
    x = torch.randn(1, 8, 16).double()
    torch.testing.assert_close(both(x)[:, :4], local(x)[:, :4])
    assert (both(x)[:, 4:] - local(x)[:, 4:]).abs().max() > 1e-6


def test_the_divisor_is_what_sets_the_normalisations_apart():
    x = torch.randn(1, 24, 16, generator=torch.Generator().manual_seed(0)).double()
    outputs = {}
    for divisor in ("length", "longest"):
        torch.manual_seed(0)
        outputs[divisor] = (
            QuadraticUnit(16, 8, 2, False, LENGTH, "relu2", divisor).double()(x[:, :LENGTH]),
            (QuadraticUnit(16, 8, 2, False, LENGTH, "relu2", divisor).double()),
        )
    torch.testing.assert_close(outputs["length"][0], outputs["longest"][0])  # the same at the training length
    longest = outputs["longest"][1]
    length = QuadraticUnit(16, 8, 2, False, LENGTH, "relu2", "length").double()
    length.load_state_dict(longest.state_dict())
    assert (length(x) - longest(x)).abs().max() > 1e-6


def test_softmax_plus_is_softmax_at_the_training_length():
    torch.manual_seed(0)
    plus = QuadraticUnit(16, 8, 2, False, LENGTH, "softmax_plus", "length").double()
    plain = QuadraticUnit(16, 8, 2, False, LENGTH, "softmax", "length").double()
    plain.load_state_dict(plus.state_dict())
    x = torch.randn(1, 2 * LENGTH, 16).double()
    torch.testing.assert_close(plus(x[:, :LENGTH]), plain(x[:, :LENGTH]))
    assert (plus(x) - plain(x)).abs().max() > 1e-6


def parameters(network):
    return sum(p.numel() for p in network.blocks.parameters() if p.ndim > 1 and p.shape[0] > 4)


def test_two_gated_units_have_the_parameters_of_one_transformer_layer():
    width, key_size = 768, 128
    options = {"width": width, "depth": 1}
    layer = parameters(build_transformer(11, True, None, **options, heads=12))
    gated = parameters(build_transformer(11, True, None, **options, heads=12, gated=True))
    units = parameters(build_quad(11, 64, True, None, **options, key_size=key_size))
    assert layer == gated == 12 * width**2
    assert units == 12 * width**2 + 2 * width * key_size  # 6 d^2 a unit with e = 2, and what makes z
    assert parameters(build_linear(11, 64, True, None, **options, heads=12)) == layer
