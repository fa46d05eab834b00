"""What a method of the image classification task must offer.

A paper's ``build(num_classes, image_size, **options)`` returns a `Classifier`. Where the method learns from images
without labels first, the classifier's `pretrainer` gives the module that does; the task trains it once a run and then
lets each classifier `start_from` it.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from replications.training.stage import Batch


class Reconstruction(NamedTuple):
    """What a pretrainer makes of masked images.

    `loss` ``[n]`` is that of its training, for each image; `mean_loss` ``[n]`` the loss of predicting the visible
    patches' mean for every hidden patch; `mask` bool ``[n, rows, columns]`` says which patches were hidden; `image`
    float ``[n, 3, H, W]`` shows the visible patches and the predicted hidden ones.
    """

    loss: Tensor
    mean_loss: Tensor
    mask: Tensor
    image: Tensor


class Pretrainer(Protocol):
    """A module that learns from images without labels. `batch` has ``image`` float ``[n, 3, H, W]``."""

    image_size: int

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Return scalar means over the batch by name; ``loss`` is minimised."""
        ...

    def features(self, image: Tensor) -> Tensor:
        """Return what the probes see, ``[n, dim]``, of whole images."""
        ...

    def reconstruct(self, image: Tensor, generator: Generator, mask_ratio: float | None = None) -> Reconstruction:
        """Mask images by `generator` (on the CPU) and reconstruct them; `mask_ratio` None is the training's."""
        ...

    def at_paper_size(self, saving: bool, depth: float) -> "Pretrainer | None":
        """Return the method at the size that the paper gives its speed for, with a share `depth` of its blocks.

        `saving` False leaves out what makes it cheap. None where the paper claims no such saving.
        """
        ...


class Loaded(NamedTuple):
    """What a weights file held: a ``classifier``, an ``encoder``, or an ``autoencoder`` (with its decoder).

    `normalisation` is that of the images it was trained on: ``mean`` and ``std`` of `ToFloat`. Test images are
    normalised so. (Taken into the first layer it would be exact for a classifier, but not for an autoencoder, whose
    targets are pixels.)
    """

    holds: str
    network: nn.Module
    normalisation: Mapping[str, float | Sequence[float]]


class Classifier(nn.Module):
    """Base class. A subclass gives `logits` and `features`; the rest has defaults.

    A paper's reader of weights files gets one that `build` made, fills it or its `pretrainer`, and sets `loaded`.
    """

    loaded: Loaded | None = None

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the cross-entropy, and where targets are plain classes how many of them were predicted, in per cent.

        `batch` has ``image`` float ``[n, 3, H, W]`` and ``label`` int64 ``[n]``, or ``target`` ``[n, classes]``, a
        distribution over the classes.
        """
        logits = self.logits(batch["image"]).float()
        if "target" in batch:
            return {"loss": F.cross_entropy(logits, batch["target"])}
        told = (logits.detach().argmax(1) == batch["label"]).float().mean()
        return {"loss": F.cross_entropy(logits, batch["label"]), "accuracy": 100 * told}

    def logits(self, image: Tensor) -> Tensor:
        """Return ``[n, classes]`` of ``[n, 3, H, W]``."""
        raise NotImplementedError

    def features(self, image: Tensor) -> Tensor:
        """Return what the last layer sees, ``[n, dim]``."""
        raise NotImplementedError

    def attention(self, image: Tensor) -> Tensor | None:
        """Return how the class token looks at the patches, ``[n, heads, rows, columns]``; None without one."""
        return None

    def pretrainer(self) -> Pretrainer | None:
        """Return a freshly built pretrainer, where the method has one. Called at most once, right after the build."""
        return None

    def start_from(self, pretrainer: Pretrainer) -> None:
        """Take over the pretrained weights."""
        raise NotImplementedError


@torch.no_grad()
def top_classes(classifier: Classifier, image: Tensor, count: int) -> Tensor:
    """Return the likeliest classes, best first: int64 ``[n, count]``."""
    logits = classifier.logits(image).float()
    return logits.topk(min(count, logits.shape[1]), dim=1).indices
