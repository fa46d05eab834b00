"""Contrastive learning: its losses, the encoder with its projection head, and the classifier that starts from it.

The encoder's features ``h`` are what is probed and finetuned; the loss is of
``z = head(h)`` on the unit sphere.
"""

import itertools
from collections.abc import Callable

import timm
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from replications.errors import UserError, nearest
from replications.layers.images.model import Classifier, Pretrainer, Reconstruction
from replications.layers.images.views import Views
from replications.training.stage import Batch

FORMS = ("convolutions", "architecture", "stem")


def nt_xent(one: Tensor, other: Tensor, temperature: float) -> dict[str, Tensor]:
    """SimCLR's loss (equation 1, Algorithm 1) of unit vectors ``[n, dim]``, two views of each image.

    Each of the ``2n`` views tells the other one of its image among all ``2n - 1`` others.
    """
    views = torch.cat([one, other])
    own = torch.eye(len(views), dtype=torch.bool, device=views.device)
    logits = (views @ views.T / temperature).masked_fill(own, -torch.inf)
    return _told(logits, torch.arange(len(views), device=views.device).roll(len(one)))


def info_nce(query: Tensor, key: Tensor, negatives: Tensor, temperature: float) -> dict[str, Tensor]:
    """MoCo's loss (equation 1) of unit vectors: `query` and `key` ``[n, dim]``, `negatives` ``[K, dim]``."""
    positive = (query * key).sum(1, keepdim=True)
    logits = torch.cat([positive, query @ negatives.T], 1) / temperature
    return _told(logits, torch.zeros(len(query), dtype=torch.int64, device=query.device))


def _told(logits: Tensor, positive: Tensor) -> dict[str, Tensor]:
    """Return the cross-entropy, and how many positives are the nearest, in per cent."""
    nearest = (logits.detach().argmax(1) == positive).float().mean()
    return {"loss": F.cross_entropy(logits, positive), "agreement": 100 * nearest}


class Encoder(nn.Module):
    """Images to features ``h`` ``[n, dim]``, from one of two descriptions.

    ``{"convolutions": [32, 64, 64, 128]}``: 3x3 convolutions of these widths with batch normalisation and ReLU, all but
    the first of stride 2, and the mean over places. Else a residual network of timm's without its classifier:
    ``architecture``, and ``stem`` "small" for one 3x3 convolution without pooling (SimCLR, appendix B.9). Raises
    UserError for a key that is none of these and for an architecture that timm does not have.
    """

    def __init__(self, form: dict):
        super().__init__()
        for name in form:
            if name not in FORMS:
                raise UserError(f"option encoder has no '{name}'{nearest(name, FORMS)}")
        if "convolutions" in form:
            widths = [3, *form["convolutions"]]
            layers = [
                layer
                for index, (before, after) in enumerate(itertools.pairwise(widths))
                for layer in (_convolution(before, after, stride=2 if index else 1), nn.BatchNorm2d(after), nn.ReLU())
            ]
            self.network, self.dim = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), widths[-1]
            return
        architecture, known = form.get("architecture", ""), timm.list_models("resnet*")
        if architecture not in known:
            raise UserError(f"timm has no residual network '{architecture}'{nearest(architecture, known)}")
        self.network = timm.create_model(architecture, num_classes=0, zero_init_last=True)
        if form.get("stem") == "small":
            self.network.conv1 = _convolution(3, self.network.conv1.out_channels, stride=1)
            self.network.maxpool = nn.Identity()
        self.dim = self.network.num_features

    def forward(self, image: Tensor) -> Tensor:
        return self.network(image)


def _convolution(before: int, after: int, stride: int) -> nn.Conv2d:
    convolution = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return convolution


class Projected(nn.Module):
    """The encoder and its head, a network of one hidden layer: unit vectors ``z`` ``[n, dim]`` in float32."""

    def __init__(self, encoder: dict, dim: int):
        super().__init__()
        self.encoder = Encoder(encoder)
        width = self.encoder.dim
        self.head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, dim))

    def forward(self, image: Tensor) -> Tensor:
        return F.normalize(self.head(self.encoder(image)).float(), dim=1)


class ContrastivePretrainer(nn.Module):
    """What SimCLR and MoCo share. A subclass has a `projected` network and a loss.

    Raises UserError for a temperature that is not above 0.
    """

    def __init__(self, image_size: int, encoder: dict, dim: int, temperature: float, views: Views):
        super().__init__()
        if temperature <= 0:
            raise UserError(f"option temperature must be above 0, not {temperature:g}")
        self.image_size, self.temperature, self.views = image_size, temperature, views
        self.projected = Projected(encoder, dim)

    def features(self, image: Tensor) -> Tensor:
        return self.projected.encoder(image)

    def reconstruct(self, image: Tensor, generator: Generator, mask_ratio: float | None = None) -> Reconstruction:
        """Tell each image's mean colour: there is no decoder, so the gain over that is 0."""
        mean = image.mean((2, 3), keepdim=True).expand_as(image)
        loss = (image - mean).square().flatten(1).mean(1)
        return Reconstruction(loss, loss, torch.ones(len(image), 1, 1, dtype=torch.bool, device=image.device), mean)

    def at_paper_size(self, saving: bool, depth: float) -> None:
        return None


class ContrastiveClassifier(Classifier):
    """The encoder and a linear layer. In training it sees one view of each image, drawn as the pretraining's are."""

    def __init__(self, num_classes: int, encoder: dict, views: Views, make: Callable[[], Pretrainer]):
        super().__init__()
        self.encoder = Encoder(encoder)
        self.fc = nn.Linear(self.encoder.dim, num_classes)
        nn.init.zeros_(self.fc.bias)
        self.views, self._make = views, make

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        if self.training:
            batch = batch | {"image": self.views(batch["image"])}
        return super().forward(batch)

    def features(self, image: Tensor) -> Tensor:
        return self.encoder(image)

    def logits(self, image: Tensor) -> Tensor:
        return self.fc(self.encoder(image))

    def pretrainer(self) -> Pretrainer:
        return self._make()

    def start_from(self, pretrainer: ContrastivePretrainer) -> None:
        """Take over the encoder; the head is thrown away (SimCLR, section 2.1)."""
        self.encoder.load_state_dict(pretrainer.projected.encoder.state_dict())
