"""TRN equals a naive loop in float64; OadTR has the authors' size; no detector looks ahead."""

import pytest
import torch

from replications import catalogue, running
from replications.errors import UserError
from replications.papers.oadtr import model as oadtr
from replications.papers.trn import model as trn

SIZES = {"width": 8, "layers": 2, "heads": 2, "hidden": 12, "decoder_layers": 2, "decoder_heads": 4}
DETECTORS = {
    "trn": lambda: trn.build(5, 4, 6, 3, units=7),
    "encoder_decoder": lambda: trn.build(5, 4, 6, 3, units=7, feedback=False),
    "lstm": lambda: trn.build_lstm(5, 4, 6, 3, units=7),
    "frame": lambda: trn.build_frame(5, 4, 6, 3, units=7),
    "oadtr": lambda: oadtr.build(5, 4, 6, 3, **SIZES),
    "mean": lambda: oadtr.build(5, 4, 6, 3, **SIZES, pool="mean"),
    "last": lambda: oadtr.build(5, 4, 6, 3, **SIZES | {"decoder_layers": 0}, pool="last"),
}


def made(name):
    torch.manual_seed(0)
    return DETECTORS[name]().double().eval()


def cell(layer, x, state):
    """An LSTM step written out; torch's order of gates is input, forget, cell, output."""
    h, c = state
    gates = layer.weight_ih @ x + layer.bias_ih + layer.weight_hh @ h + layer.bias_hh
    i, f, g, o = gates.split(len(h))
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def linear(layer, x):
    return layer.weight @ x + layer.bias


def relu(sequence, x):
    return linear(sequence[0], x).clamp_min(0)


@pytest.mark.parametrize("name", ["trn", "encoder_decoder"])
def test_trn_is_the_loop_of_the_paper(name):
    model, x = made(name), torch.randn(2, 6, 5, dtype=torch.float64)
    now, ahead = model.logits(x)
    assert now.shape == (2, 6, 4) and ahead.shape == (2, 6, 3, 4)
    for stream in range(2):
        state = (torch.zeros(7).double(), torch.zeros(7).double())
        future = torch.zeros(5 if name == "trn" else 0).double()
        for t in range(6):
            state = cell(model.accumulator, torch.cat([relu(model.extract, x[stream, t]), future]), state)
            assert torch.allclose(now[stream, t], linear(model.classifier, state[0]), atol=1e-12)
            decoder = (relu(model.start_hidden, state[0]), relu(model.start_cell, state[1]))
            read, gathered = torch.zeros(7).double(), 0
            for i in range(3):
                decoder = cell(model.decoder, read, decoder)
                logits = linear(model.classifier, decoder[0])
                assert torch.allclose(ahead[stream, t, i], logits, atol=1e-12)
                read = relu(model.read, logits)
                if name == "trn":
                    gathered = gathered + relu(model.future, decoder[0])
            if name == "trn":
                future = gathered / 3


@pytest.mark.parametrize("name", DETECTORS)
def test_a_later_frame_changes_no_earlier_output(name):
    model, x = made(name), torch.randn(2, 9, 5, dtype=torch.float64)
    other = x.clone()
    other[:, 5:] += 1
    before, after = model.score(x, 4), model.score(other, 4)
    assert torch.allclose(before[:, :5], after[:, :5], atol=1e-12)
    assert not torch.allclose(before[:, 5], after[:, 5])
    assert torch.allclose(model.score(x, 1000), before, atol=1e-12)  # nor does it matter how many are scored at once


def test_oadtr_reads_no_more_than_its_window_and_a_recurrent_network_does():
    x = torch.randn(1, 9, 5, dtype=torch.float64)
    other = x.clone()
    other[:, 0] += 1
    for name, same in (("oadtr", True), ("trn", False)):
        model = made(name)
        assert torch.allclose(model.score(x, 9)[:, 6:], model.score(other, 9)[:, 6:], atol=1e-12) is same


def attention(q, k, v, heads, causal=False):
    """Softmax attention of one sequence, head by head."""
    out = []
    for one, two, three in zip(q.chunk(heads, -1), k.chunk(heads, -1), v.chunk(heads, -1), strict=True):
        weight = one @ two.T / one.shape[-1] ** 0.5
        if causal:
            weight = weight + torch.full_like(weight, -torch.inf).triu(1)
        out.append(weight.softmax(-1) @ three)
    return torch.cat(out, -1)


def test_oadtr_is_its_equations():
    model, x = made("oadtr"), torch.randn(6, 5, dtype=torch.float64)
    torch.nn.init.normal_(model.queries)
    torch.nn.init.normal_(model.token)
    h = torch.cat([model.project(x), model.token[0]]) + model.positions
    for layer in model.encoder:
        q, k, v = layer.attention.qkv(layer.attention_norm(h)).chunk(3, -1)
        h = h + layer.attention.out(attention(q, k, v, 2))
        h = h + layer.feed(layer.feed_norm(h))
    h = model.norm(h)
    q = model.queries[0]
    for layer in model.decoder:
        a = layer.among
        q = layer.norms[0](q + a.out(attention(a.query(q), a.key(q), a.value(q), 4, causal=True)))
        a = layer.across
        q = layer.norms[1](q + a.out(attention(a.query(q), a.key(h), a.value(h), 4)))
        q = layer.norms[2](q + layer.feed(q))
    q = model.decoder_norm(q)
    now, ahead = model.logits(x[None])
    assert torch.allclose(now[0, 0], model.now(torch.cat([h[-1], q.mean(0)])), atol=1e-12)
    assert torch.allclose(ahead[0, 0], model.ahead(q), atol=1e-12)


def test_oadtr_has_the_size_of_the_authors_network():
    """74,709,036 parameters, of which 8 x 1,024 are positions of the queries that their code never reads."""
    with torch.device("meta"):
        model = oadtr.build(
            3072, 22, 64, 8, width=1024, layers=3, heads=8, hidden=1024, decoder_layers=5, decoder_heads=4, dropout=0.1
        )
    assert sum(p.numel() for p in model.parameters()) == 74_709_036 - 8 * 1024


def test_without_a_future_loss_nothing_is_told_of_the_future():
    model = oadtr.build(5, 4, 6, 3, **SIZES, future_weight=0)
    assert model.logits(torch.randn(1, 6, 5))[1] is None and model.score(torch.randn(1, 4, 5), 8).shape == (1, 4, 1, 4)


def test_a_width_that_does_not_divide_is_one_line():
    with pytest.raises(UserError, match="into 3 heads"):
        oadtr.build(5, 4, 6, 3, **SIZES | {"heads": 3})


def test_networks_that_mini_compares_are_alike_in_parameters(tmp_path):
    counts = {}
    for address in catalogue.methods_of(["oadtr", "trn"], "mini"):
        spec = catalogue.resolve(address, "mini", 0)
        context = running.RunContext(spec, torch.device("cpu"), tmp_path, tmp_path)
        sizes = {"features": 16, "classes": 7, "window": spec.task_options["window"], "horizon": 8}
        counts[address] = sum(p.numel() for p in context.build("detector", **sizes).parameters())
    compared = [counts[address] for address in ("oadtr/oadtr", "trn/trn", "trn/lstm", "trn/frame")]
    assert max(compared) < 1.08 * min(compared), counts
