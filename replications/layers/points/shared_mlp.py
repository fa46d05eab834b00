"""The network that PointNet and its followers share over all points (Qi et al. 2017)."""

from collections.abc import Sequence

from torch import Tensor, nn


class SharedMLP(nn.Module):
    """The same small network on every point: linear, batch norm and ReLU for each width, on ``[..., channels]``.

    `last_plain` leaves norm and ReLU out after the last layer. `widths` may be empty: the identity.
    """

    def __init__(self, channels: int, widths: Sequence[int], last_plain: bool = False):
        super().__init__()
        self.channels = channels
        layers: list[nn.Module] = []
        for i, width in enumerate(widths):
            plain = last_plain and i == len(widths) - 1
            layers.append(nn.Linear(self.channels, width, bias=plain))
            if not plain:
                layers += [nn.BatchNorm1d(width), nn.ReLU(inplace=True)]
            self.channels = width
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.reshape(-1, x.shape[-1])).view(*x.shape[:-1], self.channels)


def he_normal_(module: nn.Module) -> None:
    """Reinitialise the weights of all shared networks in `module` from N(0, 2 / channels in) (He et al. 2015).

    So does the PyTorch code of PointNet++ that VoteNet builds on; the TensorFlow code of PointNet++ does not.
    """
    for shared in module.modules():
        if isinstance(shared, SharedMLP):
            for layer in shared.layers:
                if isinstance(layer, nn.Linear):
                    nn.init.kaiming_normal_(layer.weight)
