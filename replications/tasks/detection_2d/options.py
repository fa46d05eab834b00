"""Options of the detection task, typed. No torch: the planner checks them."""

from typing import Annotated

from pydantic import Field, model_validator

from replications.spec import Strict

Side = Annotated[int, Field(ge=32, le=100_000)]


class DetectionOptions(Strict):
    """How images are shown to a detector, and how it is judged. Sides are in pixels.

    Sets of images of one size (procedural ones) are taken as they are: `short_side`, `long_side`, `train_sides` and
    `crop` are for sets of image files.
    """

    backbone_lr: float = Field(1.0, gt=0, le=1, description="learning rate of the backbone, as part of the recipe's")
    flip: float = Field(0.5, ge=0, le=1, description="probability that a training image is mirrored")
    short_side: Side = Field(800, description="shorter side at test time; images keep their form")
    long_side: Side = Field(1333, description="most pixels of the longer side, at all times")
    train_sides: tuple[Side, ...] = Field((), description="shorter sides to choose from in training; (): short_side")
    crop: tuple[Side, Side] | None = Field(None, description="least and most side of DETR's random crop; None: none")
    crop_sides: tuple[Side, ...] = Field((400, 500, 600), min_length=1, description="shorter sides before that crop")
    workers: int = Field(4, ge=1, description="threads that read image files ahead")
    masks: bool = Field(False, description="train on masks, too; the set must have them")
    eval_batch_size: int = Field(32, ge=1)
    nms: float = Field(0.5, gt=0, lt=1, description="IoU of the suppression in the metrics of decoder layers")
    ap50_level: float = Field(30.0, gt=0, lt=100, description="validation AP50 that `epochs_to_level` waits for")
    drawn: int = Field(6, ge=0, description="test images whose detections and attention are kept for pictures")

    @model_validator(mode="after")
    def _sides(self) -> "DetectionOptions":
        if self.long_side < max(self.short_side, *self.train_sides, 0):
            raise ValueError(f"long_side {self.long_side} is less than a shorter side")
        if self.crop and self.crop[0] > self.crop[1]:
            raise ValueError(f"crop must be least and most side, not {self.crop}")
        return self
