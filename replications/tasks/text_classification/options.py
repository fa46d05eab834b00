"""Options of the task, typed. No torch: the planner checks them."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from replications.spec import RecipeChanges, Strict

Count = Annotated[int, Field(gt=0, le=10_000_000)]
Share = Annotated[float, Field(ge=0, le=1)]


class TextOptions(Strict):
    """What is seen of a text, how words are masked, and how many labels there are. The recipe is the pretraining's."""

    length: Count = Field(description="words of a text that are seen, and of a piece in pretraining")
    seen: Literal["first", "last"] = Field("first", description="which words of a longer text are seen")
    labels: tuple[Count, ...] = Field(description="numbers of labelled texts, rising, equally many of each class")
    pretrain: bool = Field(True, description="masked words first; false: classifiers start from random weights")
    fraction: float = Field(0.15, gt=0, le=1, description="of a text's words that are asked for")
    shares: tuple[Share, Share, Share] = Field(
        (0.8, 0.1, 0.1), description="of words asked for: shown as the mask, as a random word, as they are"
    )
    finetune: RecipeChanges = Field(description="the classifiers' recipe, merged into the run's")
    scored: Literal["test", "validation"] = Field(
        "test", description="the texts of all metrics; validation is for trials that choose an experiment"
    )
    evaluation_batch: Count = 512

    @model_validator(mode="after")
    def _consistent(self) -> "TextOptions":
        if not self.labels or list(self.labels) != sorted(set(self.labels)):
            raise ValueError(f"labels must rise, not {list(self.labels)}")
        if abs(sum(self.shares) - 1) > 1e-9:
            raise ValueError(f"shares must sum to 1, not {list(self.shares)}")
        return self
