"""Probes: accuracy of a linear classifier and of nearest neighbours on frozen features."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from replications.training.stage import Batch

NEIGHBOUR_CHUNK = 1024


class LinearProbe(nn.Module):
    """Batch normalisation without weights, then a linear layer (MAE, appendix A.1, "Linear probing")."""

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
