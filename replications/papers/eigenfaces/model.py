"""Eigenfaces: principal components of grey images (Turk and Pentland, CVPR 1991).

Nothing is trained by the loop: the verifier fits the principal components.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from replications.layers.faces.model import FaceModel
from replications.layers.faces.verifiers.base import CosineVerifier, Verifier
from replications.layers.faces.verifiers.pca import PCA

LUMA = (0.299, 0.587, 0.114)


class FaceSpace:
    """Projection onto the eigenfaces, the first eigenvectors of the fitting images' covariance."""

    needs_fit = True

    def __init__(self, components: int):
        self.components = components

    def fit(self, features: np.ndarray, identity: np.ndarray, *, seed: int = 0, device: str = "cpu") -> None:
        self.pca = PCA(self.components).fit(features, seed)

    def score(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Minus the Euclidean distance in face space, as the paper compares faces."""
        difference = self.pca.transform(a) - self.pca.transform(b)
        return -np.linalg.norm(difference, axis=1)


class FaceSpaceCosine(FaceSpace):
    """The cosine in face space."""

    def score(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return CosineVerifier().score(self.pca.transform(a), self.pca.transform(b))


class Eigenfaces(FaceModel):
    """Grey pixels as features; the verifier fits face space. No parameters: there is nothing to train."""

    training_only = ()
    embeds_mirror = True  # the features are the image's own: none of its mirror image are to be added

    def __init__(self, side: int, components: int):
        super().__init__()
        self.side, self.components = side, components

    def embed(self, image: Tensor) -> Tensor:
        """Return grey values ``[batch, side * side]`` in [-1, 1]."""
        grey = torch.einsum("bchw,c->bhw", image.float(), image.new_tensor(LUMA).float())
        if grey.shape[-1] > self.side:
            grey = F.interpolate(grey[:, None], (self.side, self.side), mode="bilinear", antialias=True)[:, 0]
        return grey.flatten(1)

    def verifiers(self) -> dict[str, Callable[[], Verifier]]:
        return {
            "euclidean": lambda: FaceSpace(self.components),
            "cosine": lambda: FaceSpaceCosine(self.components),
        }


def build(num_identities: int, image_size: int, *, side: int = 56, components: int = 150) -> Eigenfaces:
    """Images larger than `side` are reduced to it; `components` is the dimension of face space."""
    return Eigenfaces(side, components)
