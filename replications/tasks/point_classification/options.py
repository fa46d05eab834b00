"""Options of the point classification task, typed. No torch: the planner checks them."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from replications.spec import Strict

Further = Literal["segmentation", "pretraining"]
StageName = Literal["classification", "segmentation", "pretraining"]
Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(gt=0, lt=1)]


class StageOptions(Strict):
    """The length of one stage; what is None is the recipe's own."""

    points: Positive | None = Field(None, description="of a cloud, where not the task's own number")
    steps: Positive | None = None
    epochs: float | None = Field(None, gt=0, le=1e6)
    batch_size: Positive | None = None
    lr: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _one_length(self) -> "StageOptions":
        if self.steps and self.epochs:
            raise ValueError("give either 'epochs' or 'steps'")
        return self


class AugmentOptions(Strict):
    """What is done to a training cloud, the same for all methods. Lengths are in radii of the cloud."""

    scale: tuple[float, float] = Field((1.0, 1.0), description="factor, uniform between the two")
    shift: float = Field(0.0, ge=0, le=1000, description="each axis is moved by up to this")
    jitter: float = Field(0.0, ge=0, le=1000, description="standard deviation of each coordinate")
    dropout: float = Field(
        0.0, ge=0, lt=1, description="up to this share of the points (itself random) becomes copies of the first point"
    )

    @model_validator(mode="after")
    def _rising(self) -> "AugmentOptions":
        if not 0 < self.scale[0] <= self.scale[1] <= 1000:
            raise ValueError(f"scale must be two rising factors above 0, up to 1000, not {list(self.scale)}")
        return self


class PointOptions(Strict):
    """What is trained and how it is tested.

    Every method is trained to classify. `also` names the further stages that a method has; one without an entry in the
    tier's `stages` is left out there. ``segmentation`` is trained by itself on the data role ``parts``;
    ``pretraining`` is an autoencoder whose encoder classification starts from.
    """

    points: Positive = Field(description="of a cloud: the first so many")
    normals: bool = Field(False, description="give the models the normals as features")
    stages: dict[StageName, StageOptions]
    also: tuple[Further, ...] = ()
    augment: AugmentOptions = AugmentOptions()
    evaluation_batch: Positive = 64
    kept: tuple[Fraction, ...] = Field((), description="shares of the points that are left, in further tests")
    also_on: tuple[str, ...] = Field((), description="data roles whose test clouds are a further test")
    votes: Positive = Field(1, description="2 or more: a further test with so many scaled copies of each cloud")
    best_on_test: bool = Field(False, description="also score the test split at each validation, as public code does")
    measures: bool = Field(True, description="let models measure their operators after training")

    @model_validator(mode="after")
    def _consistent(self) -> "PointOptions":
        if "classification" not in self.stages:
            raise ValueError("stages must have 'classification': it gives the primary metric")
        for share in self.kept:
            if round(share * self.points) < 1:
                raise ValueError(f"kept {share} leaves none of {self.points} points")
        return self

    @property
    def run(self) -> tuple[str, ...]:
        """The stages that are run, in order."""
        order = ("pretraining", "classification", "segmentation")
        return tuple(name for name in order if name in self.stages and (name == order[1] or name in self.also))
