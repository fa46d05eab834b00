"""What a method of the point classification task must offer.

A paper's ``build`` gets ``num_classes``, ``channels`` (feature channels of a point beside its position: 3 with normals)
and ``points``, of which it takes what it needs. It returns a `PointClassifier`; where it also takes ``num_parts`` and
that is not None, a `PartSegmenter`; where it takes ``reconstruct`` and that is true, an `Autoencoder`.

A cloud is a batch: ``points`` ``[batch, points, 3]``, ``features`` ``[batch, points, channels]`` where there are
channels, and what the model has precomputed of it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor, nn
from torch.nn import functional as F

from replications.layers.points.chamfer import chamfer_distance
from replications.records import Curve
from replications.training.stage import Batch


@dataclass
class Measures:
    """Measurements of a model's operators: metrics of the task's table, values of parts, curves, arrays."""

    metrics: dict[str, float] = field(default_factory=dict)
    groups: dict[str, list[float]] = field(default_factory=dict)
    curves: dict[str, Curve] = field(default_factory=dict)
    arrays: dict[str, object] = field(default_factory=dict)


class PointModel(nn.Module):
    """What the three kinds have in common: what a model knows of a cloud before any weight is seen."""

    moving: tuple[str, ...] = ()  # names of precomputed positions, which are scaled and shifted with the cloud

    def precompute(self, points: Tensor) -> Batch:
        """Return values that depend only on the positions and are computed once per cloud; first axis ``batch``."""
        return {}

    def conditions(self) -> dict[str, Callable[[Batch], Batch]]:
        """Return further tests of the model's own: name -> change of a cloud (with what is precomputed of it)."""
        return {}

    def measure(self, clouds: Batch) -> Measures:
        """Measure the trained model's operators on some clouds."""
        return Measures()


class PointClassifier(PointModel):
    """Predicts the class of a cloud."""

    def logits(self, cloud: Batch) -> Tensor:
        """Return ``[batch, num_classes]``."""
        raise NotImplementedError

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return means over the batch: ``loss`` and ``accuracy``; `batch` has ``label`` int64 ``[batch]``."""
        logits = self.logits(batch)
        accuracy = (logits.argmax(1) == batch["label"]).float().mean()
        return {"loss": F.cross_entropy(logits, batch["label"]), "accuracy": accuracy}


class PartSegmenter(PointModel):
    """Predicts the part of each point; the cloud's class (``label``) is given, as in the ShapeNet part benchmark."""

    def part_logits(self, cloud: Batch) -> Tensor:
        """Return ``[batch, points, num_parts]``."""
        raise NotImplementedError

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return means over points, ``loss`` and ``accuracy``; ``part`` ``[batch, points]`` is -1 where unknown."""
        logits = self.part_logits(batch)
        known = batch["part"] >= 0
        right = ((logits.argmax(-1) == batch["part"]) & known).sum() / known.sum().clamp_min(1)
        return {
            "loss": F.cross_entropy(logits.flatten(0, 1), batch["part"].flatten(), ignore_index=-1),
            "accuracy": right,
        }


class Autoencoder(PointModel):
    """Encodes a cloud and draws it again. `encoder` is what a `PointClassifier` of the method takes over."""

    encoder: nn.Module

    def encode(self, cloud: Batch) -> Tensor:
        """Return features ``[batch, width]``."""
        raise NotImplementedError

    def reconstruct(self, features: Tensor) -> Tensor:
        """Return points ``[batch, m, 3]``."""
        raise NotImplementedError

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return ``loss``: the mean Chamfer distance."""
        return {"loss": chamfer_distance(self.reconstruct(self.encode(batch)), batch["points"]).mean()}


class ClassifierHead(nn.Sequential):
    """Fully connected layers with batch norm, ReLU and dropout, and the logits."""

    def __init__(self, channels: int, widths: tuple[int, ...], num_classes: int, dropout: float):
        layers: list[nn.Module] = []
        for width in widths:
            layers += [nn.Linear(channels, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(dropout)]
            channels = width
        super().__init__(*layers, nn.Linear(channels, num_classes))


def scaled(widths: tuple[int, ...] | list[int], factor: float) -> list[int]:
    """Return layer widths times `factor`, at least 4: how a tier narrows all methods equally."""
    return [max(4, round(width * factor)) for width in widths]


def with_class(cloud: Batch, num_classes: int, dtype) -> Tensor:
    """Return the class of each cloud as one-hot features of every point ``[batch, points, num_classes]``."""
    one_hot = F.one_hot(cloud["label"], num_classes).to(dtype)
    return one_hot[:, None].expand(-1, cloud["points"].shape[1], -1)
