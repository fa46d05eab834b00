"""Mirroring of images with their objects, and the normalisation of a batch."""

import torch
from torch import Generator, Tensor

from replications.training.augment import IMAGENET, Draws, constant
from replications.training.stage import Batch


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
    """Return the batch with its image normalised by ImageNet's statistics, as in the official code.

    Every weights file that this task reads (ResNet-50 of ImageNet, DETR's checkpoints) was trained on images like that.
    """
    image: Tensor = batch["image"]
    mean, std = (constant(IMAGENET[name], image.device) for name in ("mean", "std"))
    image = ((image.float() / 255 - mean) / std).permute(0, 3, 1, 2)
    if "padding" in batch:
        image = image.masked_fill(batch["padding"][:, None], 0.0)
    return {**batch, "image": image}
