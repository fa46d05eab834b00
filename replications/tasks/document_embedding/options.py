"""Options of the task, typed. No torch: the planner checks them."""

from typing import Annotated, Literal

from pydantic import Field

from replications.spec import Strict

Count = Annotated[int, Field(gt=0, le=1_000_000)]


class EmbeddingOptions(Strict):
    """How pairs are drawn from the texts, and how the vectors are scored."""

    window: Count = Field(5, description="greatest distance of a context word; each is drawn from 1 to this")
    subsample: float | None = Field(
        1e-3, gt=0, le=1, description="share of the text above which a word is thinned out; None: none is"
    )
    neighbours: Count = Field(3, description="k of the k-NN classifier")
    restarts: Count = Field(10, description="of k-means; the best by its own objective counts")
    scored: Literal["test", "validation"] = Field("test", description="validation: to choose hyper-parameters")
    shown: int = Field(400, ge=0, le=100_000, description="scored documents kept for the picture")
