"""From prepared images to features, in batches."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from replications.errors import RunFailure, UserError
from replications.layers.faces.model import FaceModel
from replications.progress import progress
from replications.tasks.run import chunks
from replications.training.augment import ToFloat
from replications.training.determinism import scoring
from replications.training.stage import Batch


class AveragePool:
    """Average uint8 images ``[n, S, S, 3]`` down to `size`: float ``[n, size, size, 3]`` in 0..255, not rounded."""

    def __init__(self, size: int):
        self.size = size

    def __call__(self, image: Tensor) -> Tensor:
        pooled = F.avg_pool2d(image.permute(0, 3, 1, 2).float(), image.shape[1] // self.size)
        return pooled.permute(0, 2, 3, 1)

    def draw(self, n: int, generator: Generator) -> dict[str, Tensor]:
        return {}

    def apply(self, batch: Batch, draws: dict[str, Tensor]) -> Batch:
        return {**batch, "image": self(batch["image"])}


def resizing(prepared: int, resolution: int) -> list[AveragePool]:
    """Return what brings images of the prepared size to `resolution`: nothing, or an average over whole squares.

    Raises UserError where the prepared size is no multiple of `resolution`.
    """
    if prepared % resolution:
        divisors = [str(size) for size in range(8, prepared + 1) if prepared % size == 0]
        raise UserError(
            f"task option 'resolution': {prepared} pixels cannot be averaged to {resolution} "
            f"(possible: {', '.join(divisors)})"
        )
    return [] if prepared == resolution else [AveragePool(resolution)]


class Embedder:
    """Turns images into features at test time, as the options and the recipe's precision say."""

    def __init__(self, resize: Sequence[AveragePool], flip: str, precision: str, device: torch.device):
        self.steps: list[Callable[[Tensor], Tensor]] = [*resize, ToFloat()]
        self.flip, self.precision, self.device = flip, precision, device

    def embed(self, model: FaceModel, images: Tensor, mirror: bool = True) -> tuple[Tensor, Tensor]:
        """Return embedding ``[n, dim]`` and feature ``[n, dim or 2 dim]`` of uint8 ``[n, S, S, 3]``, float32.

        The feature contains the mirror image as the option `flip` says, unless the embedding already does; without
        `mirror` it is the embedding.
        """
        image = images
        for step in self.steps:
            image = step(image)
        with scoring(self.precision, self.device):
            embedding = model.embed(image).float()
            if not mirror or self.flip == "none" or model.embeds_mirror:
                return embedding, embedding
            mirrored = model.embed(image.flip(3)).float()
        feature = embedding + mirrored if self.flip == "sum" else torch.cat([embedding, mirrored], dim=1)
        return embedding, feature

    def embed_rows(
        self, model: FaceModel, images: np.ndarray, rows: np.ndarray, batch_size: int, label: str, mirror: bool = True
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return embeddings and features of the rows of a (memory-mapped) array, as `embed` does.

        Raises RunFailure where one is not finite.
        """
        embeddings, features = [], []
        model.eval()
        with progress(label, len(rows), "images") as counter:
            for chosen in chunks(rows, batch_size):
                batch = torch.from_numpy(np.ascontiguousarray(images[chosen])).to(self.device)
                embedding, feature = self.embed(model, batch, mirror)
                if not bool(torch.isfinite(feature).all()):
                    raise RunFailure("diverged", f"{label}: a feature is not finite")
                features.append(feature.cpu().numpy())
                if embedding is not feature:
                    embeddings.append(embedding.cpu().numpy())
                counter.advance(len(chosen))
        joined = np.concatenate(features)
        return (np.concatenate(embeddings) if embeddings else joined), joined
