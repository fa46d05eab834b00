"""DeepID2: face representation by joint identification and verification (Sun, Chen, Wang and Tang, NIPS 2014).

The network names the person of each image (identification); it also brings features of one person together and keeps
those of two people apart (verification). The loss is ``Ident + lambda * Verif``.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from replications.layers.faces.backbone import IResNet
from replications.layers.faces.heads import FaceClassifier, SoftmaxHead
from replications.layers.faces.verifiers.base import CosineVerifier, Verifier
from replications.layers.faces.verifiers.joint_bayesian import PCAJointBayesian

THRESHOLDS = 100  # distances among which the margin is looked for, evenly from 0 to the batch's largest
SMALLEST = 1e-12  # a squared distance: its root has a gradient there


class VerificationSignal(nn.Module):
    """The L2 verification signal over all pairs of a batch.

    ``|fi - fj|^2 / 2`` of two images of a person, ``max(0, m - |fi - fj|)^2 / 2`` of two people; the mean over pairs
    of the first kind plus the mean over those of the second, halved. The margin m is not learned: it is the distance
    that errs least on the batch's own pairs, averaged over the steps so far with weight `momentum`.
    """

    def __init__(self, momentum: float = 0.9):
        super().__init__()
        self.momentum = momentum
        self.register_buffer("margin", torch.tensor(0.0))

    def forward(self, feature: Tensor, label: Tensor) -> Tensor:
        """Return the loss of features ``[batch, dim]`` of people ``[batch]``; 0 of a kind that has no pair."""
        first, second = torch.triu_indices(len(label), len(label), 1, device=label.device).unbind()
        distance = (feature[first] - feature[second]).square().sum(dim=1).clamp_min(SMALLEST).sqrt()
        same = (label[first] == label[second]).to(distance.dtype)
        if self.training:
            self._follow(distance.detach(), same)
        apart = (self.margin - distance).clamp_min(0.0)
        together = (same * distance.square()).sum() / same.sum().clamp_min(1.0)
        separate = ((1 - same) * apart.square()).sum() / (1 - same).sum().clamp_min(1.0)
        return 0.5 * (together + separate) / 2

    def _follow(self, distance: Tensor, same: Tensor) -> None:
        """Move the margin to the distance that least often tells pairs wrongly, both kinds weighed alike."""
        steps = torch.linspace(0, 1, THRESHOLDS, device=distance.device, dtype=distance.dtype)
        threshold = distance.max() * steps
        joined = (distance <= threshold[:, None]).to(distance.dtype)  # [thresholds, pairs]
        missed = 1 - joined @ same / same.sum().clamp_min(1.0)
        wrong = joined @ (1 - same) / (1 - same).sum().clamp_min(1.0)
        best = threshold.gather(0, (missed + wrong).argmin()[None])[0]  # an index would wait for the device
        weight = torch.where(self.margin == 0, 0.0, self.momentum)  # the first batch sets it
        self.margin.copy_(torch.where(same.sum() > 0, torch.lerp(best, self.margin, weight), self.margin))


class L2Verifier:
    """Minus the distance of the two features."""

    needs_fit = False

    def fit(self, features: np.ndarray, identity: np.ndarray, *, seed: int = 0, device: str = "cpu") -> None:
        """Nothing is learned."""

    def score(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return -np.linalg.norm(np.asarray(a, np.float64) - np.asarray(b, np.float64), axis=1)


class DeepID2(FaceClassifier):
    """A network with both signals; without `identification` with the second alone, whose weight is then 1."""

    def __init__(self, backbone: nn.Module, head: nn.Module, weight: float, identification: bool):
        super().__init__(backbone, head)
        self.weight, self.identification = weight, identification
        self.verification = VerificationSignal()
        if not identification:
            self.head.requires_grad_(False)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        feature = self.backbone(batch["image"])
        with torch.autocast(feature.device.type, enabled=False):
            verification = self.verification(feature.float(), batch["label"])
        if not self.identification:
            return {"loss": verification, "margin": self.verification.margin.clone()}
        found = self.classify(feature, batch["label"])
        loss = found["loss"] + self.weight * verification if self.weight else found["loss"]
        return found | {"loss": loss, "verification": verification.detach(), "margin": self.verification.margin.clone()}

    def class_weights(self) -> Tensor | None:
        return super().class_weights() if self.identification else None

    def verifiers(self) -> dict[str, Callable[[], Verifier]]:
        return {"l2": L2Verifier, "cosine": CosineVerifier, "joint_bayesian": PCAJointBayesian}


def build(
    num_identities: int, image_size: int, *, backbone: dict, verification: float, identification: bool = True
) -> DeepID2:
    """IResNet, a plain classifier, and the verification signal with weight `verification` (lambda)."""
    network = IResNet(image_size=image_size, **backbone)
    head = SoftmaxHead(network.fc.out_features, num_identities)
    return DeepID2(network, head, verification, identification)
