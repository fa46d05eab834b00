"""GRU (Cho et al. 2014, Section 2.3), in torch's form. For input x_t and state h a layer computes

    r = s(W_ir x + b_ir + W_hr h + b_hr)            reset gate, Eq. 5
    z = s(W_iz x + b_iz + W_hz h + b_hz)            update gate, Eq. 6
    n = tanh(W_in x + b_in + r (W_hn h + b_hn))     candidate, Eq. 8 with the reset after the product
    h' = z h + (1 - z) n                            Eq. 7

with the logistic function s and elementwise products.
"""

from torch import nn

from replications.layers.text.model import SequenceModel
from replications.layers.text.recurrent import recurrent_model


def build(
    vocabulary: int, causal: bool, num_classes: int | None, *, units: int, depth: int, update_bias: float = 0.0
) -> SequenceModel:
    """`depth` GRU layers of so many units; `update_bias` is added to the update gate's bias at the start."""
    return recurrent_model(nn.GRU, units, depth, vocabulary, causal, num_classes, bias=update_bias)
