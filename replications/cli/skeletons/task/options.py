"""Options of the task, typed. No torch: the planner checks them."""

from pydantic import Field

from replications.spec import Strict


class Options(Strict):
    """What tiers.yaml gives under ``task``. A default is pinned in tests/defaults.json: no record names it."""

    evaluation_batch_size: int = Field(gt=0, description="test images at a time")
