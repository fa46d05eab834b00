"""Temporal Recurrent Network (Xu et al. 2019) and what it is compared with: a frame alone, LSTM, encoder-decoder.

One step of the TRN cell (Section 3.2, Figure 2), for the features ``f`` of frame t, with ReLU after every linear map:

    h, c       = LSTM([W_x f, future], (h, c))           spatiotemporal accumulator; `future` is the last step's
    p          = W_p h                                   logits of the action now
    d_0        = (W_h h, W_c c), r_0 = 0                 the temporal decoder starts from the accumulator's state
    d_i        = LSTM(r_(i-1), d_(i-1)), i = 1 .. l_d
    p_i        = W_p d_i                                 logits of the action i frames ahead, by the same classifier
    r_i        = W_r p_i                                 is read next
    future     = mean over i of W_f d_i                  the future gate, read by the accumulator one frame later
"""

import torch
from torch import Tensor, nn

from replications.layers.actions.model import ActionDetector, Logits


def _relu(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, outputs), nn.ReLU())


class Frame(ActionDetector):
    """Each frame alone: two linear maps. Tells the frames ahead too."""

    causal = True

    def __init__(self, features: int, classes: int, window: int, horizon: int, units: int, future_weight: float):
        super().__init__(window, horizon, future_weight)
        self.body = nn.Sequential(_relu(features, units), _relu(units, units))
        self.now = nn.Linear(units, classes)
        self.ahead = nn.Linear(units, horizon * classes) if future_weight else None

    def hidden(self, features: Tensor) -> Tensor:
        """Return ``[batch, frames, units]``."""
        return self.body(features)

    def logits(self, features: Tensor) -> Logits:
        hidden = self.hidden(features)
        ahead = self.ahead(hidden).unflatten(-1, (self.horizon, -1)) if self.ahead is not None else None
        return self.now(hidden), ahead


class Recurrent(Frame):
    """An LSTM layer in torch's fused form. With `future_weight` 0 it has no output for the frames ahead."""

    def __init__(self, features: int, classes: int, window: int, horizon: int, units: int, future_weight: float):
        super().__init__(features, classes, window, horizon, units, future_weight)
        self.body = _relu(features, features)
        self.lstm = nn.LSTM(features, units, batch_first=True)

    def hidden(self, features: Tensor) -> Tensor:
        return self.lstm(self.body(features))[0]


class TRN(ActionDetector):
    """The network above. `feedback` false: the accumulator does not read the future, the paper's encoder-decoder."""

    causal = True

    def __init__(
        self, features: int, classes: int, window: int, horizon: int, units: int, dropout: float, feedback: bool,
        future_weight: float,
    ):  # fmt: skip
        super().__init__(window, horizon, future_weight)
        self.future_size = features if feedback else 0
        self.extract = _relu(features, features)
        self.accumulator = nn.LSTMCell(features + self.future_size, units)
        self.start_hidden, self.start_cell = _relu(units, units), _relu(units, units)
        self.decoder = nn.LSTMCell(units, units)
        self.read = _relu(classes, units)
        self.future = _relu(units, features) if feedback else None
        self.classifier = nn.Linear(units, classes)
        self.dropout = nn.Dropout(dropout)

    def logits(self, features: Tensor) -> Logits:
        x = self.extract(features)
        hidden = cell = x.new_zeros(len(x), self.accumulator.hidden_size)
        future = x.new_zeros(len(x), self.future_size)
        states, cells, ahead = [], [], []
        for frame in x.unbind(1):
            seen = self.dropout(torch.cat([frame, future], dim=1))
            hidden, cell = self.accumulator(seen, (hidden, cell))
            states.append(hidden)
            cells.append(cell)
            if self.future is not None:
                logits, decoded = self.decode(hidden, cell)
                ahead.append(logits)
                future = self.future(decoded).mean(1)
        hidden = torch.stack(states, dim=1)
        now = self.classifier(self.dropout(hidden))
        if self.future is not None:
            return now, torch.stack(ahead, dim=1)
        logits, _ = self.decode(hidden.flatten(0, 1), torch.stack(cells, dim=1).flatten(0, 1))  # all frames at once
        return now, logits.unflatten(0, now.shape[:2])

    def decode(self, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits ``[batch, horizon, classes]`` and the decoder's states ``[batch, horizon, units]``."""
        hidden, cell = self.start_hidden(hidden), self.start_cell(cell)
        read, logits, states = torch.zeros_like(hidden), [], []
        for _ in range(self.horizon):
            hidden, cell = self.decoder(self.dropout(read), (hidden, cell))
            logits.append(self.classifier(self.dropout(hidden)))
            read = self.read(logits[-1])
            states.append(hidden)
        return torch.stack(logits, dim=1), torch.stack(states, dim=1)


def build_frame(
    features: int, classes: int, window: int, horizon: int, *, units: int, future_weight: float = 1.0
) -> Frame:
    """A frame alone."""
    return Frame(features, classes, window, horizon, units, future_weight)


def build_lstm(
    features: int, classes: int, window: int, horizon: int, *, units: int, future_weight: float = 1.0
) -> Recurrent:
    """An LSTM with linear outputs for now and, unless `future_weight` is 0, for the frames ahead."""
    return Recurrent(features, classes, window, horizon, units, future_weight)


def build(
    features: int, classes: int, window: int, horizon: int, *,
    units: int, dropout: float = 0.0, feedback: bool = True, future_weight: float = 1.0,
) -> TRN:  # fmt: skip
    """TRN."""
    return TRN(features, classes, window, horizon, units, dropout, feedback, future_weight)
