"""MVCNN (Su et al. 2015): one network on all views of a shape, pooled over the views."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from replications.errors import UserError
from replications.layers.points.model import PointClassifier
from replications.layers.points.views import ViewFeatures, cameras, depth_views
from replications.training.stage import Batch

VGG_M = ((96, 7, 2, 3), (256, 5, 2, 3), (512, 3, 1, 0), (512, 3, 1, 0), (512, 3, 1, 3))
EXTENT = 1.25


def build(
    num_classes: int,
    *,
    views: int = 12,
    rendered: int | None = None,
    pool: Literal["max", "mean"] = "max",
    resolution: int = 224,
    splat: int = 9,
    layers: Sequence[Sequence[int]] = VGG_M,
    hidden: Sequence[int] = (4096, 4096),
    dropout: float = 0.5,
) -> "MVCNN":
    """MVCNN on the first `views` of `rendered` cameras (None: all of them) around the upright axis.

    `layers` are (channels, kernel, stride, pool), see `ViewFeatures`. Raises UserError for more views than are rendered
    or too small a resolution.
    """
    rendered = rendered or views
    if not 1 <= views <= rendered:
        raise UserError(f"mvcnn: {views} views of {rendered} that are rendered: give 1 to {rendered}")
    if pool not in ("max", "mean"):
        raise UserError(f"mvcnn: pool '{pool}' is neither 'max' nor 'mean'")
    features = ViewFeatures(resolution, layers, hidden, pool, dropout)
    return MVCNN(features, num_classes, views, rendered, resolution, splat, hidden[-1])


class MVCNN(PointClassifier):
    """Depth images of the cloud, and the network on them (Figure 1)."""

    def __init__(
        self,
        features: ViewFeatures,
        num_classes: int,
        views: int,
        rendered: int,
        resolution: int,
        splat: int,
        width: int,
    ):
        super().__init__()
        self.resolution, self.splat = resolution, splat
        self.register_buffer("cameras", cameras(rendered)[:views].float(), persistent=False)
        self.features = features
        self.classifier = nn.Linear(width, num_classes)

    def logits(self, cloud: Batch) -> Tensor:
        images = depth_views(cloud["points"], self.cameras, self.resolution, self.splat, EXTENT)
        return self.classifier(self.features(images))
