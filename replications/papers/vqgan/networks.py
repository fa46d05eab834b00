"""Networks of VQGAN at small size beside the autoencoder: the critic of patches, and the judge of labels."""

from torch import Tensor, nn


def patch_critic(channels: int) -> nn.Sequential:
    """Return a score for each patch: one halving, so a score sees 10 x 10 pixels."""
    return nn.Sequential(
        nn.Conv2d(1, channels, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(channels, 2 * channels, 4, 1, 1),
        nn.BatchNorm2d(2 * channels),
        nn.LeakyReLU(0.2),
        nn.Conv2d(2 * channels, 1, 1),
    )


class Judge(nn.Module):
    """A classifier of labels whose hidden layers, each of unit length over channels, give a distance as in LPIPS."""

    def __init__(self, channels: int, classes: int):
        super().__init__()
        self.layers = nn.ModuleList(
            [
                nn.Sequential(nn.Conv2d(1, channels, 3, padding=1), nn.SiLU()),
                nn.Sequential(nn.Conv2d(channels, channels, 4, 2, 1), nn.SiLU()),
            ]
        )
        self.head = nn.Linear(channels, classes)

    def features(self, image: Tensor) -> list[Tensor]:
        """Return the outputs of the hidden layers, each ``[batch, channels, rows, columns]``."""
        found = []
        for layer in self.layers:
            image = layer(image)
            found.append(image)
        return found

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.features(image)[-1].mean((2, 3)))

    def distance(self, one: Tensor, other: Tensor) -> Tensor:
        """Return the squared distance of the features, summed over channels and layers, mean over places and images."""
        pairs = zip(self.features(one), self.features(other), strict=True)
        return sum((_unit(a) - _unit(b)).square().sum(1).mean() for a, b in pairs)


def _unit(features: Tensor) -> Tensor:
    return features / features.norm(dim=1, keepdim=True).clamp_min(1e-6)
