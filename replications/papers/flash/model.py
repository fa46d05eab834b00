"""FLASH and FLASH-Quad (Hua et al. 2022, "Transformer Quality in Linear Time")."""

from replications.errors import UserError
from replications.layers.text.model import SequenceModel, residual_model
from replications.papers.flash.gau import QuadraticUnit
from replications.papers.flash.mixed import MixedChunkUnit


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

    def mixer() -> QuadraticUnit:
        return QuadraticUnit(width, key_size, expansion, causal, length, kernel, divisor)

    return residual_model(mixer, 2 * depth, vocabulary, num_classes, width=width, norm=norm)


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

    def mixer() -> MixedChunkUnit:
        return MixedChunkUnit(width, key_size, expansion, causal, chunk, parts)

    return residual_model(mixer, 2 * depth, vocabulary, num_classes, width=width, norm=norm)
