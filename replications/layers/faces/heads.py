"""Classification heads: plain softmax, and the base of heads on the cosine to normalised class weights."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from replications.layers.faces.model import FaceModel

WEIGHT_STD = 0.01


class HeadOutput(NamedTuple):
    """What a head makes of a batch, all float32 ``[batch, num_identities]``.

    `logits` go to the cross-entropy; `plain` are the logits without any margin (their argmax is the
    prediction); `cosine` is the cosine between embedding and class weight.
    """

    logits: Tensor
    plain: Tensor
    cosine: Tensor


def target_of(cosine: Tensor, label: Tensor) -> Tensor:
    """Return each sample's entry of its own class, ``[batch]``."""
    return cosine.gather(1, label[:, None])[:, 0]


def replace_target(cosine: Tensor, label: Tensor, target: Tensor) -> Tensor:
    """Return `cosine` ``[batch, num_identities]`` with each own class replaced by `target` ``[batch]``."""
    return cosine.scatter(1, label[:, None], target[:, None].to(cosine.dtype))


def cosine_to_weights(embedding: Tensor, weight: Tensor) -> Tensor:
    """Return float32 cosines in [-1, 1], ``[batch, num_identities]``, between embeddings and weights."""
    with torch.autocast(embedding.device.type, enabled=False):
        cosine = F.linear(F.normalize(embedding.float()), F.normalize(weight.float()))
        return cosine.clamp(-1.0, 1.0)


class CosineHead(nn.Module):
    """Base of the normalised-logit heads: ``logits = scale * margin_logits(cosine, label)``, no bias.

    Embeddings and class weights are L2-normalised and everything here is float32 whatever the backbone's
    precision: an angle near 0 or pi is lost in half precision. A subclass gives `margin_logits`; as it
    stands this class has no margin. A head that anneals has ``on_step(step, total_steps)``.
    """

    def __init__(self, embedding_dim: int, num_identities: int, scale: float = 64.0):
        super().__init__()
        self.scale = scale
        self.weight = nn.Parameter(torch.empty(num_identities, embedding_dim))
        nn.init.normal_(self.weight, std=WEIGHT_STD)

    def margin_logits(self, cosine: Tensor, label: Tensor) -> Tensor:
        """Return the cosines ``[batch, num_identities]`` with the margin applied to each own class."""
        return cosine

    def forward(self, embedding: Tensor, label: Tensor) -> HeadOutput:
        cosine = cosine_to_weights(embedding, self.weight)
        with torch.autocast(embedding.device.type, enabled=False):
            logits = self.scale * self.margin_logits(cosine, label)
        # Detached: used only for the log, and the scale does not change the argmax.
        return HeadOutput(logits, cosine.detach(), cosine.detach())


class SoftmaxHead(nn.Module):
    """The plain classifier: ``logits = weight . embedding + bias``, nothing normalised."""

    def __init__(self, embedding_dim: int, num_identities: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_identities, embedding_dim))
        self.bias = nn.Parameter(torch.zeros(num_identities))
        nn.init.normal_(self.weight, std=WEIGHT_STD)

    def forward(self, embedding: Tensor, label: Tensor) -> HeadOutput:
        with torch.autocast(embedding.device.type, enabled=False):
            logits = F.linear(embedding.float(), self.weight.float(), self.bias.float())
        with torch.no_grad():
            weight_norm = self.weight.float().norm(dim=1).clamp_min(1e-12)
            embedding_norm = embedding.float().norm(dim=1, keepdim=True).clamp_min(1e-12)
            cosine = (logits - self.bias) / weight_norm / embedding_norm
        return HeadOutput(logits, logits.detach(), cosine.clamp(-1.0, 1.0))


class FaceClassifier(FaceModel):
    """A backbone and a head, trained by cross-entropy (float32).

    Logs ``identification_accuracy`` (%, without the margin: with it the figure is not comparable between
    losses) and ``target_angle`` (degrees between the embedding and its own class weight).
    """

    def __init__(self, backbone: nn.Module, head: nn.Module):
        super().__init__()
        self.backbone = backbone
        self.head = head

    def on_step(self, step: int, total_steps: int) -> None:
        """Pass the step to the head, where it anneals its margin."""
        if hasattr(self.head, "on_step"):
            self.head.on_step(step, total_steps)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return self.classify(self.backbone(batch["image"]), batch["label"])

    def classify(self, embedding: Tensor, label: Tensor) -> dict[str, Tensor]:
        """Return the loss of embeddings ``[batch, dim]`` and what is logged."""
        output = self.head(embedding, label)
        with torch.autocast(label.device.type, enabled=False):
            loss = F.cross_entropy(output.logits, label)
        with torch.no_grad():
            correct = (output.plain.argmax(dim=1) == label).float().mean()
            angle = torch.acos(target_of(output.cosine, label)).mean()
        return {
            "loss": loss,
            "identification_accuracy": 100.0 * correct,
            "target_angle": angle * (180.0 / math.pi),
        }

    def embed(self, image: Tensor) -> Tensor:
        return self.backbone(image).float()

    def class_weights(self) -> Tensor:
        return self.head.weight
