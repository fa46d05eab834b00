"""The task sequence_memory: its sequences, the gradient's path, what is counted, and its options."""

import io
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from replications.errors import UserError
from replications.layers.text.attention import SoftmaxAttention
from replications.layers.text.blocks import FeedForward, Mixer
from replications.layers.text.model import IGNORED, residual_model
from replications.layers.text.recurrent import Recurrent, recurrent_model
from replications.tasks.base import Look, find_task
from replications.tasks.sequence_memory import pictures
from replications.tasks.sequence_memory.data import RecallBatches, draw, recall_accuracy
from replications.tasks.sequence_memory.measures import gradient_path, path_factor, sequential_operations, state_bytes
from replications.tasks.sequence_memory.options import RecallOptions

OPTIONS = RecallOptions(pairs=(1, 3), gaps=(0, 5), keys=6, values=4, test=200, validation=10)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def transformer(width=8, depth=2):
    return residual_model(
        lambda: SoftmaxAttention(width, 2, True), depth, 11, None,
        width=width, norm="layer", feed_forward=lambda: FeedForward(width),
    )  # fmt: skip


# Sequences


def test_the_value_asked_for_follows_its_key_before_the_gap():
    tokens, value = draw(OPTIONS, 3, 5, 500, generator())
    assert tokens.shape == (500, 12)
    for sequence, answer in zip(tokens.tolist(), value.tolist(), strict=True):
        keys, values = sequence[0:6:2], sequence[1:6:2]
        assert len(set(keys)) == 3 and all(0 <= key < 6 for key in keys) and all(6 <= v < 10 for v in values)
        assert sequence[6:11] == [10] * 5
        assert values[keys.index(sequence[-1])] == answer
    asked = [sequence[0:6:2].index(sequence[-1]) for sequence in tokens.tolist()]
    assert np.bincount(asked, minlength=3).min() > 120, "each pair is asked for"


class Oracle:
    """Tells the value behind the last token; with `wrong`, that of the first pair."""

    def __init__(self, wrong=False):
        self.wrong = wrong

    def logits(self, tokens):
        at = (tokens[:, :-1] == tokens[:, -1:]).int().argmax(dim=1)
        value = tokens.gather(1, (at * (not self.wrong) + 1)[:, None])[:, 0]
        return torch.nn.functional.one_hot(value, 11).float()[:, None].expand(-1, tokens.shape[1], -1)


def test_recall_is_the_share_of_values_told():
    names = ["recall_p1_g0", "recall_p3_g0", "recall_p1_g5", "recall_p3_g5"]
    assert recall_accuracy(Oracle(), OPTIONS, "test", "cpu") == dict.fromkeys(names, 100.0)
    found = recall_accuracy(Oracle(wrong=True), OPTIONS, "test", "cpu")
    guess = 100 * (1 / 3 + 2 / 3 / 4)
    error = 4 * math.sqrt(guess * (100 - guess) / 200)
    assert found["recall_p1_g5"] == 100.0 and abs(found["recall_p3_g5"] - guess) < error
    assert found == recall_accuracy(Oracle(wrong=True), OPTIONS, "test", "cpu"), "the same sequences each time"


def test_a_step_has_one_number_of_pairs_and_gap_and_asks_for_the_last_value():
    batches = RecallBatches(OPTIONS, 8, 0, "cpu")
    lengths = [batches.batch(step)["tokens"].shape[1] for step in range(8)]
    assert lengths == 2 * [3, 7, 8, 12]
    batch = batches.batch(3)
    assert (batch["target"][:, :-1] == IGNORED).all() and (batch["target"][:, -1] >= 6).all()
    halves = [batches.batch(3, part, 2) for part in range(2)]
    for name, value in batch.items():
        assert torch.equal(torch.cat([half[name] for half in halves]), value)
    assert not torch.equal(batches.batch(7)["tokens"], batch["tokens"]), "fresh sequences each step"
    assert not torch.equal(RecallBatches(OPTIONS, 8, 1, "cpu").batch(3)["tokens"], batch["tokens"])


# The path


@pytest.mark.parametrize("mixer", [Recurrent(nn.LSTM, 8), Recurrent(nn.RNN, 8), SoftmaxAttention(8, 2, True)])
def test_the_path_is_the_norm_of_the_jacobian(mixer):
    path = gradient_path(mixer, 8, 6, 1, generator())
    x = torch.randn(7, 8, generator=generator(), dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: mixer.double()(x[None])[0, -1], x)
    expected = jacobian.square().sum(dim=(0, 2)).sqrt().flip(0)
    np.testing.assert_allclose(path, expected.numpy(), rtol=1e-9)


