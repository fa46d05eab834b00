"""Locally connected layers: convolutions whose weights are not shared over the whole image."""

import math

import torch
from torch import Tensor, nn


class LocallyConnected2d(nn.Module):
    """Convolution without padding whose weights are shared only within `share` x `share` output positions.

    ``share=1`` is the fully unshared layer of DeepFace and of DeepID's conv4; ``share=2`` is DeepID's conv3.
    With every region's weights equal it is ``F.conv2d``. `nets` independent layers are side by side in the
    channels (like ``groups``): input ``[batch, nets * channels_in, height, width]``, output
    ``[batch, nets * channels_out, out_height, out_width]``.

    `weight` is ``[nets * regions, channels_in * kernel * kernel, channels_out]``, its middle axis in the
    order of ``conv2d``'s weight, its regions row by row; `bias` is ``[nets * regions, 1, channels_out]``,
    shared as the weights are. Raises ValueError where the output does not divide into the regions.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int,
        input_size: tuple[int, int],
        stride: int = 1,
        share: int = 1,
        nets: int = 1,
    ):
        super().__init__()
        self.channels_in, self.channels_out, self.nets = channels_in, channels_out, nets
        self.kernel, self.stride, self.share = kernel, stride, share
        self.output_size = tuple((size - kernel) // stride + 1 for size in input_size)
        if any(size < 1 or size % share for size in self.output_size):
            raise ValueError(f"an output of {self.output_size} has no regions of {share}x{share}")
        regions = math.prod(self.output_size) // share**2
        fan_in = channels_in * kernel * kernel
        self.weight = nn.Parameter(torch.empty(nets * regions, fan_in, channels_out))
        self.bias = nn.Parameter(torch.zeros(nets * regions, 1, channels_out))
        nn.init.normal_(self.weight, std=math.sqrt(2.0 / fan_in))

    def forward(self, x: Tensor) -> Tensor:
        batch, (height, width), share = x.shape[0], self.output_size, self.share
        rows, columns, area = height // share, width // share, self.kernel**2
        # Channels innermost, as in a channels-last image: the copy of the windows moves whole pixels.
        pixels = x.unflatten(1, (self.nets, self.channels_in)).permute(1, 0, 3, 4, 2)
        windows = pixels.unfold(2, self.kernel, self.stride).unfold(3, self.kernel, self.stride)
        windows = windows.permute(0, 1, 2, 3, 5, 6, 4).reshape(self.nets, batch, rows, share, columns, share, -1)
        # One matrix product a region: [nets * regions, batch * positions in the region, fan_in].
        windows = windows.permute(0, 2, 4, 1, 3, 5, 6).reshape(len(self.weight), batch * share * share, -1)
        weight = self.weight.unflatten(1, (self.channels_in, area)).transpose(1, 2).flatten(1, 2)
        out = torch.baddbmm(self.bias, windows, weight)
        out = out.view(self.nets, rows, columns, batch, share, share, self.channels_out)
        return out.permute(3, 1, 4, 2, 5, 0, 6).reshape(batch, height, width, -1).permute(0, 3, 1, 2)
