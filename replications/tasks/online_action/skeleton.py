"""The smallest method of the task, which ``new paper`` copies: the mean of a window, now and ahead."""

from torch import Tensor, nn

from replications.layers.actions.model import ActionDetector, Logits


class Mean(ActionDetector):
    """One linear map of the mean of the window's frames."""

    def __init__(self, features: int, classes: int, window: int, horizon: int):
        super().__init__(window, horizon)
        self.linear = nn.Linear(features, (1 + horizon) * classes)

    def logits(self, features: Tensor) -> Logits:
        found = self.linear(features.mean(1, keepdim=True)).unflatten(-1, (1 + self.horizon, -1))
        return found[:, :, 0], found[:, :, 1:]


def build(features: int, classes: int, window: int, horizon: int) -> Mean:
    """Return the method for frames of so many numbers."""
    return Mean(features, classes, window, horizon)
