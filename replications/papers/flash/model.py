"""FLASH and FLASH-Quad (Hua et al. 2022, "Transformer Quality in Linear Time")."""

from replications.errors import UserError
from replications.papers.flash.gau import QuadraticUnit
from replications.papers.flash.mixed import MixedChunkUnit
from replications.tasks.language_modelling.blocks import Block
from replications.tasks.language_modelling.model import SequenceModel


def build_quad(
    vocabulary: int,
    length: int,
    causal: bool,
    num_classes: int | None,
    *,
    width: int,
    depth: int,
    key_size: int = 128,
    expansion: int = 2,
    kernel: str = "relu2",
    divisor: str = "length",
    norm: str = "layer",
) -> SequenceModel:
    """FLASH-Quad: ``2 depth`` gated attention units for the `depth` layers of a Transformer of equal parameters."""
    blocks = [
        Block(width, QuadraticUnit(width, key_size, expansion, causal, length, kernel, divisor), norm=norm)
        for _ in range(2 * depth)
    ]
    return SequenceModel(blocks, width, vocabulary, num_classes, norm=norm)


def build_flash(
    vocabulary: int,
    causal: bool,
    num_classes: int | None,
    *,
    width: int,
    depth: int,
    key_size: int = 128,
    expansion: int = 2,
    chunk: int = 256,
    parts: str = "both",
    norm: str = "layer",
) -> SequenceModel:
    """FLASH: ``2 depth`` units with mixed chunk attention; `parts` leaves one half out."""
    if chunk < 1:
        raise UserError(f"flash: chunk must be at least 1, not {chunk}")
    blocks = [
        Block(width, MixedChunkUnit(width, key_size, expansion, causal, chunk, parts), norm=norm)
        for _ in range(2 * depth)
    ]
    return SequenceModel(blocks, width, vocabulary, num_classes, norm=norm)
