"""The smallest method of the task, which ``new paper`` copies: one hidden layer, trained by cross-entropy.

A method whose code is random draws it in `draw_code` and gives `information`.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from replications.layers.objectives.model import ObjectiveClassifier, mlp
from replications.training.stage import Batch


class Network(ObjectiveClassifier):
    """Vectors ``[n, inputs]`` to logits ``[n, num_classes]``."""

    def __init__(self, num_classes: int, inputs: int, width: int):
        super().__init__()
        self.body = mlp([inputs, width])
        self.head = nn.Linear(width, num_classes)

    def draw_code(self, x: Tensor, samples: int) -> Tensor:
        return self.body(x)[None]

    def classify(self, code: Tensor) -> Tensor:
        return self.head(code)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return {"loss": F.cross_entropy(self.head(self.body(batch["x"])), batch["label"])}


def build(num_classes: int, inputs: int, *, width: int = 32) -> Network:
    """Return the method."""
    return Network(num_classes, inputs, width)
