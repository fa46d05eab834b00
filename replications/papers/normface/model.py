"""NormFace: softmax on normalised features and weights with a scale (Wang et al., ACM MM 2017)."""

import torch
from torch import nn

from replications.layers.faces.backbone import IResNet
from replications.layers.faces.heads import CosineHead, FaceClassifier


class NormFaceHead(CosineHead):
    """``s cos(theta_j)`` for every class, no bias, where `s` is learned with the network."""

    def __init__(self, embedding_dim: int, num_identities: int, scale: float):
        super().__init__(embedding_dim, num_identities)
        self.scale = nn.Parameter(torch.tensor(scale))


def build(
    num_identities: int, image_size: int, *, backbone: dict, scale: float = 20.0, learn_scale: bool = True
) -> FaceClassifier:
    """IResNet and normalised softmax at a learned scale that starts at `scale`, or at a fixed one."""
    network = IResNet(image_size=image_size, **backbone)
    head = NormFaceHead if learn_scale else CosineHead
    return FaceClassifier(network, head(network.fc.out_features, num_identities, scale))
