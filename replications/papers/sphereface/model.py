"""SphereFace: multiplicative angular margin, A-Softmax (Liu et al., CVPR 2017)."""

import math

import torch
from torch import Tensor

from replications.errors import UserError
from replications.layers.faces.backbone import IResNet
from replications.layers.faces.heads import (
    CosineHead,
    FaceClassifier,
    HeadOutput,
    cosine_to_weights,
    replace_target,
    target_of,
)

# The released solver: lambda = max(LAMBDA_MIN, BASE (1 + GAMMA iteration)^-POWER) over 28,000 iterations.
BASE, GAMMA, POWER, LAMBDA_MIN = 1000.0, 0.12, 1.0, 5.0
PAPER_ITERATIONS = 28_000


def psi(cosine: Tensor, margin: int) -> Tensor:
    """``psi(theta) = (-1)^k cos(m theta) - 2k`` for theta in ``[k pi / m, (k + 1) pi / m]``.

    It falls from 1 at 0 to ``1 - 2m`` at pi.
    ``cos(m theta)`` is the Chebyshev polynomial in ``cos(theta)``: no arccos in the gradient, finite
    everywhere.
    """
    with torch.no_grad():
        theta = torch.acos(cosine.clamp(-1.0, 1.0))
        k = (theta * (margin / math.pi)).floor().clamp(max=margin - 1)
        sign = 1.0 - 2.0 * (k % 2)
    previous, chebyshev = torch.ones_like(cosine), cosine
    for _ in range(margin - 1):
        previous, chebyshev = chebyshev, 2.0 * cosine * chebyshev - previous
    return sign * chebyshev - 2.0 * k


def annealed_lambda(step: int, total_steps: int) -> float:
    """Weight of the logit without margin at a step, the released schedule stretched to the run's length."""
    iteration = step * PAPER_ITERATIONS / total_steps
    return max(LAMBDA_MIN, BASE * (1.0 + GAMMA * iteration) ** -POWER)


class SphereFaceHead(CosineHead):
    """A-Softmax: ``||x|| (lambda cos(theta_y) + psi(theta_y)) / (1 + lambda)``, else ``||x|| cos(theta_j)``.

    Class weights are normalised, there is no bias, and the embedding keeps its norm: it stands where other
    heads have a scale.
    """

    def __init__(self, embedding_dim: int, num_identities: int, margin: int = 4):
        super().__init__(embedding_dim, num_identities)
        if margin not in (1, 2, 3, 4):
            raise UserError(f"A-Softmax's margin is an integer from 1 to 4, not {margin}")
        self.margin = margin
        self.annealing = LAMBDA_MIN

    def on_step(self, step: int, total_steps: int) -> None:
        self.annealing = annealed_lambda(step, total_steps)

    def margin_logits(self, cosine: Tensor, label: Tensor) -> Tensor:
        target = target_of(cosine, label)
        mixed = (self.annealing * target + psi(target, self.margin)) / (1.0 + self.annealing)
        return replace_target(cosine, label, mixed)

    def forward(self, embedding: Tensor, label: Tensor) -> HeadOutput:
        cosine = cosine_to_weights(embedding, self.weight)
        with torch.autocast(embedding.device.type, enabled=False):
            norm = embedding.float().norm(dim=1, keepdim=True)
            logits = norm * self.margin_logits(cosine, label)
        return HeadOutput(logits, cosine.detach(), cosine.detach())


def build(num_identities: int, image_size: int, *, backbone: dict, margin: int = 4) -> FaceClassifier:
    """IResNet and the A-Softmax head."""
    network = IResNet(image_size=image_size, **backbone)
    return FaceClassifier(network, SphereFaceHead(network.fc.out_features, num_identities, margin))
