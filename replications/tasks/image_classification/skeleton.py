"""The smallest method of the task, which ``new paper`` copies: three convolutions and a mean over the image.

A method that learns without labels first also gives `pretrainer` and `start_from` (`Classifier`).
"""

from torch import Tensor, nn

from replications.layers.images.model import Classifier


def convolution(channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
    """Return a 3x3 convolution, batch norm and ReLU."""
    layer = nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(channels_out), nn.ReLU())


class Network(Classifier):
    """Images ``[n, 3, H, W]`` to logits ``[n, num_classes]``."""

    def __init__(self, num_classes: int, channels: int):
        super().__init__()
        self.body = nn.Sequential(
            convolution(3, channels, 1),
            convolution(channels, 2 * channels, 2),
            convolution(2 * channels, 4 * channels, 2),
        )
        self.head = nn.Linear(4 * channels, num_classes)

    def features(self, image: Tensor) -> Tensor:
        return self.body(image).mean((2, 3))

    def logits(self, image: Tensor) -> Tensor:
        return self.head(self.features(image))


def build(num_classes: int, image_size: int, *, channels: int = 16) -> Network:
    """Return the method; it takes images of any size."""
    return Network(num_classes, channels)
