"""A small convolutional autoencoder of grey images, by whose codes they are made in two stages."""

from torch import nn


def encoder(channels: int, outputs: int) -> nn.Sequential:
    """Return two halvings from ``[batch, 1, rows, columns]`` to ``[batch, outputs, rows / 4, columns / 4]``."""
    return nn.Sequential(
        nn.Conv2d(1, channels, 3, padding=1),
        nn.SiLU(),
        nn.Conv2d(channels, channels, 4, 2, 1),
        nn.SiLU(),
        nn.Conv2d(channels, channels, 4, 2, 1),
        nn.SiLU(),
        nn.Conv2d(channels, outputs, 1),
    )


def decoder(channels: int, inputs: int) -> nn.Sequential:
    """Return two doublings back to ``[batch, 1, rows, columns]``."""
    return nn.Sequential(
        nn.Conv2d(inputs, channels, 1),
        nn.SiLU(),
        nn.ConvTranspose2d(channels, channels, 4, 2, 1),
        nn.SiLU(),
        nn.ConvTranspose2d(channels, channels, 4, 2, 1),
        nn.SiLU(),
        nn.Conv2d(channels, 1, 3, padding=1),
    )
