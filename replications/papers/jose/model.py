"""JoSE (Meng et al., NeurIPS 2019): words, contexts and documents on the unit sphere, trained jointly."""

from typing import Literal

import numpy as np
from scipy.sparse import csr_array
from torch import Tensor, nn
from torch.nn.functional import embedding

from replications.errors import UserError
from replications.layers.embedding.model import EmbeddingModel
from replications.layers.embedding.sphere import on_sphere, retract, uniform_on_sphere
from replications.training.stage import Batch

Hinges = Literal["one", "two"]


class JoSE(EmbeddingModel):
    """Center words u, context words v and documents d.

    `spherical`: the vectors stay on the sphere; else cosines become inner products. `modified`: the step is multiplied
    by the cosine distance of the vector and the direction of descent (section 4). `joint`: with documents. `hinges`:
    ``one`` for context and document together, as in the paper, or ``two``, one for each, as in the authors' code.
    """

    def __init__(
        self,
        vocabulary: int,
        documents: int,
        dim: int,
        margin: float,
        negatives: int,
        spherical: bool,
        modified: bool,
        joint: bool,
        hinges: Hinges,
    ):
        super().__init__()
        if hinges not in ("one", "two"):
            raise UserError(f"'{hinges}' hinges: give one or two")
        self.hinges = hinges
        self.margin, self.negatives = margin, negatives
        self.spherical, self.modified = spherical, modified
        self.center = uniform_on_sphere(vocabulary, dim)
        self.context = uniform_on_sphere(vocabulary, dim)
        self.document = uniform_on_sphere(documents, dim) if joint else None

    def on_step(self, step: int, total_steps: int) -> None:
        """Bring the vectors back to the sphere after the step before."""
        if self.spherical:
            for weight in self.parameters():
                retract(weight)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the mean over pairs of the hinges, summed over negative words.

        One: ``max(0, m - cos(v,u) - cos(u,d) + cos(v,u') + cos(u',d))``.
        """
        center = self._table(self.center)
        positive, negative = embedding(batch["center"], center), embedding(batch["noise"], center)
        v = embedding(batch["context"], self._table(self.context)) * batch["valid"][:, None]
        counted = (batch["noise"] != batch["center"][:, None]).to(v)
        alone = counted * batch["valid"][:, None]
        if self.document is None:
            return {"loss": self._hinge(positive, negative, v, alone)}
        d = embedding(batch["document"], self._table(self.document))
        if self.hinges == "one":
            return {"loss": self._hinge(positive, negative, v + d, counted)}
        return {"loss": self._hinge(positive, negative, v, alone) + self._hinge(positive, negative, d, counted)}

    def _hinge(self, positive: Tensor, negative: Tensor, shared: Tensor, counted: Tensor) -> Tensor:
        """Return the hinge of words ``[n, dim]`` and noise ``[n, negatives, dim]`` on `shared` ``[n, dim]``."""
        ahead = (positive * shared).sum(1, keepdim=True) - (negative * shared[:, None]).sum(2)
        return ((self.margin - ahead).clamp_min(0) * counted).sum(1).mean()

    def word_vectors(self) -> Tensor:
        return nn.functional.normalize(self.center.detach(), dim=1)

    def document_vectors(self, counts: csr_array) -> np.ndarray | None:
        if self.document is None:
            return None
        return nn.functional.normalize(self.document.detach(), dim=1).cpu().numpy()

    def _table(self, weight: Tensor) -> Tensor:
        return on_sphere(weight, self.modified) if self.spherical else weight


def build(
    vocabulary: int,
    documents: int,
    *,
    dim: int,
    margin: float = 0.15,
    negatives: int = 2,
    spherical: bool = True,
    modified: bool = True,
    joint: bool = True,
    hinges: Hinges = "one",
) -> JoSE:
    """Return JoSE for a vocabulary and a number of documents."""
    return JoSE(vocabulary, documents, dim, margin, negatives, spherical, modified, joint, hinges)
