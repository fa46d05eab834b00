"""SimCLR (Chen et al., ICML 2020), section 2: two views of each image, one encoder, all other views as negatives."""

import functools

import torch
from torch import Tensor

from replications.layers.images.contrastive import ContrastiveClassifier, ContrastivePretrainer, nt_xent
from replications.layers.images.views import make_views
from replications.training.stage import Batch


class SimCLR(ContrastivePretrainer):
    """Algorithm 1 on batches ``image`` ``[n, 3, H, W]``."""

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        views = torch.cat([self.views(batch["image"]) for _ in range(2)])
        return nt_xent(*self.projected(views).chunk(2), self.temperature)


def build(
    num_classes: int,
    image_size: int,
    *,
    encoder: dict,
    views: dict,
    temperature: float = 0.1,
    dim: int = 128,
) -> ContrastiveClassifier:
    """The classifier, which brings its SimCLR.

    `views` has the least and greatest area of a crop, the strength of the colour jitter, and the share of grey images,
    also for training on labels; `dim` is that of the vectors compared.
    """
    seen = make_views(views)
    make = functools.partial(SimCLR, image_size, encoder, dim, temperature, seen)
    return ContrastiveClassifier(num_classes, encoder, seen, make)
