"""The angles of ArcFace, Table 3: how tight the classes are and how far apart."""

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 2048


def _degrees(cosine: Tensor) -> Tensor:
    return torch.rad2deg(torch.acos(cosine.double().clamp(-1.0, 1.0)))


def class_centres(embedding: Tensor, label: Tensor, classes: int) -> Tensor:
    """Return unit vectors ``[classes, dim]``: the direction of the mean of each class's unit embeddings."""
    total = torch.zeros(classes, embedding.shape[1], device=embedding.device)
    return F.normalize(total.index_add_(0, label, F.normalize(embedding.float())))


def mean_nearest_angle(direction: Tensor) -> float:
    """Return the mean over rows ``[n, dim]`` of the angle (degrees) to the nearest other row."""
    direction = F.normalize(direction.float())
    nearest = []
    for start in range(0, len(direction), CHUNK):
        cosine = direction[start : start + CHUNK] @ direction.T
        rows = torch.arange(len(cosine), device=cosine.device)
        cosine[rows, rows + start] = -1.0
        nearest.append(_degrees(cosine.amax(dim=1)))
    return float(torch.cat(nearest).mean())


def intra_angle(embedding: Tensor, label: Tensor, centres: Tensor) -> float:
    """Return the mean angle (degrees) between an image and its class's centre, over classes of two images or
    more.

    A class of one image would add an angle of exactly zero.
    """
    count = torch.bincount(label, minlength=len(centres))
    kept = count[label] > 1
    cosine = (F.normalize(embedding[kept].float()) * centres[label[kept]]).sum(dim=1)
    return float(_degrees(cosine).mean())


def class_angles(embedding: Tensor, identity: Tensor, suffix: str) -> dict[str, float]:
    """Return ``angle_intra_<suffix>`` and ``angle_inter_<suffix>`` of ``[n, dim]`` embeddings (Table 3:
    Intra, Inter).

    Intra: image to the centre of its class. Inter: centre to the nearest other centre. Both are means, in
    degrees.
    """
    classes, label = torch.unique(identity, return_inverse=True)
    centres = class_centres(embedding, label, len(classes))
    return {
        f"angle_intra_{suffix}": intra_angle(embedding, label, centres),
        f"angle_inter_{suffix}": mean_nearest_angle(centres),
    }


def weight_angles(weight: Tensor, embedding: Tensor, label: Tensor) -> dict[str, float]:
    """Return ``angle_weight_centre`` and ``angle_weight_inter`` (Table 3: W-EC, W-Inter), means in degrees.

    W-EC: a class's weight to the centre of its embeddings, over the classes that occur in `label`. W-Inter: a
    weight to the nearest other weight, over all rows of `weight` ``[num_identities, dim]``.
    """
    present, local = torch.unique(label, return_inverse=True)
    centres = class_centres(embedding, local, len(present))
    cosine = (F.normalize(weight[present].float()) * centres).sum(dim=1)
    return {
        "angle_weight_centre": float(_degrees(cosine).mean()),
        "angle_weight_inter": mean_nearest_angle(weight),
    }
