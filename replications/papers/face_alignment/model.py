"""The network of all rows: what differs between them is how their images were aligned, turned and copied."""

from replications.layers.faces.backbone import IResNet
from replications.layers.faces.heads import FaceClassifier, SoftmaxHead


def build(num_identities: int, image_size: int, *, backbone: dict) -> FaceClassifier:
    """Return an IResNet with plain softmax."""
    network = IResNet(image_size=image_size, **backbone)
    return FaceClassifier(network, SoftmaxHead(network.fc.out_features, num_identities))
