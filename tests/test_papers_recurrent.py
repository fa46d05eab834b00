"""LSTM, GRU and the plain network: torch's fused layers against cells written out by gate, in float64; equal sizes."""

import inspect

import pytest
import torch
from torch import nn

from replications import catalogue
from replications.errors import UserError
from replications.layers.text.recurrent import Recurrent, recurrent_model
from replications.papers.gru.model import build as build_gru
from replications.papers.lstm.model import build as build_lstm
from replications.papers.lstm.model import build_rnn, build_transformer
from replications.tasks.sequence_memory.options import RecallOptions

WIDTH, LENGTH = 5, 9
CELLS = (nn.LSTM, nn.GRU, nn.RNN)


def layer_of(cell, **options):
    """A layer in float64 all of whose biases matter."""
    torch.manual_seed(3)
    made = Recurrent(cell, WIDTH, **options).double()
    for parameter in made.parameters():
        parameter.data = torch.randn(parameter.shape, dtype=torch.float64)
    return made


def gates(layer, count):
    """The input's and the state's weights and biases by gate."""
    named = (layer.layer.weight_ih_l0, layer.layer.bias_ih_l0, layer.layer.weight_hh_l0, layer.layer.bias_hh_l0)
    return zip(*(part.detach().chunk(count) for part in named), strict=True)


def naive_lstm(layer, x):
    (i_, f_, g_, o_), h, c, found = list(gates(layer, 4)), torch.zeros(WIDTH).double(), torch.zeros(WIDTH).double(), []
    for step in x:
        i, f, g, o = (w @ step + b + u @ h + a for w, b, u, a in (i_, f_, g_, o_))
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        found.append(h)
    return torch.stack(found)


def naive_gru(layer, x):
    (r_, z_, n_), h, found = list(gates(layer, 3)), torch.zeros(WIDTH).double(), []
    for step in x:
        r, z = (torch.sigmoid(w @ step + b + u @ h + a) for w, b, u, a in (r_, z_))
        w, b, u, a = n_
        h = z * h + (1 - z) * torch.tanh(w @ step + b + r * (u @ h + a))
        found.append(h)
    return torch.stack(found)


def naive_tanh(layer, x):
    ((w, b, u, a),), h, found = list(gates(layer, 1)), torch.zeros(WIDTH).double(), []
    for step in x:
        h = torch.tanh(w @ step + b + u @ h + a)
        found.append(h)
    return torch.stack(found)


@pytest.mark.parametrize(("cell", "naive"), [(nn.LSTM, naive_lstm), (nn.GRU, naive_gru), (nn.RNN, naive_tanh)])
def test_the_fused_layer_is_its_cell_written_out(cell, naive):
    layer, x = layer_of(cell), torch.randn(2, LENGTH, WIDTH, dtype=torch.float64)
    expected = torch.stack([naive(layer, sequence) for sequence in x])
    torch.testing.assert_close(layer(x), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("cell", CELLS)
def test_token_by_token_is_all_at_once(cell):
    torch.manual_seed(0)
    model = recurrent_model(cell, WIDTH, 2, 11, True, None).double()
    tokens = torch.randint(11, (3, LENGTH))
    states = model.start(3, LENGTH)
    steps = torch.stack([model.step(tokens[:, t], t, states) for t in range(LENGTH)], dim=1)
    torch.testing.assert_close(steps, model.logits(tokens), atol=1e-12, rtol=0)


@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU])
def test_the_bias_opens_the_gate_that_keeps_the_state(cell):
    torch.manual_seed(0)
    layer, x = Recurrent(cell, WIDTH, bias=50.0).double(), torch.randn(1, LENGTH, WIDTH, dtype=torch.float64)
    torch.manual_seed(0)
    plain = Recurrent(cell, WIDTH).double()
    differ = (layer.layer.bias_hh_l0 - plain.layer.bias_hh_l0).round().tolist()
    assert differ == [0.0] * WIDTH + [50.0] * WIDTH + [0.0] * (len(differ) - 2 * WIDTH)
    state = {name: torch.full_like(part, 0.3) for name, part in layer.start(1, LENGTH, x).items()}
    kept = state["cell" if cell is nn.LSTM else "hidden"]
    if cell is nn.LSTM:  # the input gate shut: nothing is written
        layer.layer.bias_hh_l0.data[:WIDTH] = -50.0
    for t in range(LENGTH):
        layer.step(x[:, t], t, state)
    torch.testing.assert_close(kept, torch.full_like(kept, 0.3))


def test_an_orthogonal_start_is_orthogonal_gate_by_gate():
    eye = torch.eye(WIDTH)
    for cell, count in ((nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)):
        gates_ = Recurrent(cell, WIDTH, orthogonal=True).layer.weight_hh_l0.split(WIDTH)
        assert len(gates_) == count
        for gate in gates_:
            torch.testing.assert_close(gate @ gate.T, eye, atol=1e-5, rtol=0)
    assert not torch.allclose(
        Recurrent(nn.RNN, WIDTH).layer.weight_hh_l0.T @ Recurrent(nn.RNN, WIDTH).layer.weight_hh_l0, eye
    )


BUILDS = {
    "lstm/lstm": build_lstm,
    "lstm/rnn": build_rnn,
    "lstm/transformer": build_transformer,
    "gru/gru": build_gru,
}


@pytest.mark.parametrize("tier", ["mini", "standard"])
def test_networks_that_claims_compare_are_equal_in_parameters(tier):
    counts = {}
    for address, build in BUILDS.items():
        spec, names = catalogue.resolve(address, tier, 0), inspect.signature(build).parameters
        vocabulary = RecallOptions(**spec.task_options["recall"]).vocabulary
        network = build(
            vocabulary, True, None, **{name: value for name, value in spec.options.items() if name in names}
        )
        counts[address] = sum(parameter.numel() for parameter in network.parameters())
    assert all(abs(count / counts["lstm/transformer"] - 1) < 0.02 for count in counts.values()), counts


def test_reading_both_ways_is_refused_in_one_line():
    with pytest.raises(
        UserError, match=r"a recurrent network \(LSTM\) reads from the left: it cannot be bidirectional"
    ):
        build_lstm(9, False, None, units=4, depth=1)
