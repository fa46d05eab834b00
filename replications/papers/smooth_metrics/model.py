"""Smooth surrogates of accuracy and F1 as training objectives (Su, kexue.fm/archives/6620)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from replications.errors import UserError
from replications.layers.objectives.model import ObjectiveClassifier, mlp
from replications.training.stage import Batch


def soft_accuracy(probabilities: Tensor, label: Tensor) -> Tensor:
    """Return the mean probability of the right class; `probabilities` are ``[n, classes]``, `label` ``[n]``."""
    return probabilities.gather(1, label[:, None]).mean()


def soft_f1(positive: Tensor, label: Tensor) -> Tensor:
    """Return ``2 sum(t p) / sum(t + p)`` of the batch; `positive` ``[n]`` is the probability of class 1.

    It is 0, and its gradient too, for a batch without a sample of class 1.
    """
    target = label.to(positive.dtype)
    tiny = torch.finfo(positive.dtype).tiny  # nothing is positive, and nothing is said to be: 0, not 0 / 0
    return 2 * (target * positive).sum() / (target + positive).sum().clamp_min(tiny)


def cross_entropy(logits: Tensor, label: Tensor, weight: Tensor) -> Tensor:
    return F.cross_entropy(logits, label)


def weighted_cross_entropy(logits: Tensor, label: Tensor, weight: Tensor) -> Tensor:
    """Cross-entropy in which all classes weigh alike, however many samples they have."""
    return F.cross_entropy(logits, label, weight)


def minus_soft_accuracy(logits: Tensor, label: Tensor, weight: Tensor) -> Tensor:
    return -soft_accuracy(logits.softmax(1), label)


def minus_soft_f1(logits: Tensor, label: Tensor, weight: Tensor) -> Tensor:
    return -soft_f1(logits.softmax(1)[:, 1], label)


OBJECTIVES = {
    "cross_entropy": cross_entropy,
    "weighted": weighted_cross_entropy,
    "soft_accuracy": minus_soft_accuracy,
    "soft_f1": minus_soft_f1,
}


def build(
    num_classes: int,
    inputs: int,
    shares: Sequence[float],
    *,
    widths: Sequence[int],
    objective: str,
    warm: float = 0.0,
) -> "SmoothClassifier":
    """A network trained by `objective`; in the first share `warm` of the steps by cross-entropy.

    Raises UserError for an unknown objective, and for soft F1 with more than two classes.
    """
    if objective not in OBJECTIVES:
        raise UserError(f"option 'objective': '{objective}' is none of {', '.join(OBJECTIVES)}")
    if objective == "soft_f1" and num_classes != 2:
        raise UserError(f"soft F1 is of a rare class against the rest, not of {num_classes} classes")
    return SmoothClassifier(num_classes, inputs, shares, widths, objective, warm)


class SmoothClassifier(ObjectiveClassifier):
    """A plain network; what it is trained by is the method."""

    def __init__(
        self,
        num_classes: int,
        inputs: int,
        shares: Sequence[float],
        widths: Sequence[int],
        objective: str,
        warm: float,
    ):
        super().__init__()
        self.wanted, self.warm = objective, warm
        self.objective = "cross_entropy" if warm else objective
        self.register_buffer("weight", 1 / (len(shares) * torch.tensor(shares)), persistent=False)
        self.body = mlp([inputs, *widths])
        self.head = nn.Linear(widths[-1], num_classes)

    def on_step(self, step: int, total_steps: int) -> None:
        self.objective = "cross_entropy" if step < self.warm * total_steps else self.wanted

    def draw_code(self, x: Tensor, samples: int) -> Tensor:
        return self.body(x)[None]

    def classify(self, code: Tensor) -> Tensor:
        return self.head(code)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        logits = self.head(self.body(batch["x"]))
        return {"loss": OBJECTIVES[self.objective](logits, batch["label"], self.weight)}
