"""L-Softmax: multiplicative angular margin in the plain softmax (Liu et al., ICML 2016)."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from replications.errors import UserError
from replications.layers.faces.backbone import IResNet
from replications.layers.faces.heads import WEIGHT_STD, FaceClassifier, HeadOutput, replace_target, target_of

# The released solver of MNIST: lambda = max(lambda_min, BASE (1 + GAMMA iteration)^-POWER) over 18,000 iterations.
BASE, GAMMA, POWER = 1000.0, 2.5e-5, 35.0
PAPER_ITERATIONS = 18_000
MARGINS = (1, 2, 3, 4)


def cosine_of_multiple(cosine: Tensor, margin: int) -> Tensor:
    """Return ``cos(m theta)`` of ``cos(theta)``: ``sum over n of (-1)^n C(m, 2n) cos^(m - 2n) (1 - cos^2)^n``."""
    squared_sine = 1.0 - cosine.square()
    terms = [
        (-1) ** n * math.comb(margin, 2 * n) * cosine ** (margin - 2 * n) * squared_sine**n
        for n in range(margin // 2 + 1)
    ]
    return sum(terms[1:], terms[0])


def psi(cosine: Tensor, margin: int) -> Tensor:
    """Return ``psi(theta) = (-1)^k cos(m theta) - 2k`` for theta in ``[k pi / m, (k + 1) pi / m]``.

    It falls from 1 at 0 to ``1 - 2m`` at pi. `k` is found by comparing cosines and has no gradient.
    """
    bounds = [math.cos(i * math.pi / margin) for i in range(1, margin)]
    k = sum(((cosine <= bound).to(cosine.dtype) for bound in bounds), torch.zeros_like(cosine))
    return (1.0 - 2.0 * (k % 2)) * cosine_of_multiple(cosine, margin) - 2.0 * k


def annealed_lambda(step: int, total_steps: int, lambda_min: float) -> float:
    """Return the weight of the logit without margin at a step: the released schedule, stretched to the run's length."""
    iteration = step * PAPER_ITERATIONS / total_steps
    return max(lambda_min, BASE * (1.0 + GAMMA * iteration) ** -POWER)


class LSoftmaxHead(nn.Module):
    """Logits ``w_j . x``, of the own class ``|w_y| |x| (lambda cos(theta_y) + psi(theta_y)) / (1 + lambda)``; no bias.

    Weights and embeddings keep their norms. Without `annealed`, lambda is `lambda_min` from the first step.
    Raises UserError for a margin that is not 1, 2, 3 or 4.
    """

    def __init__(
        self, embedding_dim: int, num_identities: int, margin: int = 4, lambda_min: float = 0.0, annealed: bool = True
    ):
        super().__init__()
        if margin not in MARGINS:
            raise UserError(f"L-Softmax's margin is an integer from 1 to 4, not {margin}")
        self.margin, self.lambda_min, self.annealed = margin, lambda_min, annealed
        self.mixing = lambda_min
        self.weight = nn.Parameter(torch.empty(num_identities, embedding_dim))
        nn.init.normal_(self.weight, std=WEIGHT_STD)

    def on_step(self, step: int, total_steps: int) -> None:
        if self.annealed:
            self.mixing = annealed_lambda(step, total_steps, self.lambda_min)

    def forward(self, embedding: Tensor, label: Tensor) -> HeadOutput:
        with torch.autocast(embedding.device.type, enabled=False):
            weight = self.weight
            embedding = embedding.to(weight.dtype)
            plain = F.linear(embedding, weight)
            norms = embedding.norm(dim=1, keepdim=True) * weight.norm(dim=1)
            cosine = (plain / norms.clamp_min(1e-12)).clamp(-1.0, 1.0)
            target = target_of(cosine, label)
            mixed = (self.mixing * target + psi(target, self.margin)) / (1.0 + self.mixing)
            logits = replace_target(plain, label, target_of(norms, label) * mixed)
        return HeadOutput(logits, plain.detach(), cosine.detach())


def build(
    num_identities: int,
    image_size: int,
    *,
    backbone: dict,
    margin: int = 4,
    lambda_min: float = 0.0,
    annealed: bool = True,
) -> FaceClassifier:
    """Return IResNet and the L-Softmax head for images ``[batch, 3, image_size, image_size]``."""
    network = IResNet(image_size=image_size, **backbone)
    return FaceClassifier(network, LSoftmaxHead(network.fc.out_features, num_identities, margin, lambda_min, annealed))
