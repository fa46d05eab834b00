"""ArcFace: additive angular margin (Deng et al., CVPR 2019), and the softmax baselines of its Table 2.

The paper's symbols: `s` scale, `m` margin (radians), ``theta_j`` the angle between an embedding and class
weight j.
"""

import math

import torch
from torch import Tensor

from replications.errors import UserError, nearest
from replications.layers.faces.backbone import IResNet
from replications.layers.faces.heads import (
    CosineHead,
    FaceClassifier,
    SoftmaxHead,
    cosine_to_weights,
    replace_target,
    target_of,
)

GUARDS = ("mxnet", "easy_margin", "none")
GRADIENTS = ("exact", "straight_through")
# Below the spacing of float32 near 1: the clamp acts only where cos(theta)^2 has rounded to 1 or above.
SMALLEST_SQUARED_SINE = 1e-9


class ArcFaceHead(CosineHead):
    """``s cos(theta_y + m)`` for the own class, ``s cos(theta_j)`` for the others (Eq. 3).

    ``cos(theta + m)`` rises again beyond ``theta = pi - m``. `guard` says what stands there instead: "mxnet",
    the authors' ``cos(theta) - m sin(m)``, which keeps falling; "easy_margin", the margin only where
    ``theta < pi/2`` and plain ``cos(theta)`` beyond; "none".

    `gradient` "exact" is the derivative of the formula, ``s sin(theta + m) / sin(theta)``. "straight_through"
    has the same logits with derivative `s`, as ``arcface_torch`` trains since December 2022.
    """

    def __init__(
        self,
        embedding_dim: int,
        num_identities: int,
        scale: float = 64.0,
        margin: float = 0.5,
        guard: str = "mxnet",
        gradient: str = "exact",
    ):
        super().__init__(embedding_dim, num_identities, scale)
        if guard not in GUARDS:
            raise UserError(f"ArcFace has no guard '{guard}'{nearest(guard, GUARDS)}")
        if gradient not in GRADIENTS:
            raise UserError(f"ArcFace has no gradient '{gradient}'{nearest(gradient, GRADIENTS)}")
        self.margin, self.guard, self.gradient = margin, guard, gradient

    def margin_logits(self, cosine: Tensor, label: Tensor) -> Tensor:
        target = target_of(cosine, label)
        return replace_target(cosine, label, self.add_margin(target))

    def add_margin(self, cosine: Tensor) -> Tensor:
        """Return the margin's replacement of ``cos(theta_y)``, elementwise."""
        m = self.margin
        # cos(theta + m) by the addition theorem. At theta = 0 only the sine's part of the gradient is cut
        # off: it is infinite there, and what remains, cos(m), still pulls in the right direction.
        sine = (1.0 - cosine.square()).clamp_min(SMALLEST_SQUARED_SINE).sqrt()
        with_margin = cosine * math.cos(m) - sine * math.sin(m)
        if self.guard == "mxnet":
            with_margin = torch.where(cosine > -math.cos(m), with_margin, cosine - m * math.sin(m))
        elif self.guard == "easy_margin":
            with_margin = torch.where(cosine > 0, with_margin, cosine)
        if self.gradient == "straight_through":
            return cosine + (with_margin - cosine).detach()
        return with_margin


class ArcFaceWithTerms(FaceClassifier):
    """ArcFace plus the Intra-Loss (Eq. 5) and Inter-Loss (Eq. 6), each with weight 1 as in Table 2."""

    def classify(self, embedding: Tensor, label: Tensor) -> dict[str, Tensor]:
        logs = super().classify(embedding, label)
        weight = self.head.weight
        intra = _angle(target_of(cosine_to_weights(embedding, weight), label)).mean() / math.pi
        between = cosine_to_weights(weight[label], weight)
        own = torch.zeros_like(between, dtype=torch.bool).scatter(1, label[:, None], True)
        angles = _angle(between).masked_fill(own, 0.0).sum(dim=1) / (len(weight) - 1)
        inter = -angles.mean() / math.pi
        return {
            **logs,
            "loss": logs["loss"] + intra + inter,
            "intra": intra.detach(),
            "inter": inter.detach(),
        }


def _angle(cosine: Tensor) -> Tensor:
    """Angle in radians; the derivative of arccos is infinite at 0 and pi and is kept finite."""
    return torch.acos(cosine.clamp(-1.0 + 1e-6, 1.0 - 1e-6))


def build(
    num_identities: int,
    image_size: int,
    *,
    backbone: dict,
    scale: float = 64.0,
    margin: float = 0.5,
    guard: str = "mxnet",
    gradient: str = "exact",
    terms: bool = False,
) -> FaceClassifier:
    """IResNet and the ArcFace head; `terms` adds the Intra- and Inter-Loss."""
    network = IResNet(image_size=image_size, **backbone)
    head = ArcFaceHead(network.fc.out_features, num_identities, scale, margin, guard, gradient)
    return (ArcFaceWithTerms if terms else FaceClassifier)(network, head)


def build_softmax(num_identities: int, image_size: int, *, backbone: dict) -> FaceClassifier:
    """The "Softmax" row of Table 2: weights, bias and norms as they come (Eq. 1)."""
    network = IResNet(image_size=image_size, **backbone)
    return FaceClassifier(network, SoftmaxHead(network.fc.out_features, num_identities))


def build_norm_softmax(num_identities: int, image_size: int, *, backbone: dict, scale: float = 64.0) -> FaceClassifier:
    """The "Norm-Softmax" row of Table 2: weights and embeddings normalised, scale `s`, no margin (Eq. 2)."""
    network = IResNet(image_size=image_size, **backbone)
    return FaceClassifier(network, CosineHead(network.fc.out_features, num_identities, scale))
