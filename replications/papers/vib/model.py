"""Deep variational information bottleneck (Alemi et al. 2017), and the same network without it."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from replications.layers.objectives.model import ObjectiveClassifier, mlp
from replications.training.stage import Batch

OFFSET = 5.0  # of the standard deviation's argument: codes are nearly deterministic at first


def build(
    num_classes: int, inputs: int, *, widths: Sequence[int], code: int, beta: float, training_samples: int = 1
) -> "Bottleneck":
    """The method: `code` dimensions, `beta` as in Equation 17, in nats."""
    return Bottleneck(num_classes, inputs, widths, code, beta, training_samples)


def build_plain(num_classes: int, inputs: int, *, widths: Sequence[int], code: int, dropout: float = 0.0) -> "Plain":
    """The baselines: the same layers with a deterministic code, with dropout or without."""
    return Plain(num_classes, inputs, widths, code, dropout)


def kl_to_standard_normal(mean: Tensor, std: Tensor) -> Tensor:
    """Return ``KL(N(mean, std^2) || N(0, I))`` in nats, summed over the last axis."""
    return 0.5 * (mean.square() + std.square() - 1 - 2 * std.log()).sum(-1)


class Bottleneck(ObjectiveClassifier):
    """``p(z|x) = N(mean(x), std(x)^2)``, a linear classifier on z, and the prior N(0, I) (Section 4.1)."""

    def __init__(
        self, num_classes: int, inputs: int, widths: Sequence[int], code: int, beta: float, training_samples: int
    ):
        super().__init__()
        self.beta, self.training_samples = beta, training_samples
        self.encoder = nn.Sequential(mlp([inputs, *widths]), nn.Linear(widths[-1], 2 * code))
        self.decoder = nn.Linear(code, num_classes)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of the code, each ``[n, code]``."""
        mean, rho = self.encoder(x).chunk(2, -1)
        return mean, F.softplus(rho - OFFSET)

    def draw_code(self, x: Tensor, samples: int) -> Tensor:
        mean, std = self.encode(x)
        return _draw(mean, std, samples)

    def classify(self, code: Tensor) -> Tensor:
        return self.decoder(code)

    def information(self, x: Tensor) -> Tensor:
        """Return ``KL(p(z|x) || r(z))``, whose mean is an upper bound on I(Z; X)."""
        return kl_to_standard_normal(*self.encode(x))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Equation 17: the expected cross-entropy plus beta times the rate."""
        mean, std = self.encode(batch["x"])
        logits = self.decoder(_draw(mean, std, self.training_samples))
        label = batch["label"].expand(self.training_samples, -1)
        cross_entropy = F.cross_entropy(logits.flatten(0, 1), label.flatten())
        rate = kl_to_standard_normal(mean, std).mean()
        return {"loss": cross_entropy + self.beta * rate, "cross_entropy": cross_entropy, "rate": rate}


class Plain(ObjectiveClassifier):
    """The same layers, the code deterministic; trained by cross-entropy."""

    def __init__(self, num_classes: int, inputs: int, widths: Sequence[int], code: int, dropout: float):
        super().__init__()
        self.encoder = nn.Sequential(mlp([inputs, *widths], dropout), nn.Linear(widths[-1], code))
        self.decoder = nn.Linear(code, num_classes)

    def draw_code(self, x: Tensor, samples: int) -> Tensor:
        return self.encoder(x)[None]

    def classify(self, code: Tensor) -> Tensor:
        return self.decoder(code)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return {"loss": F.cross_entropy(self.decoder(self.encoder(batch["x"])), batch["label"])}


def _draw(mean: Tensor, std: Tensor, samples: int) -> Tensor:
    """Return reparameterised draws ``[samples, n, code]``."""
    return mean + std * torch.randn(samples, *mean.shape, dtype=mean.dtype, device=mean.device)
