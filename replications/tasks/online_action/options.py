"""Options of the task, typed. No torch: the planner checks them."""

from typing import Annotated

from pydantic import Field

from replications.spec import Strict

Count = Annotated[int, Field(gt=0, le=1_000_000)]


class ActionOptions(Strict):
    """What a detector sees and tells."""

    window: Count = Field(description="frames that a training sample has, and that a method without a state reads")
    horizon: Count = Field(description="frames ahead whose action is told")
    streams_at_once: Count = Field(32, description="streams that are scored side by side; those of like length")
    windows_at_once: Count = Field(2048, description="windows that are scored at a time")
