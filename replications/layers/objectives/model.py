"""What a method of the task classification_objectives must offer, and the network that they share."""

import itertools
import math
from collections.abc import Sequence

from torch import Tensor, nn

from replications.errors import UserError
from replications.training.stage import Batch


class ObjectiveClassifier(nn.Module):
    """Base class. A subclass gives `forward`, `draw_code` and `classify`; one with a bottleneck gives `information`."""

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return scalar means over the batch by name; ``loss`` is minimised.

        `batch` has ``x`` float ``[n, inputs]`` and ``label`` int64 ``[n]``.
        """
        raise NotImplementedError

    def draw_code(self, x: Tensor, samples: int) -> Tensor:
        """Return what the last layer sees, ``[samples, n, dim]``; ``[1, n, dim]`` where nothing is random."""
        raise NotImplementedError

    def classify(self, code: Tensor) -> Tensor:
        """Return logits ``[..., classes]`` of codes ``[..., dim]``."""
        raise NotImplementedError

    def information(self, x: Tensor) -> Tensor | None:
        """Return each sample's part of a bound on I(Z; X), nats, ``[n]``; None where the code is not random."""
        return None

    def log_probabilities(self, x: Tensor, samples: int) -> Tensor:
        """Return the log of the class probabilities' mean over draws of the code, ``[n, classes]``.

        Gradients go through the mean. Raises UserError for less than one draw.
        """
        if samples < 1:
            raise UserError(f"probabilities need at least 1 sample of the code, not {samples}")
        each = self.classify(self.draw_code(x, samples)).float().log_softmax(-1)
        return each.logsumexp(0) - math.log(len(each))

    def probabilities(self, x: Tensor, samples: int) -> Tensor:
        """Return the mean of the class probabilities over draws of the code, ``[n, classes]``."""
        return self.log_probabilities(x, samples).exp()


def mlp(sizes: Sequence[int], dropout: float = 0.0) -> nn.Sequential:
    """Return linear layers of these sizes, the input's first, each followed by ReLU and dropout."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers)
