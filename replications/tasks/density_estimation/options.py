"""Options of the density estimation task, typed. No torch: the planner checks them."""

from typing import Annotated

from pydantic import Field, field_validator

from replications.spec import Strict

Count = Annotated[int, Field(gt=0, le=100_000)]


class DensityOptions(Strict):
    """How densities are validated and tested."""

    evaluation_batch: Count = Field(description="images at a time; of bounds, fewer: samples count as images")
    validation_samples: Count = Field(description="of a bound, while training")
    test_images: Count = Field(description="of the test split that are scored: the first, all if there are fewer")
    mass_shape: tuple[Count, Count] = Field(description="rows and columns of the images that are enumerated")
    timed_runs: Count = Field(description="of the densities and the samples that are timed; the fastest counts")
    shown: Count = Field(description="samples that are kept for pictures")

    @field_validator("mass_shape")
    @classmethod
    def _enumerable(cls, shape: tuple[int, int]) -> tuple[int, int]:
        if shape[0] * shape[1] > 16:
            raise ValueError(f"2^{shape[0] * shape[1]} images are too many to enumerate: at most 16 pixels")
        return shape
