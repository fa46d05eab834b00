"""DeepFace: a network for aligned faces with locally connected layers (Taigman et al., CVPR 2014)."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from replications.layers.faces.locally_connected import LocallyConnected2d
from replications.layers.faces.model import FaceModel
from replications.layers.faces.verifiers.base import CosineVerifier, Verifier
from replications.layers.faces.verifiers.chi2 import WeightedChi2


class DeepFace(FaceModel):
    """C1-M2-C3-L4-L5-L6-F7-F8 (Figure 2): at 152 pixels 142, 71, 63, 55, 25, 21 positions a side.

    `filters` and `kernels` are those of C1, C3, L4, L5 and L6; `features` is the width of F7. ReLU follows every
    layer but the last. The images are resized to `input_size`.
    """

    def __init__(
        self,
        num_identities: int,
        input_size: int,
        filters: Sequence[int],
        kernels: Sequence[int],
        features: int,
        dropout: float,
    ):
        super().__init__()
        self.input_size = input_size
        self.c1 = nn.Conv2d(3, filters[0], kernels[0])
        self.m2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.c3 = nn.Conv2d(filters[0], filters[1], kernels[1])
        size = -((input_size - kernels[0] + 1 - 3) // -2) + 1  # after M2, rounded up
        size = (size - kernels[1] + 1,) * 2
        self.l4 = LocallyConnected2d(filters[1], filters[2], kernels[2], size)
        self.l5 = LocallyConnected2d(filters[2], filters[3], kernels[3], self.l4.output_size, stride=2)
        self.l6 = LocallyConnected2d(filters[3], filters[4], kernels[4], self.l5.output_size)
        self.f7 = nn.Linear(filters[4] * math.prod(self.l6.output_size), features)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(features, num_identities)  # F8
        for layer in (self.c1, self.c3, self.f7):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)

    def features(self, image: Tensor) -> Tensor:
        """Return F7, ``[batch, features]``, not negative and mostly zero."""
        if image.shape[-1] != self.input_size:
            image = F.interpolate(image, (self.input_size, self.input_size), mode="bilinear", antialias=True)
        x = self.m2(self.c1(image).relu())
        x = self.c3(x).relu()
        x = self.l4(x).relu()
        x = self.l5(x).relu()
        x = self.l6(x).relu()
        return self.f7(x.flatten(1)).relu()

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        label = batch["label"]
        features = self.features(batch["image"])
        logits = self.head(self.dropout(features)).float()
        detached = features.detach()
        return {
            "loss": F.cross_entropy(logits, label),
            "identification_accuracy": 100.0 * (logits.detach().argmax(dim=1) == label).float().mean(),
            "zero_features": 100.0 * (detached == 0).float().mean(),
        }

    def embed(self, image: Tensor) -> Tensor:
        return self.features(image).float()

    def verifiers(self) -> dict[str, Callable[[], Verifier]]:
        return {"cosine": InnerProduct, "weighted_chi2": WeightedChi2}


class InnerProduct(CosineVerifier):
    """The unsupervised similarity (Section 4.1): inner product of normalised features.

    Each feature is divided by its largest value over the fitting images, then the vector by its length
    (Section 3.3).
    """

    needs_fit = True

    def fit(self, features: np.ndarray, identity: np.ndarray, *, seed: int = 0, device: str = "cpu") -> None:
        highest = features.max(axis=0)
        self.maximum = np.where(highest > 0, highest, 1.0)  # a feature that never fires stays zero

    def score(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return super().score(a / self.maximum, b / self.maximum)


def build(
    num_identities: int,
    image_size: int,
    *,
    input_size: int = 152,
    filters: Sequence[int] = (32, 16, 16, 16, 16),
    kernels: Sequence[int] = (11, 9, 9, 7, 5),
    features: int = 4096,
    dropout: float = 0.5,
) -> DeepFace:
    """The network of the paper, or a smaller one of the same layers."""
    return DeepFace(num_identities, input_size, filters, kernels, features, dropout)
