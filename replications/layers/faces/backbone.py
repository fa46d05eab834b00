"""IResNet, the backbone of the margin-loss papers, sized by depth, width and image size.

The layout and the parameter names are those of insightface's ``arcface_torch/backbones/iresnet.py``, so that
at ``width=1, image_size=112`` its published weights load with ``load_state_dict``.
"""

import torch
from torch import Tensor, nn

from replications.errors import UserError

BLOCKS = {
    10: (1, 1, 1, 1),
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 14, 3),
    100: (3, 13, 30, 3),
    200: (6, 26, 60, 6),
}
STAGE_CHANNELS = (64, 128, 256, 512)
BATCH_NORM_EPS = 1e-5


def _conv3x3(channels_in: int, channels_out: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)


class IBasicBlock(nn.Module):
    """BN - conv3x3 - BN - PReLU - conv3x3(stride) - BN, plus the input (or its 1x1 convolution and BN)."""

    def __init__(self, channels_in: int, channels_out: int, stride: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels_in, eps=BATCH_NORM_EPS)
        self.conv1 = _conv3x3(channels_in, channels_out)
        self.bn2 = nn.BatchNorm2d(channels_out, eps=BATCH_NORM_EPS)
        self.prelu = nn.PReLU(channels_out)
        self.conv2 = _conv3x3(channels_out, channels_out, stride)
        self.bn3 = nn.BatchNorm2d(channels_out, eps=BATCH_NORM_EPS)
        self.downsample = None
        if stride != 1 or channels_in != channels_out:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride=stride, bias=False),
                nn.BatchNorm2d(channels_out, eps=BATCH_NORM_EPS),
            )

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.conv1(self.bn1(x))
        out = self.conv2(self.prelu(self.bn2(out)))
        return self.bn3(out) + identity


class IResNet(nn.Module):
    """Image ``[batch, 3, image_size, image_size]`` to embedding ``[batch, embedding_dim]``, not normalised.

    `width` multiplies the 64, 128, 256, 512 channels of the four stages. Each stage halves the image
    (rounding up), so the head sees ``ceil(image_size / 16)`` squared positions: 7x7 at 112. Raises UserError
    for an unknown depth.
    """

    def __init__(
        self,
        depth: int = 50,
        width: float = 1.0,
        embedding_dim: int = 512,
        image_size: int = 112,
        dropout: float = 0.0,
    ):
        super().__init__()
        if depth not in BLOCKS:
            raise UserError(f"IResNet has no depth {depth} (known: {', '.join(map(str, BLOCKS))})")
        channels = [max(1, round(c * width)) for c in STAGE_CHANNELS]
        self.conv1 = _conv3x3(3, channels[0])
        self.bn1 = nn.BatchNorm2d(channels[0], eps=BATCH_NORM_EPS)
        self.prelu = nn.PReLU(channels[0])
        channels_in = channels[0]
        size = image_size
        for number, (blocks, channels_out) in enumerate(zip(BLOCKS[depth], channels, strict=True), start=1):
            stage = [IBasicBlock(channels_in, channels_out, stride=2)]
            stage += [IBasicBlock(channels_out, channels_out, stride=1) for _ in range(blocks - 1)]
            self.add_module(f"layer{number}", nn.Sequential(*stage))
            channels_in = channels_out
            size = (size + 1) // 2
        self.bn2 = nn.BatchNorm2d(channels_in, eps=BATCH_NORM_EPS)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(channels_in * size * size, embedding_dim)
        self.features = nn.BatchNorm1d(embedding_dim, eps=BATCH_NORM_EPS)
        # The reference fixes the last scale: the heads normalise the embedding, so it would only drift.
        self.features.weight.requires_grad_(False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.prelu(self.bn1(self.conv1(image)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        x = self.dropout(torch.flatten(self.bn2(x), 1))
        # As in the reference, the last layer is not in half precision: its output is compared by angle.
        with torch.autocast(x.device.type, enabled=False):
            return self.features(self.fc(x.float()))
