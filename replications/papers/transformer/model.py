"""The Transformer as a decoder (Vaswani et al. 2017), in the form that comparisons use today.

Norm first, rotary positions, no biases, no dropout. The "++" version has a gated feed-forward layer of equal size.
"""

from replications.errors import UserError
from replications.layers.text.attention import SoftmaxAttention
from replications.layers.text.blocks import FeedForward
from replications.layers.text.model import SequenceModel, residual_model

POSITIONS = ("rotary", "sinusoidal")


def build(
    vocabulary: int,
    causal: bool,
    num_classes: int | None,
    *,
    width: int,
    depth: int,
    heads: int,
    gated: bool = False,
    attention: str = "sdpa",
    positions: str = "rotary",
    norm: str = "layer",
) -> SequenceModel:
    """`depth` layers of attention and feed-forward; `positions` are rotary or scaled sinusoidal."""
    if positions not in POSITIONS:
        raise UserError(f"transformer: positions must be one of {', '.join(POSITIONS)}, not '{positions}'")
    rotary = positions == "rotary"
    return residual_model(
        lambda: SoftmaxAttention(width, heads, causal, attention, rotary=rotary),
        depth, vocabulary, num_classes, width=width, norm=norm, sinusoidal=not rotary,
        feed_forward=lambda: FeedForward(width, gated=gated),
    )  # fmt: skip
