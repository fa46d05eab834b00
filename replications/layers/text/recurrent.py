"""Recurrent layers as mixers of a `SequenceModel`: LSTM, GRU and the plain tanh network, in torch's fused forms.

The equations of each cell are in the paper's folder; `start` and `step` read token by token with the same weights.
"""

from typing import Any

import torch
from torch import Tensor, nn

from replications.errors import UserError, nearest
from replications.layers.text.blocks import Mixer, State
from replications.layers.text.model import SequenceModel

CELLS = {"lstm": nn.LSTM, "gru": nn.GRU, "tanh": nn.RNN}


class Recurrent(Mixer):
    """One recurrent layer with as many units as inputs; position t sees positions up to t.

    torch's default start: every weight and bias uniform within ``1 / sqrt(width)``. `orthogonal` draws an orthogonal
    matrix for each gate's recurrent weights instead. `bias` is added to a gate's bias at the start: an LSTM's forget
    gate, a GRU's update gate, both of which keep the state where they are 1.
    """

    decodes = True

    def __init__(self, cell: str, width: int, *, orthogonal: bool = False, bias: float = 0.0):
        super().__init__()
        if cell not in CELLS:
            raise UserError(f"unknown recurrent cell '{cell}'{nearest(cell, CELLS)}")
        if bias and cell == "tanh":
            raise UserError("a tanh network has no gate: bias must be 0")
        self.cell, self.width = cell, width
        self.layer = CELLS[cell](width, width, batch_first=True)
        with torch.no_grad():
            if orthogonal:
                for gate in self.layer.weight_hh_l0.split(width):
                    nn.init.orthogonal_(gate)
            # torch's order of gates: input, forget, cell, output; reset, update, new. The second is the one that keeps.
            self.layer.bias_hh_l0[width : 2 * width] += bias

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        return self.layer(x)[0]  # padding is at the end: no real position sees it

    def start(self, batch: int, capacity: int, like: Tensor) -> State:
        names = ("hidden", "cell") if self.cell == "lstm" else ("hidden",)
        return {name: like.new_zeros(1, batch, self.width) for name in names}

    def step(self, x: Tensor, position: int, state: State) -> Tensor:
        given = (state["hidden"], state["cell"]) if self.cell == "lstm" else state["hidden"]
        y, found = self.layer(x[:, None], given)
        for part, new in zip(state.values(), found if self.cell == "lstm" else (found,), strict=True):
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
    cell: str, units: int, depth: int, vocabulary: int, causal: bool, num_classes: int | None, **options: Any
) -> SequenceModel:
    """Return `depth` recurrent layers of so many units; `options` are those of `Recurrent`."""
    if not causal:
        raise UserError(f"a recurrent network ({cell}) reads from the left: it cannot be bidirectional")
    blocks = [PlainBlock(Recurrent(cell, units, **options)) for _ in range(depth)]
    return SequenceModel(blocks, units, vocabulary, num_classes)
