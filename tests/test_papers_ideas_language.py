"""Each language paper's one idea, position by position: broken on purpose, a test here fails (see tests/README.md)."""

import math

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from replications.layers.text.attention import SoftmaxAttention
from replications.papers.flash.gau import QuadraticUnit
from replications.papers.flash.mixed import MixedChunkUnit
from replications.papers.linear_attention.features import EluFeatures
from replications.papers.linear_attention.model import LinearAttention

N, WIDTH, HEADS = 7, 8, 2


def randomised(module):
    torch.manual_seed(0)
    for parameter in module.double().parameters():
        nn.init.normal_(parameter, std=0.5)
    return module


def sequence():
    return torch.randn(N, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def turned(vector, position):
    """Su et al. 2021: channel i and i + d/2 are turned by position * 10000^(-2i/d)."""
    half = len(vector) // 2
    out = vector.clone()
    for i in range(half):
        angle = position * 10000.0 ** (-i / half)
        a, b = vector[i], vector[half + i]
        out[i], out[half + i] = a * math.cos(angle) - b * math.sin(angle), b * math.cos(angle) + a * math.sin(angle)
    return out


def by_heads(mixer, x):
    """Queries, keys and values of each head: lists of ``[n, c]``."""
    query, key, value = (x @ mixer.into.weight.T).chunk(3, dim=-1)
    return zip(*(part.chunk(HEADS, dim=-1) for part in (query, key, value)), strict=True)


@pytest.mark.parametrize("causal", [True, False])
def test_softmax_attention_is_written_out(causal):
    """Vaswani et al., Eq. 1: softmax(q.k / sqrt(d)) v of what lies behind, in each head."""
    mixer, x, heads = randomised(SoftmaxAttention(WIDTH, HEADS, causal)), sequence(), []
    for query, key, value in by_heads(mixer, x):
        rows = []
        for i in range(N):
            seen = range(i + 1 if causal else N)
            scores = [turned(query[i], i) @ turned(key[j], j) / math.sqrt(WIDTH // HEADS) for j in seen]
            weights = torch.stack(scores).exp()
            rows.append((weights[:, None] * value[list(seen)]).sum(0) / weights.sum())
        heads.append(torch.stack(rows))
    torch.testing.assert_close(mixer(x[None])[0], torch.cat(heads, -1) @ mixer.out.weight.T)


def test_the_feature_map_is_elu_plus_one():
    x = torch.tensor([-2.0, -0.5, 0.0, 3.0], dtype=torch.float64)
    expected = torch.tensor([math.exp(-2), math.exp(-0.5), 1.0, 4.0], dtype=torch.float64)
    torch.testing.assert_close(EluFeatures(4).query(x), expected)
    torch.testing.assert_close(EluFeatures(4).key(x), expected)


@pytest.mark.parametrize("chunk", [2, 16])
@pytest.mark.parametrize("causal", [True, False])
def test_linear_attention_is_written_out(causal, chunk):
    """Katharopoulos et al., Eq. 5 to 9: phi(q).phi(k) for exp(q.k), phi = elu + 1; causal sums run up to a position."""
    mixer = randomised(LinearAttention(WIDTH, HEADS, causal, EluFeatures(WIDTH // HEADS), "chunked", chunk))
    x, heads = sequence(), []

    def phi(vector):
        return torch.where(vector > 0, vector + 1, vector.exp())

    for query, key, value in by_heads(mixer, x):
        rows = []
        for i in range(N):
            seen = range(i + 1 if causal else N)
            weights = torch.stack([phi(query[i]) @ phi(key[j]) for j in seen])
            rows.append((weights[:, None] * value[list(seen)]).sum(0) / weights.sum())
        heads.append(torch.stack(rows))
    expected = torch.cat(heads, -1) @ mixer.out.weight.T
    torch.testing.assert_close(mixer(x[None])[0], expected, rtol=1e-5, atol=1e-5)  # 1e-6 in the denominator


def gated_parts(unit, x):
    """Gate, value and heads of a unit: all of one projection, the heads of one z by scale and offset, then turned."""
    projected = x @ unit.into.weight.T
    gate, value, z = (projected * projected.sigmoid()).split([unit.hidden, unit.hidden, unit.key_size], dim=-1)
    heads = [
        torch.stack([turned(z[i] * gamma + beta, i) for i in range(N)])
        for gamma, beta in zip(unit.heads.gamma, unit.heads.beta, strict=True)
    ]
    return gate, value, heads


def bias(unit, i, j):
    first, second = unit.bias.vectors
    return turned(first, i) @ turned(second, j)


@pytest.mark.parametrize("causal", [True, False])
def test_the_gated_attention_unit_is_written_out(causal):
    """Hua et al., Section 2: o = (u * relu(q.k / n + b)^2 v) Wo."""
    unit, x, rows = randomised(QuadraticUnit(WIDTH, 4, 2, causal, N, "relu2", "length")), sequence(), []
    gate, value, (query, key) = gated_parts(unit, x)
    for i in range(N):
        weights = [(query[i] @ key[j] / N + bias(unit, i, j)).clamp(min=0) ** 2 for j in range(i + 1 if causal else N)]
        rows.append(gate[i] * (torch.stack(weights)[:, None] * value[: len(weights)]).sum(0))
    torch.testing.assert_close(unit(x[None])[0], torch.stack(rows) @ unit.out.weight.T)


@pytest.mark.parametrize("causal", [True, False])
def test_mixed_chunk_attention_is_written_out(causal):
    """Hua et al., Section 3: squared ReLU within a chunk, linear attention over the chunks before (all, if not causal);
    our causal sum is a mean over the positions in it."""
    chunk = 3
    unit, x, rows = randomised(MixedChunkUnit(WIDTH, 4, 2, causal, chunk, "both")), sequence(), []
    gate, value, (query, key, far_query, far_key) = gated_parts(unit, x)
    for i in range(N):
        start = i - i % chunk
        near = range(start, i + 1) if causal else range(start, min(start + chunk, N))
        mixed = sum((query[i] @ key[j] / chunk + bias(unit, i, j)).clamp(min=0) ** 2 * value[j] for j in near)
        far = range(start) if causal else range(N)
        mixed = mixed + sum((far_query[i] @ far_key[j] * value[j] for j in far), torch.zeros_like(mixed)) / max(
            len(far), 1
        )
        rows.append(gate[i] * mixed)
    torch.testing.assert_close(unit(x[None])[0], torch.stack(rows) @ unit.out.weight.T)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("kind", ["linear", "flash"])
def test_the_cost_is_linear_in_the_length(kind, causal):
    """The idea of both papers: twice the length takes twice the multiply-adds, where softmax attention takes more."""

    def flops(mixer, n):
        with FlopCounterMode(display=False) as counter:
            mixer(torch.zeros(1, n, WIDTH))
        return counter.get_total_flops()

    if kind == "linear":
        mixer = LinearAttention(WIDTH, HEADS, causal, EluFeatures(WIDTH // HEADS), "chunked", 16)
    else:
        mixer = MixedChunkUnit(WIDTH, 4, 2, causal, 16, "both")
        mixer.bias.forward = lambda rows, start=0: torch.zeros(rows, rows + start)  # of a chunk: the same at any length
    assert flops(mixer, 256) == 2 * flops(mixer, 128)
    softmax = SoftmaxAttention(WIDTH, HEADS, causal, "naive")
    assert flops(softmax, 256) > 2.5 * flops(softmax, 128)
