"""Changes of training scenes: other points of the same scene; mirrored, turned, scaled, with their boxes."""

import math

import torch
from torch import Generator, Tensor

from replications.tasks.detection_3d.options import DetectionOptions
from replications.training.augment import Draws
from replications.training.stage import Batch


class Subsample:
    """Draw `count` of a scene's `stored` points, each set of them equally likely."""

    def __init__(self, stored: int, count: int):
        self.stored, self.count = stored, count

    def draw(self, n: int, generator: Generator) -> Draws:
        return {"priority": torch.rand(n, self.stored, generator=generator)}

    def apply(self, batch: Batch, draws: Draws) -> Batch:
        rows = draws["priority"].topk(self.count, dim=1).indices[..., None]
        picked = {
            name: batch[name].gather(1, rows.expand(-1, -1, batch[name].shape[-1])) for name in ("points", "inside")
        }
        return {**batch, **picked}


class MoveScene:
    """Mirror, turn about z and scale a scene, as the authors do. `oriented`: boxes have headings."""

    def __init__(self, options: DetectionOptions, oriented: bool):
        self.flip, self.rotation, self.scale = options.flip, math.radians(options.rotation), options.scale
        self.oriented = oriented

    def draw(self, n: int, generator: Generator) -> Draws:
        low, high = self.scale
        return {
            "flip": torch.rand(n, 2, generator=generator) < 0.5,
            "angle": (2 * torch.rand(n, generator=generator) - 1) * self.rotation,
            "scale": low + torch.rand(n, generator=generator) * (high - low),
        }

    def apply(self, batch: Batch, draws: Draws) -> Batch:
        flip = torch.stack([own & (axis in self.flip) for axis, own in zip("xy", draws["flip"].T, strict=True)], dim=1)
        change = (flip, draws["angle"], draws["scale"])
        floor = batch["floor"] * draws["scale"]
        return {**batch, "floor": floor, **moved(batch["points"], batch["boxes"], *change, self.oriented)}


def moved(points: Tensor, boxes: Tensor, flip: Tensor, angle: Tensor, scale: Tensor, oriented: bool) -> Batch:
    """Return ``points`` and ``boxes`` mirrored (`flip` ``[b, 2]``: x to −x, y to −y), turned, then scaled.

    A box with a heading turns with its scene. One without stays along the axes and grows to hold the turned box.
    """
    sign = 1 - 2 * flip.to(points.dtype)
    cos, sin = angle.cos()[:, None], angle.sin()[:, None]

    def place(xyz: Tensor) -> Tensor:
        x, y = xyz[..., 0] * sign[:, :1], xyz[..., 1] * sign[:, 1:]
        return torch.stack([cos * x - sin * y, sin * x + cos * y, xyz[..., 2]], dim=-1) * scale[:, None, None]

    heading = boxes[..., 6]
    heading = torch.where(flip[:, :1], math.pi - heading, heading)
    heading = torch.where(flip[:, 1:], -heading, heading) + angle[:, None]
    length, width, height = boxes[..., 3:6].unbind(-1)
    if not oriented:
        heading = torch.zeros_like(heading)
        length, width = cos.abs() * length + sin.abs() * width, sin.abs() * length + cos.abs() * width
    size = torch.stack([length, width, height], dim=-1) * scale[:, None, None]
    return {"points": place(points), "boxes": torch.cat([place(boxes[..., :3]), size, heading[..., None]], dim=-1)}
