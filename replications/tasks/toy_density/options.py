"""Options of the task, typed. No torch: the planner checks them."""

from typing import Annotated, Literal

from pydantic import Field

from replications.spec import Strict

Count = Annotated[int, Field(gt=0, le=10_000_000)]


class ToyOptions(Strict):
    """Which density, and how many points are drawn for what."""

    density: Literal["eight", "unequal", "ring"] = Field(description="see layers/planar/density.py")
    train_points: Count = Field(description="drawn once by the run's seed")
    test_points: Count = Field(description="whose log-densities are compared; the same for all seeds")
    samples: Count = Field(description="of each sampler, judged against as many real points")
    sample_batch: Count = Field(description="samples drawn at a time")
    shown: Count = Field(description="points whose paths are kept for pictures")
