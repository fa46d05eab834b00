"""Mirroring of images with their objects, and the normalisation of a batch."""

import torch
from torch import Generator, Tensor

from replications.training.augment import Draws
from replications.training.stage import Batch

# ImageNet's, as in the official code.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class FlipObjects:
    """Mirror images left to right with their boxes and masks, with probability `probability`."""

    def __init__(self, probability: float):
        self.probability = probability

    def draw(self, n: int, generator: Generator) -> Draws:
        return {"flip": torch.rand(n, generator=generator) < self.probability}

    def apply(self, batch: Batch, draws: Draws) -> Batch:
        flip, image, boxes = draws["flip"], batch["image"], batch["boxes"]
        mirrored = torch.cat([1 - boxes[..., :1], boxes[..., 1:]], dim=-1) * batch["valid"][..., None]
        changed = {
            "image": torch.where(flip[:, None, None, None], image.flip(2), image),
            "boxes": torch.where(flip[:, None, None], mirrored, boxes),
        }
        if "masks" in batch:
            changed["masks"] = torch.where(flip[:, None, None, None], batch["masks"].flip(3), batch["masks"])
        return {**batch, **changed}


class Normalise:
    """Turn uint8 images ``[n, height, width, 3]`` into normalised float ``[n, 3, height, width]``; padding is 0."""

    def draw(self, n: int, generator: Generator) -> Draws:
        return {}

    def apply(self, batch: Batch, draws: Draws) -> Batch:
        return normalised(batch)


def normalised(batch: Batch) -> Batch:
    """Return the batch with its image normalised by ImageNet's statistics."""
    image: Tensor = batch["image"]
    mean = torch.tensor(MEAN, device=image.device)
    std = torch.tensor(STD, device=image.device)
    image = ((image.float() / 255 - mean) / std).permute(0, 3, 1, 2)
    if "padding" in batch:
        image = image.masked_fill(batch["padding"][:, None], 0.0)
    return {**batch, "image": image}
