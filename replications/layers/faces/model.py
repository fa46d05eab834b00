"""What a method of the face verification task must offer.

A paper's ``build(num_identities, image_size, **options)`` returns a `FaceModel`. The task trains it on
labelled images, takes its embedding of single images, and compares two embeddings with the model's
verifiers. A model never sees a pair.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from replications.layers.faces.verifiers.base import Verifier


class FaceModel(nn.Module):
    """Base class. A subclass gives `forward` and `embed`; the rest has defaults.

    `training_only` names the child modules that are dropped at test time (the classifier). `embeds_mirror` is
    True where `embed` already contains the features of the mirrored image (DeepID takes the mirror patch on
    the other side of the face); the task then adds no mirror itself.
    """

    training_only: tuple[str, ...] = ("head",)
    embeds_mirror: bool = False

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return scalar means over the batch by name; ``loss`` is minimised, the rest is logged.

        `batch` has ``image`` float ``[batch, 3, size, size]`` in [-1, 1] (RGB) and ``label`` int64
        ``[batch]`` in ``0..num_identities - 1``. A model that has ``on_step(step, total_steps)`` is told of
        each step before it.
        """
        raise NotImplementedError

    def embed(self, image: Tensor) -> Tensor:
        """Return float32 embeddings ``[batch, dim]`` of ``[batch, 3, size, size]``.

        Called in eval mode without gradient.
        """
        raise NotImplementedError

    def class_weights(self) -> Tensor | None:
        """Return the classifier's weights ``[num_identities, dim]`` in label order, or None without any.

        They live in the embedding's space and are compared with the embeddings by angle (ArcFace, Table 3).
        """
        return None

    def verifiers(self) -> dict[str, Callable[[], "Verifier"]]:
        """Return makers of verifiers by name (lower case, as in a metric's name); the first is primary."""
        from replications.layers.faces.verifiers.base import CosineVerifier

        return {"cosine": CosineVerifier}

    def inference_parameters(self) -> int:
        """Return how many parameters are kept at test time."""
        dropped = [getattr(self, name) for name in self.training_only if hasattr(self, name)]
        dropped_ids = {id(p) for module in dropped for p in module.parameters()}
        return sum(p.numel() for p in self.parameters() if id(p) not in dropped_ids)
