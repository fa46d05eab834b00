"""The smallest method of the task, which ``new paper`` copies: a shared network on each point and one maximum."""

from torch import Tensor, cat

from replications.layers.points.model import ClassifierHead, PointClassifier, scaled
from replications.layers.points.shared_mlp import SharedMLP
from replications.training.stage import Batch


class Network(PointClassifier):
    """Clouds to logits ``[batch, num_classes]``. The order of the points does not matter: the maximum forgets it."""

    def __init__(self, num_classes: int, channels: int, width: float, dropout: float):
        super().__init__()
        self.shared = SharedMLP(3 + channels, scaled([64, 128, 1024], width))
        self.head = ClassifierHead(self.shared.channels, tuple(scaled([512, 256], width)), num_classes, dropout)

    def logits(self, cloud: Batch) -> Tensor:
        """``points`` are ``[batch, points, 3]``; ``features`` ``[batch, points, channels]``, where there are any."""
        inputs = cloud["points"]
        if "features" in cloud:
            inputs = cat([inputs, cloud["features"]], dim=-1)
        return self.head(self.shared(inputs).max(1)[0])


def build(num_classes: int, channels: int, *, width: float = 1.0, dropout: float = 0.4) -> Network:
    """Return the method; the tier's `width` narrows all methods of the task equally."""
    return Network(num_classes, channels, width, dropout)
