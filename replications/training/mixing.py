"""Mixup, cutmix and label smoothing: images of two samples in one, and targets that say so."""

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from replications.errors import UserError
from replications.training.augment import Draws
from replications.training.stage import Batch


class Mix:
    """Mix each sample with its neighbour in the batch, and turn ``label`` into ``target`` ``[n, classes]``.

    Mixup (Zhang et al., ICLR 2018): ``lam x_i + (1 - lam) x_j`` with lam from Beta(`mixup`, `mixup`). Cutmix (Yun et
    al., ICCV 2019): a rectangle of the share ``1 - lam`` comes from ``x_j``, lam from Beta(`cutmix`, `cutmix`), then
    counted in pixels. Where both are asked for, a sample gets one of them, each half of the time. Targets are mixed
    alike and smoothed as in timm.

    Samples 2k and 2k + 1 are neighbours: batches come in random order, so that is as random as any pairing, and parts
    of a batch with an even number of samples keep it. Images are float ``[n, C, H, W]``.
    """

    def __init__(
        self, num_classes: int, mixup: float = 0.8, cutmix: float = 1.0, smoothing: float = 0.0, key: str = "image"
    ):
        self.num_classes, self.mixup, self.cutmix, self.smoothing, self.key = num_classes, mixup, cutmix, smoothing, key

    def draw(self, n: int, generator: Generator) -> Draws:
        # torch has no Beta deviates from a generator of one's own.
        numbers = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
        cut = numbers.random(n) < 0.5 if self.mixup and self.cutmix else np.full(n, self.cutmix > 0)
        lam = np.ones(n)
        for alpha, chosen in ((self.mixup, ~cut), (self.cutmix, cut)):
            if alpha:
                lam[chosen] = numbers.beta(alpha, alpha, int(chosen.sum()))
        return {
            "place": torch.arange(n),
            "whole": torch.full((n,), n),
            "cut": torch.from_numpy(cut),
            "lam": torch.from_numpy(lam).float(),
            "centre": torch.from_numpy(numbers.random((n, 2))).float(),
        }

    def apply(self, batch: Batch, draws: Draws) -> Batch:
        image, label, lam, cut = batch[self.key], batch["label"], draws["lam"], draws["cut"]
        target = F.one_hot(label, self.num_classes).float() * (1 - self.smoothing) + self.smoothing / self.num_classes
        if self.mixup or self.cutmix:
            partner = self._partner(draws["place"], draws["whole"])
            height, width = image.shape[2:]
            box = self._box(draws["centre"], (1 - lam).sqrt(), height, width)
            lam = torch.where(cut, 1 - box.float().mean((1, 2)), lam)
            # One weight a pixel does both: the share of the sample's own image in it.
            own = torch.where(cut[:, None, None], 1 - box.float(), lam[:, None, None])[:, None].to(image.dtype)
            image = torch.lerp(image[partner], image, own)
            target = torch.lerp(target[partner], target, lam[:, None])
        return {name: value for name, value in batch.items() if name != "label"} | {self.key: image, "target": target}

    @staticmethod
    def _partner(place: Tensor, whole: Tensor) -> Tensor:
        start, n = int(place[0]), len(place)
        partner = torch.minimum(place ^ 1, whole - 1) - start
        if start % 2 or (n % 2 and start + n < int(whole[0])):
            raise UserError(f"mixup and cutmix pair neighbours: parts of a batch must be even, not {n} samples")
        return partner

    @staticmethod
    def _box(centre: Tensor, share: Tensor, height: int, width: int) -> Tensor:
        """Return which pixels ``[n, H, W]`` lie in a box of `share` of each side, cut at the edges."""
        inside = []
        for axis, side in enumerate((height, width)):
            middle, half = (centre[:, axis] * side).floor(), (share * side).floor().div(2, rounding_mode="floor")
            place = torch.arange(side, device=centre.device)
            inside.append((place >= (middle - half)[:, None]) & (place < (middle + half)[:, None]))
        return inside[0][:, :, None] & inside[1][:, None, :]