class Decay(Mixer):
    """Sum of inputs, each weighed by 0.9 a position."""

    def forward(self, x, valid=None):
        n = torch.arange(x.shape[1], dtype=x.dtype)
        return (0.9 ** (n[:, None] - n)).tril() @ x


def test_the_factor_of_a_geometric_path_is_its_own():
    path = gradient_path(Decay(), 3, 40, 2, generator())
    np.testing.assert_allclose(path, math.sqrt(3) * 0.9 ** np.arange(41), rtol=1e-9)
    assert path_factor(path, 4, 40) == pytest.approx(0.9)
    noisy = path * np.exp(np.random.default_rng(0).normal(0, 0.5, 41))
    assert path_factor(noisy, 4, 40) == pytest.approx(0.9, abs=0.03)


def test_a_long_path_does_not_underflow():
    path = gradient_path(Recurrent(nn.RNN, 8), 8, 128, 1, generator())
    assert 0 < path[-1] < 1e-30


# What is counted


def test_a_recurrent_layer_waits_for_each_position_and_attention_for_none():
    tokens = torch.zeros(1, 16, dtype=torch.long)
    assert sequential_operations(transformer(), tokens) == 0
    one, two = (sequential_operations(recurrent_model(nn.RNN, 4, depth, 9, True, None), tokens) for depth in (1, 2))
    assert one >= 2 and two == 2 * one, "a product and a tanh at least; torch runs one layer after the other"


def test_attention_keeps_two_vectors_a_layer_and_position_and_a_recurrent_layer_none():
    assert state_bytes(transformer(8, 3), 10) == 3 * 2 * 8 * 4
    assert state_bytes(recurrent_model(nn.LSTM, 8, 3, 9, True, None), 10) == 0


# Options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recall": {"pairs": [2, 1], "gaps": [0]}}, "pairs must rise"),
        ({"recall": {"pairs": [], "gaps": [0]}}, "pairs must rise"),
        ({"recall": {"pairs": [1], "gaps": [0, 0]}}, "gaps must rise"),
        ({"recall": {"pairs": [1], "gaps": [-1]}}, "gaps"),
        ({"recall": {"pairs": [30], "gaps": [0]}}, "30 pairs need as many different keys, not 24"),
        ({"recall": {"pairs": [1], "gaps": [0], "values": 1}}, "values"),
        ({"path": [8, 8]}, "path: distances must rise"),
        ({"pahts": [4, 8]}, "pahts"),
    ],
)
def test_wrong_options_are_one_line(options, message):
    with pytest.raises(UserError, match=message) as error:
        find_task("sequence_memory").parse_options(options)
    assert "\n" not in str(error.value)


def test_names_of_recall_are_described():
    metric = find_task("sequence_memory").metrics["recall_p2_g32"]
    assert metric.unit == "%" and "2 pairs" in metric.title and "32" in metric.title


# Pictures


class Album:
    tier, width = "mini", 7.4
    addresses = ("lstm/lstm", "lstm/lstm_forget_3", "missing")

    def look(self, address):
        return Look("#0072B2", "o", "solid")

    def runs(self, address):
        return {} if address == "missing" else {seed: self.record(seed, address == "lstm/lstm") for seed in (0, 1)}

    def record(self, seed, trained):
        told = {f"recall_p{pairs}_g{gap}": 80.0 / pairs + 10 * seed for pairs in (2, 1) for gap in (16, 0)}
        spec = SimpleNamespace(task_options={"recall": {"values": 4}})
        curve = SimpleNamespace(x=[1.0, 2.0, 3.0], y=[0.0, -1.0 - seed, -2.0])
        return SimpleNamespace(metrics=told | {"recall": 1.0} if trained else {}, curves={"path": curve}, spec=spec)


def test_each_picture_is_drawn_of_what_there_is():
    recall, path = pictures.draw(Album())
    for picture in (recall, path):
        picture.figure.savefig(io.BytesIO(), format="svg")
        assert picture.publish and picture.alt and picture.caption
    one, two = recall.figure.axes
    assert [axes.get_title() for axes in (one, two)] == ["1 pair", "2 pairs"]
    assert len(two.lines) == 3 and two.lines[0].get_xdata() == pytest.approx([0, 16])
    assert two.lines[0].get_ydata() == pytest.approx([45, 45])
    assert [line.get_ydata()[0] for line in two.lines[1:]] == [62.5, 25.0]
    assert [line.get_ydata()[1] for line in path.figure.axes[0].lines] == [-1.5, -1.5]
    album = Album()
    album.addresses = ("missing",)
    assert not list(pictures.draw(album))
