"""DeepID: face representation from predicting 10,000 classes (Sun, Wang and Tang, CVPR 2014).

One small ConvNet for each face patch, all trained to name the identity; the last hidden layers of all of
them, of the image and of its mirror image, together are the representation.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from replications.layers.faces.locally_connected import LocallyConnected2d
from replications.layers.faces.model import FaceModel
from replications.layers.faces.verifiers.base import CosineVerifier, Verifier
from replications.layers.faces.verifiers.joint_bayesian import PCAJointBayesian
from replications.layers.faces.verifiers.network import NetworkVerifier
from replications.papers.deepid.patches import CropAndResize, Patch, patch_set

FEATURES = 160


class Parallel(nn.Module):
    """Fully connected layers side by side, ``[nets, batch, in]`` to ``[nets, batch, out]``."""

    def __init__(self, nets: int, features_in: int, features_out: int, bias: bool = True):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(nets, features_in, features_out))
        nn.init.normal_(self.weight, std=(2.0 / features_in) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(nets, 1, features_out)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight if self.bias is None else torch.baddbmm(self.bias, x, self.weight)


class ConvNets(nn.Module):
    """The ConvNet of Figure 2, once for each of `nets` patches of one input size; the nets share nothing.

    Channels of the nets are side by side: every layer is one grouped call, however many nets there are. Input
    ``[batch, nets * channels, height, width]``, output the DeepID layer, ``[nets, batch, 160]``.
    """

    def __init__(self, nets: int, channels: int, size: tuple[int, int], multi_scale: bool):
        super().__init__()
        self.nets, self.multi_scale = nets, multi_scale
        self.conv1 = nn.Conv2d(nets * channels, nets * 20, 4, groups=nets)
        size = _pooled(size, kernel=4)
        self.conv2 = nn.Conv2d(nets * 20, nets * 40, 3, groups=nets)
        size = _pooled(size, kernel=3)
        # Weights shared within 2x2 positions, which are the windows of the pooling that follows.
        self.conv3 = LocallyConnected2d(40, 60, 3, size, share=2, nets=nets)
        size = _pooled(size, kernel=3)
        self.conv4 = LocallyConnected2d(60, 80, 2, size, nets=nets)
        conv4_size = self.conv4.output_size
        # One sum of two products under one bias: the DeepID layer sees two scales.
        self.from_conv4 = Parallel(nets, 80 * conv4_size[0] * conv4_size[1], FEATURES)
        if multi_scale:
            self.from_conv3 = Parallel(nets, 60 * size[0] * size[1], FEATURES, bias=False)
        for conv in (self.conv1, self.conv2):
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            nn.init.zeros_(conv.bias)

    def forward(self, patches: Tensor) -> Tensor:
        x = F.max_pool2d(self.conv1(patches), 2).relu()
        x = F.max_pool2d(self.conv2(x), 2).relu()
        x = F.max_pool2d(self.conv3(x), 2).relu()
        y = self.from_conv4(self._rows(self.conv4(x).relu()))
        if self.multi_scale:
            y = y + self.from_conv3(self._rows(x))
        return y.relu()

    def _rows(self, x: Tensor) -> Tensor:
        """``[batch, nets * channels, height, width]`` to ``[nets, batch, features]``."""
        return x.reshape(len(x), self.nets, -1).transpose(0, 1)


def _pooled(size: tuple[int, int], kernel: int) -> tuple[int, int]:
    """Size after a convolution without padding and a 2x2 pooling."""
    return tuple((s - kernel + 1) // 2 for s in size)


class DeepID(FaceModel):
    """The ConvNets of all patches, each with its own softmax over the identities.

    The loss is the sum of the nets' cross-entropies: their gradients do not mix, so training them together is
    training each alone on the same batches.
    """

    embeds_mirror = True

    def __init__(
        self,
        num_identities: int,
        image_size: int,
        patches: list[Patch],
        multi_scale: bool = True,
        pca_dimensions: int = 150,
        network_steps: int | None = 2000,
    ):
        super().__init__()
        self.pca_dimensions, self.network_steps = pca_dimensions, network_steps
        kinds = list(dict.fromkeys((patch.size, patch.channels) for patch in patches))
        groups = [[i for i, p in enumerate(patches) if (p.size, p.channels) == kind] for kind in kinds]
        self.crops = nn.ModuleList(CropAndResize([patches[i] for i in group], image_size) for group in groups)
        self.nets = nn.ModuleList(
            ConvNets(len(group), channels, size, multi_scale)
            for group, (size, channels) in zip(groups, kinds, strict=True)
        )
        # Index of each patch among the groups' nets.
        order = [patch for group in groups for patch in group]
        self.register_buffer("order", torch.tensor(order).argsort(), persistent=False)
        self.head = Parallel(len(patches), FEATURES, num_identities)

    def features(self, image: Tensor) -> Tensor:
        """Return the DeepID layers ``[patches, batch, 160]``."""
        groups = [net(crop(image)) for crop, net in zip(self.crops, self.nets, strict=True)]
        return torch.cat(groups)[self.order]

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        logits = self.head(self.features(batch["image"])).float()
        nets, _, classes = logits.shape
        label = batch["label"].repeat(nets)
        logits = logits.reshape(-1, classes)
        accuracy = (logits.detach().argmax(dim=1) == label).float().mean()
        return {"loss": nets * F.cross_entropy(logits, label), "identification_accuracy": 100.0 * accuracy}

    def embed(self, image: Tensor) -> Tensor:
        """Return ``[batch, patches * 2 * 160]``: for each patch the image's features, then its mirror's.

        In the mirror image the left eye is where the right eye was, so a net sees the mirrored patch of
        the other side, as in the paper.
        """
        both = torch.stack([self.features(image), self.features(image.flip(3))], dim=2)
        return both.transpose(0, 1).flatten(1).float()

    def verifiers(self) -> dict[str, Callable[[], Verifier]]:
        """The paper's two, Joint Bayesian first; besides, the cosine, and Joint Bayesian on the first patch."""
        makers = {
            "joint_bayesian": lambda: PCAJointBayesian(self.pca_dimensions),
            "joint_bayesian_1patch": lambda: FirstPatch(self.pca_dimensions),
            "cosine": CosineVerifier,
        }
        if self.network_steps is not None:
            makers["network"] = lambda: NetworkVerifier(groups=len(self.order), steps=self.network_steps)
        return makers


class FirstPatch(PCAJointBayesian):
    """Joint Bayesian on the features of the first patch (the whole face, in colour) and its mirror alone."""

    def fit(self, features: np.ndarray, identity: np.ndarray, *, seed: int = 0, device: str = "cpu") -> None:
        super().fit(features[:, : 2 * FEATURES], identity, seed=seed, device=device)

    def score(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return super().score(a[:, : 2 * FEATURES], b[:, : 2 * FEATURES])


def build(
    num_identities: int,
    image_size: int,
    *,
    patches: int = 60,
    multi_scale: bool = True,
    pca_dimensions: int = 150,
    network: bool = True,
    network_steps: int = 2000,
) -> DeepID:
    """The first `patches` of the 60 patches; without `multi_scale` the DeepID layer sees conv4 alone.

    `pca_dimensions` are kept for Joint Bayesian. The neural-network verifier is trained for `network_steps`, or left
    out where `network` is false.
    """
    steps = network_steps if network else None
    return DeepID(num_identities, image_size, patch_set(patches), multi_scale, pca_dimensions, steps)
