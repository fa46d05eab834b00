"""VoxNet (Maturana and Scherer 2015): a small 3-D convolutional network on an occupancy grid."""

from collections.abc import Sequence

from torch import Tensor, nn

from replications.layers.points.model import PointClassifier, scaled
from replications.layers.points.voxels import VoxelFeatures, voxel_counts
from replications.training.stage import Batch

WIDTHS = (32, 32, 128)
EXTENT = 4 / 3  # the unit sphere takes 24 of 32 voxels (section IV)


def build(
    num_classes: int,
    *,
    voxels: int = 32,
    scale: float = 1.0,
    dropouts: Sequence[float] = (0.2, 0.3, 0.4),
) -> "VoxNet":
    """VoxNet on `voxels` voxels along each axis; `scale` is a factor on its widths, `dropouts` follow its layers.

    Raises UserError for too few voxels to leave any after the strides.
    """
    return VoxNet(num_classes, voxels, scaled(WIDTHS, scale), dropouts)


class VoxNet(PointClassifier):
    """A cloud's occupied voxels are 1, the others -1."""

    def __init__(self, num_classes: int, voxels: int, widths: Sequence[int], dropouts: Sequence[float]):
        super().__init__()
        self.voxels = voxels
        self.features = VoxelFeatures(voxels, widths, dropouts)
        self.classifier = nn.Linear(widths[-1], num_classes)

    def logits(self, cloud: Batch) -> Tensor:
        occupied = voxel_counts(cloud["points"], self.voxels, EXTENT) > 0
        return self.classifier(self.features(2 * occupied.float() - 1))
