"""What frozen features are worth: a linear probe and nearest neighbours.

Finetuning hides faults of a pretraining that probes show, so both are always told.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from replications.errors import RunFailure
from replications.layers.images.model import Classifier, Pretrainer
from replications.tasks.image_classification.data import ImageSet, plain_images
from replications.training.augment import Compose, ToFloat
from replications.training.determinism import generator_for
from replications.training.stage import Batch

NEIGHBOUR_CHUNK = 1024


class LinearProbe(nn.Module):
    """Batch normalisation without weights of its own, then a linear layer (MAE, appendix A.1, "Linear probing")."""

    def __init__(self, dim: int, num_classes: int):
        super().__init__()
        self.norm = nn.BatchNorm1d(dim, affine=False, eps=1e-6)
        self.head = nn.Linear(dim, num_classes)
        nn.init.trunc_normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def logits(self, feature: Tensor) -> Tensor:
        return self.head(self.norm(feature))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the cross-entropy of ``feature`` ``[n, dim]`` and ``label``."""
        return {"loss": F.cross_entropy(self.logits(batch["feature"]), batch["label"])}


@torch.no_grad()
def features(
    network: Classifier | Pretrainer,
    images: ImageSet,
    rows: np.ndarray,
    image_size: int,
    batch_size: int,
    device: torch.device,
    augment: Compose | None = None,
    seed: int = 0,
    to_float: ToFloat | None = None,
) -> Tensor:
    """Return float32 features ``[n, dim]`` of rows, of the images as they are or of a random view (`augment`).

    `to_float` normalises images as they are, where not to [-1, 1].

    Raises RunFailure where one is not finite.
    """
    network.eval()
    found = []
    for start in range(0, len(rows), batch_size):
        chosen = rows[start : start + batch_size]
        if augment is None:
            image = plain_images(images, chosen, image_size, device, to_float)
        else:
            raw = {"image": torch.from_numpy(np.ascontiguousarray(images.images[chosen])).to(device)}
            draws = augment.draw(len(chosen), generator_for(seed, "view", start))
            image = augment.apply(raw, {name: draw.to(device) for name, draw in draws.items()})["image"]
        found.append(network.features(image).float())
    joined = torch.cat(found)
    if not bool(torch.isfinite(joined).all()):
        raise RunFailure("diverged", "a feature is not finite")
    return joined


def nearest_classes(
    train: Tensor, label: Tensor, test: Tensor, num_classes: int, neighbours: int, temperature: float
) -> Tensor:
    """Return the class of each test feature by its nearest training features: int64 ``[n]``.

    Similarity is the cosine; each of the `neighbours` nearest votes for its class with ``exp(cosine / temperature)``
    (Wu et al., CVPR 2018).
    """
    train, test = F.normalize(train), F.normalize(test)
    told = []
    for chunk in test.split(NEIGHBOUR_CHUNK):
        cosine, index = (chunk @ train.T).topk(min(neighbours, len(train)), dim=1)
        weight = ((cosine - cosine[:, :1]) / temperature).exp()
        told.append((F.one_hot(label[index], num_classes) * weight[..., None]).sum(1).argmax(1))
    return torch.cat(told)
