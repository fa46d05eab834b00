"""The smallest method of the task, which ``new paper`` copies: each pixel is predicted from those before it."""

from torch import Tensor

from replications.layers.density.masked import MaskedLinear, before
from replications.layers.density.model import Autoregressive


class Network(Autoregressive):
    """Images ``[batch, pixels]`` to logits of the same shape; the mask keeps the order of the chain rule."""

    def __init__(self, pixels: int):
        super().__init__(pixels)
        self.linear = MaskedLinear(pixels, pixels, before(pixels))

    def logits(self, image: Tensor) -> Tensor:
        self.passes += 1
        return self.linear(image)


def build(shape: tuple[int, int]) -> Network:
    """Return the method for images of so many rows and columns."""
    return Network(shape[0] * shape[1])
