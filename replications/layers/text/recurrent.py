"""Recurrent layers as mixers of a `SequenceModel`: LSTM, GRU and the plain tanh network, in torch's fused forms.

The equations of each cell are in the paper's folder; `start` and `step` read token by token with the same weights.
"""

from typing import Any

import torch
from torch import Tensor, nn

from replications.errors import UserError
from replications.layers.text.blocks import Mixer, State
from replications.layers.text.model import SequenceModel

Layer = type[nn.LSTM] | type[nn.GRU] | type[nn.RNN]


class Recurrent(Mixer):
    """One recurrent layer with as many units as inputs; position t sees positions up to t.

    torch's default start: every weight and bias uniform within ``1 / sqrt(width)``. `orthogonal` draws an orthogonal
    matrix for each gate's recurrent weights instead. `bias` is added to a gate's bias at the start: an LSTM's forget
    gate, a GRU's update gate, both of which keep the state where they are 1.
    """

    decodes = True

    def __init__(self, layer: Layer, width: int, *, orthogonal: bool = False, bias: float = 0.0):
        super().__init__()
        self.width, self.layer = width, layer(width, width, batch_first=True)
        self.names = ("hidden", "cell") if layer is nn.LSTM else ("hidden",)
        with torch.no_grad():
            if orthogonal:
                for gate in self.layer.weight_hh_l0.split(width):
                    nn.init.orthogonal_(gate)
            # torch's order of gates: input, forget, cell, output; reset, update, new. The second is the one that keeps.
            self.layer.bias_hh_l0[width : 2 * width] += bias  # of a network without gates: no such rows

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        return self.layer(x)[0]  # padding is at the end: no real position sees it

    def start(self, batch: int, capacity: int, like: Tensor) -> State:
        return {name: like.new_zeros(1, batch, self.width) for name in self.names}

    def step(self, x: Tensor, position: int, state: State) -> Tensor:
        given = tuple(state[name] for name in self.names)
        y, found = self.layer(x[:, None], given if len(given) > 1 else given[0])
        for part, new in zip(given, found if len(given) > 1 else (found,), strict=True):
            part.copy_(new)
        return y[:, 0]


class PlainBlock(nn.Module):
    """A layer of a network without residual connections and norms between its layers."""

    def __init__(self, mixer: Mixer):
        super().__init__()
        self.norm, self.mixer = nn.Identity(), mixer

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        return self.mixer(x, valid)

    def step(self, x: Tensor, position: int, state: State) -> Tensor:
        return self.mixer.step(x, position, state)


def recurrent_model(
    layer: Layer, units: int, depth: int, vocabulary: int, causal: bool, num_classes: int | None, **options: Any
) -> SequenceModel:
    """Return `depth` recurrent layers of so many units; `options` are those of `Recurrent`."""
    if not causal:
        raise UserError(f"a recurrent network ({layer.__name__}) reads from the left: it cannot be bidirectional")
    blocks = [PlainBlock(Recurrent(layer, units, **options)) for _ in range(depth)]
    return SequenceModel(blocks, units, vocabulary, num_classes)
