"""What a method of the density estimation task must offer.

A paper's ``build`` gets ``shape`` (rows and columns of an image) and ``classes`` (0: the set has no labels), of which
it takes what it needs, and returns a `Density`. An image is a row of its pixels, float 0 or 1, ``[batch, pixels]``.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from replications.training.stage import Batch


@dataclass
class Measures:
    """What a model has measured of itself on the test images: metrics of the task's table, and arrays."""

    metrics: dict[str, float] = field(default_factory=dict)
    arrays: dict[str, object] = field(default_factory=dict)


class Density(nn.Module):
    """A distribution over binary images. Log-probabilities are natural logarithms.

    `kind` says what the NLL is: ``exact`` or ``bound`` (at most: the model bounds log p(x) from below by samples).
    `passes` counts how often the network was run, or how many steps of a recursion were taken.
    """

    kind: Literal["exact", "bound"] = "exact"
    passes: int = 0

    def fit(self, image: Tensor) -> None:
        """Take what the model takes of the training images without training: called once, before it."""

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return ``loss``, nats an image; `batch` has ``image`` and, where the set has labels, ``label``."""
        return {"loss": -self.log_prob(batch["image"]).mean()}

    def log_prob(self, image: Tensor) -> Tensor:
        """Return log p(x), ``[batch]``. Of an ``exact`` density."""
        raise NotImplementedError

    def log_weights(self, image: Tensor, samples: int) -> Tensor:
        """Return log p(x, z) - log q(z|x) of samples of z, ``[batch, samples]``. Of a ``bound``."""
        raise NotImplementedError

    def label_log_prob(self, image: Tensor) -> Tensor | None:
        """Return log p(x, y) of each class, ``[batch, classes]``; None where the model has no label."""
        return None

    def pseudo_log_prob(self, image: Tensor) -> Tensor | None:
        """Return what is taken for log p(x) and is none, ``[batch]``; None where the model has no such thing."""
        return None

    def sample(self, count: int) -> Tensor:
        """Draw images, ``[count, pixels]``, by torch's generator of the module's device."""
        raise NotImplementedError

    def measure(self, image: Tensor) -> Measures:
        """Measure the trained model on the test images."""
        return Measures()


def log_bernoulli(logits: Tensor, image: Tensor) -> Tensor:
    """Return the log-probability of pixels that are 0 or 1: the last axis is summed, the others broadcast."""
    return F.logsigmoid((2 * image - 1) * logits).sum(-1)


def log_mean_exp(values: Tensor, dim: int) -> Tensor:
    return torch.logsumexp(values, dim) - math.log(values.shape[dim])


class Autoregressive(Density):
    """p(x) = prod_i p(x_i | pixels before i), by the chain rule: exact, and sampled a pixel at a time."""

    def __init__(self, pixels: int):
        super().__init__()
        self.pixels = pixels

    def logits(self, image: Tensor) -> Tensor:
        """Return the logit of each pixel given those before it, ``[batch, pixels]``."""
        raise NotImplementedError

    def order(self) -> Tensor:
        """Return the pixels in the order of the chain rule: by default row by row."""
        return torch.arange(self.pixels)

    def log_prob(self, image: Tensor) -> Tensor:
        return log_bernoulli(self.logits(image), image)

    @torch.no_grad()
    def sample(self, count: int) -> Tensor:
        image = next(self.parameters()).new_zeros(count, self.pixels)
        for pixel in self.order().tolist():
            image[:, pixel] = torch.bernoulli(self.logits(image)[:, pixel].sigmoid())
        return image
