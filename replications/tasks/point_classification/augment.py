"""Augmentation of clouds: scale, shift, jitter, dropped points."""

import torch
from torch import Generator

from replications.tasks.point_classification.options import AugmentOptions
from replications.training.augment import Draws
from replications.training.stage import Batch


class PointAugment:
    """What `AugmentOptions` says. `moving` names further positions in a batch that go with the cloud.

    Satisfies `replications.training.augment.Augment`. Normals are left as they are: scale and shift do not turn them.
    """

    def __init__(self, options: AugmentOptions, points: int, moving: tuple[str, ...] = ()):
        self.options, self.points, self.moving = options, points, ("points", *moving)

    def draw(self, n: int, generator: Generator) -> Draws:
        own, draws = self.options, {}
        if own.scale != (1.0, 1.0):
            low, high = own.scale
            draws["scale"] = low + (high - low) * torch.rand(n, 1, 1, generator=generator)
        if own.shift:
            draws["shift"] = own.shift * (2 * torch.rand(n, 1, 3, generator=generator) - 1)
        if own.jitter:
            draws["jitter"] = own.jitter * torch.randn(n, self.points, 3, generator=generator)
        if own.dropout:
            share = own.dropout * torch.rand(n, 1, generator=generator)
            draws["dropped"] = torch.rand(n, self.points, generator=generator) < share
        return draws

    def apply(self, batch: Batch, draws: Draws) -> Batch:
        batch = dict(batch)
        for name in self.moving:
            batch[name] = batch[name] * draws.get("scale", 1) + draws.get("shift", 0)
        if "jitter" in draws:
            batch["points"] = batch["points"] + draws["jitter"]
        if "dropped" in draws:
            for name in ("points", "features", "part"):
                if name in batch:
                    mask = draws["dropped"].view(*draws["dropped"].shape, *[1] * (batch[name].dim() - 2))
                    batch[name] = torch.where(mask, batch[name][:, :1], batch[name])
        return batch
