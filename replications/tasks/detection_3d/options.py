"""Options of 3-D detection, typed. No torch: the planner checks them."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from replications.spec import Strict

Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class DetectionOptions(Strict):
    """What a scene is shown as, how training scenes are changed, and how proposals become detections."""

    points: Positive = Field(description="of a scene; where the set stores more, training draws them again each time")
    heading_bins: Positive = 12
    flip: tuple[Literal["x", "y"], ...] = Field(("x",), description="axes that are mirrored with probability 1/2")
    rotation: float = Field(30.0, ge=0, le=180, description="degrees to either side, about z")
    scale: tuple[float, float] = (0.85, 1.15)
    test_sampling: Literal["votes", "seeds"] = "seeds"
    test_proposals: tuple[float, ...] = Field((), description="so many times the proposals, scored beside the own")
    nms_iou: Fraction = 0.25
    confidence: Fraction = Field(0.05, description="objectness below it is no detection")
    min_points: int = Field(5, ge=0, description="boxes with fewer of the scene's points are no detections")
    test_batch: Positive = 8
    pictured: int = Field(3, ge=0, description="test scenes whose points and boxes are kept for pictures")

    @model_validator(mode="after")
    def _consistent(self) -> "DetectionOptions":
        if not 0 < self.scale[0] <= self.scale[1] <= 1000:
            raise ValueError(f"scale {list(self.scale)} is not a least and a greatest factor above 0, up to 1000")
        if not all(0 < factor <= 1000 for factor in self.test_proposals):
            raise ValueError(f"test_proposals {list(self.test_proposals)} are factors above 0, up to 1000")
        return self
