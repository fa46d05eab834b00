"""Exponential moving average of a module's weights."""

import copy

import torch
from torch import nn


class AveragedModule:
    """A copy of `module` whose weights follow ``a <- decay * a + (1 - decay) * w`` at each `update`.

    It starts as the initial weights. Floating-point buffers (running statistics) are averaged too, whole numbers are
    copied: the rule of timm's ModelEmaV3, against which a test holds it. (timm takes seconds to import, and torch's
    AveragedModel averages the whole numbers.)
    """

    def __init__(self, module: nn.Module, decay: float):
        self.decay = decay
        self.source = module
        self.module = copy.deepcopy(module).requires_grad_(False).eval()
        self._averaged = list(self.module.parameters())
        self._followed = list(module.parameters())

    @torch.no_grad()
    def update(self) -> None:
        averaged, followed = list(self._averaged), list(self._followed)
        # Listed again each time: a module may put a new tensor in a buffer's place.
        for mine, theirs in zip(self.module.buffers(), self.source.buffers(), strict=True):
            if mine.is_floating_point():
                averaged.append(mine)
                followed.append(theirs)
            else:
                mine.copy_(theirs)
        torch._foreach_lerp_(averaged, followed, 1 - self.decay)
