"""CosFace: additive cosine margin (Wang et al., CVPR 2018)."""

from torch import Tensor

from replications.layers.faces.backbone import IResNet
from replications.layers.faces.heads import CosineHead, FaceClassifier, replace_target, target_of


class CosFaceHead(CosineHead):
    """``s (cos(theta_y) - m)`` for the own class, ``s cos(theta_j)`` for the others (LMCL)."""

    def __init__(self, embedding_dim: int, num_identities: int, scale: float = 64.0, margin: float = 0.35):
        super().__init__(embedding_dim, num_identities, scale)
        self.margin = margin

    def margin_logits(self, cosine: Tensor, label: Tensor) -> Tensor:
        return replace_target(cosine, label, target_of(cosine, label) - self.margin)


def build(
    num_identities: int, image_size: int, *, backbone: dict, scale: float = 64.0, margin: float = 0.35
) -> FaceClassifier:
    """IResNet and the CosFace head; ``scale=30`` is AM-Softmax (Wang et al. 2018, arXiv 1801.05599)."""
    network = IResNet(image_size=image_size, **backbone)
    return FaceClassifier(network, CosFaceHead(network.fc.out_features, num_identities, scale, margin))
