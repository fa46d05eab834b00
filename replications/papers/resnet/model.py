"""Residual networks (He et al., CVPR 2016) from timm, as the baseline that ViT is set against."""

import timm
from torch import Tensor, nn

from replications.errors import UserError, nearest
from replications.layers.images.model import Classifier

STEMS = ("imagenet", "small")


class ResNet(Classifier):
    """A network of timm's. `stem` "small" is that of the paper's section 4.2: one 3x3 convolution, no pooling.

    `widths` and `blocks` (timm's ``channels`` and ``layers``) size a network that timm has no name for.
    """

    def __init__(
        self,
        num_classes: int,
        architecture: str,
        stem: str,
        blocks: tuple[int, ...] | None,
        widths: tuple[int, ...] | None,
        zero_init: bool,
    ):
        super().__init__()
        if stem not in STEMS:
            raise UserError(f"ResNet has no stem '{stem}'{nearest(stem, STEMS)}")
        if not architecture.startswith("resnet") or not timm.is_model(architecture):
            known = timm.list_models("resnet*")
            raise UserError(f"timm has no residual network '{architecture}'{nearest(architecture, known)}")
        changes = {}
        if blocks:
            changes["layers"] = tuple(blocks)
        if widths:
            changes["channels"] = tuple(widths)
        self.network = timm.create_model(architecture, num_classes=num_classes, zero_init_last=zero_init, **changes)
        if stem == "small":
            out = self.network.conv1.out_channels
            self.network.conv1 = nn.Conv2d(3, out, 3, padding=1, bias=False)
            nn.init.kaiming_normal_(self.network.conv1.weight, mode="fan_out", nonlinearity="relu")
            self.network.maxpool = nn.Identity()

    def features(self, image: Tensor) -> Tensor:
        return self.network.forward_head(self.network.forward_features(image), pre_logits=True)

    def logits(self, image: Tensor) -> Tensor:
        return self.network.get_classifier()(self.features(image))


def build(
    num_classes: int,
    image_size: int,
    *,
    resnet: dict,
) -> ResNet:
    """The task's residual network; any image size will do."""
    form = {"architecture": "resnet18", "stem": "imagenet", "blocks": None, "widths": None, "zero_init": True} | resnet
    unknown = set(resnet) - {"architecture", "stem", "blocks", "widths", "zero_init"}
    if unknown:
        raise UserError(f"ResNet has no option '{unknown.pop()}' (known: {', '.join(form)})")
    return ResNet(num_classes, **form)
