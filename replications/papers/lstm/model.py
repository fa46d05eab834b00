"""LSTM (Hochreiter and Schmidhuber 1997), in today's form with a forget gate, and what it is compared with.

For input x_t and state (h, c) a layer computes, with the logistic function s and elementwise products:

    i = s(W_ii x + b_ii + W_hi h + b_hi)        input gate (y^in in the paper's Section 4)
    f = s(W_if x + b_if + W_hf h + b_hf)        forget gate, not in the paper (Gers et al. 2000)
    g = tanh(W_ig x + b_ig + W_hg h + b_hg)     squashed input (g)
    o = s(W_io x + b_io + W_ho h + b_ho)        output gate (y^out)
    c' = f c + i g                              state of the cell; the paper's "constant error carousel" has f = 1
    h' = o tanh(c')

The plain network is ``h' = tanh(W_i x + b_i + W_h h + b_h)`` (Elman 1990).
"""

from torch import nn

from replications.layers.text.attention import SoftmaxAttention
from replications.layers.text.blocks import FeedForward
from replications.layers.text.model import SequenceModel, residual_model
from replications.layers.text.recurrent import recurrent_model


def build(
    vocabulary: int, causal: bool, num_classes: int | None, *, units: int, depth: int, forget_bias: float = 0.0
) -> SequenceModel:
    """`depth` LSTM layers of so many units; `forget_bias` is added to the forget gate's bias at the start."""
    return recurrent_model(nn.LSTM, units, depth, vocabulary, causal, num_classes, bias=forget_bias)


def build_rnn(
    vocabulary: int, causal: bool, num_classes: int | None, *, units: int, depth: int, orthogonal: bool = False
) -> SequenceModel:
    """`depth` layers of the plain network; `orthogonal` draws its recurrent weights as an orthogonal matrix."""
    return recurrent_model(nn.RNN, units, depth, vocabulary, causal, num_classes, orthogonal=orthogonal)


def build_transformer(
    vocabulary: int, causal: bool, num_classes: int | None, *, width: int, depth: int, heads: int
) -> SequenceModel:
    """The Transformer of ``papers/transformer``: norm first, rotary positions."""
    return residual_model(
        lambda: SoftmaxAttention(width, heads, causal), depth, vocabulary, num_classes,
        width=width, norm="layer", feed_forward=lambda: FeedForward(width),
    )  # fmt: skip
