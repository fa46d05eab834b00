"""Options of the image generation task, typed. No torch: the planner checks them."""

from typing import Annotated

from pydantic import Field

from replications.spec import Strict

Count = Annotated[int, Field(gt=0, le=1_000_000)]


class GenerationOptions(Strict):
    """How many images are judged, and the average of the weights."""

    samples: Count = Field(description="images that are drawn and judged, and as many real ones for the floor")
    reference: Count = Field(description="test images that they are judged against: the first")
    validation_samples: Count = Field(description="images that are drawn when training ends, for model selection")
    sample_batch: Count = Field(description="images drawn at a time")
    ema: float = Field(ge=0, lt=1, description="decay of the averaged weights, a step")
    timed_runs: Count = Field(description="of drawing that are timed; the fastest counts")
    shown: Count = Field(description="images of noise that all methods share, for pictures")
