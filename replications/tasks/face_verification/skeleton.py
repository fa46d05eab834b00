"""The smallest method of the task, which ``new paper`` copies: IResNet and a softmax on cosines, without a margin.

Replace `Head` by the paper's loss, or the backbone by its network.
"""

from torch import Tensor

from replications.layers.faces.backbone import IResNet
from replications.layers.faces.heads import CosineHead, FaceClassifier


class Head(CosineHead):
    """``scale * cos(theta_j)`` for every class ``j``; embedding and class weights are normalised."""

    def margin_logits(self, cosine: Tensor, label: Tensor) -> Tensor:
        """Return the cosines ``[batch, num_identities]``, where a margin would lower each sample's own class."""
        return cosine


def build(num_identities: int, image_size: int, *, backbone: dict, scale: float = 16.0) -> FaceClassifier:
    """Return the method for images ``[batch, 3, image_size, image_size]``; `backbone` are the options of `IResNet`."""
    network = IResNet(image_size=image_size, **backbone)
    return FaceClassifier(network, Head(network.fc.out_features, num_identities, scale))
