"""How counted operations grow with the resolution of a shape: voxels, views, points, graphs. Nothing is trained."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from replications.layers.points.graph import EdgeConv, nearest
from replications.layers.points.shared_mlp import SharedMLP
from replications.layers.points.views import ViewFeatures
from replications.layers.points.voxels import VoxelFeatures
from replications.layers.systems.measured import Measured
from replications.measurement.flops import forward_flops
from replications.records import Curve

VOXELS, IMAGES, POINTS = (64, 128, 256, 512), (32, 64, 128, 256), (512, 1024, 2048, 4096)
VIEWS, CONVOLUTIONS = 6, ((16, 3, 1, 2), (32, 3, 1, 2), (64, 3, 1, 2))
SHARED, EDGES, K = (64, 64, 64, 128, 1024), (64, 64, 128, 256), 20


def voxels() -> Measured:
    """VoxNet's layers against the voxels along an axis; the cube's exponent is 3."""
    return _measured({side: _voxels(side) for side in VOXELS}, "voxels along an axis", 3)


def views() -> Measured:
    """A network on six views against the pixels along a side; the square's exponent is 2."""
    return _measured({side: _views(side) for side in IMAGES}, "pixels along a side", 2)


def points() -> Measured:
    """PointNet's shared network against the number of points; exponent 1."""
    return _measured({count: _points(count) for count in POINTS}, "points", 1)


def graph() -> Measured:
    """What a graph for each layer of DGCNN costs more than one graph for all, against the points; exponent 2."""
    more = {count: _graph(count, dynamic=True) - _graph(count, dynamic=False) for count in POINTS}
    return _measured(more, "points", 2)


def _measured(flops: dict[int, float], label: str, stated: float) -> Measured:
    """Compare the exponent between the two finest resolutions with the stated one."""
    (x0, y0), (x1, y1) = list(flops.items())[-2:]
    exponent = math.log(y1 / y0) / math.log(x1 / x0)
    curve = Curve(x_label=label, y_label="FLOP", x=list(map(float, flops)), y=list(flops.values()))
    return Measured("costs of a shape's input", [exponent], [stated], curves={"flops": curve})


def _counted(module: nn.Module, shape: tuple[int, ...], forward: Callable[[Tensor], object]) -> float:
    """Count on shapes alone: no number is computed and no memory taken."""
    module.to("meta").eval()
    return forward_flops(lambda: forward(torch.empty(shape, device="meta")))


def _voxels(side: int) -> float:
    with torch.device("meta"):
        network = VoxelFeatures(side, (32, 32, 128), (0.0, 0.0, 0.0))
    return _counted(network, (1, side, side, side), network)


def _views(side: int) -> float:
    with torch.device("meta"):
        network = ViewFeatures(side, CONVOLUTIONS, (64,), "max", 0.0)
    return _counted(network, (1, VIEWS, side, side), network)


def _points(count: int) -> float:
    network = SharedMLP(3, SHARED)
    return _counted(network, (1, count, 3), lambda x: network(x).amax(1))


def _graph(count: int, dynamic: bool) -> float:
    layers = nn.ModuleList(EdgeConv(a, b) for a, b in zip((3, *EDGES[:-1]), EDGES, strict=True))

    def forward(x: Tensor) -> Tensor:
        neighbours = nearest(x, K)
        for number, layer in enumerate(layers):
            if dynamic and number:
                neighbours = nearest(x, K)
            x = layer(x, neighbours)
        return x

    return _counted(layers, (1, count, 3), forward)
