"""Options of the task, typed. No torch: the planner checks them."""

from typing import Annotated

from pydantic import Field, model_validator

from replications.spec import Strict

Positive = Annotated[int, Field(gt=0, le=1_000_000)]
Gap = Annotated[int, Field(ge=0, le=1_000_000)]


class RecallOptions(Strict):
    """Associative recall: `pairs` of key and value, a gap of filler tokens, one of the keys. Every step has one of the
    combinations of number and gap, in turn.
    """

    pairs: tuple[Positive, ...] = Field(description="numbers of pairs, rising")
    gaps: tuple[Gap, ...] = Field(description="filler tokens between the pairs and the question, rising")
    keys: Positive = 24
    values: int = Field(8, ge=2, le=1_000_000)
    test: Positive = Field(2000, description="test sequences of each number of pairs and gap")
    validation: Positive = Field(500, description="validation sequences of each")

    @model_validator(mode="after")
    def _consistent(self) -> "RecallOptions":
        for name, numbers in (("pairs", self.pairs), ("gaps", self.gaps)):
            if not numbers or list(numbers) != sorted(set(numbers)):
                raise ValueError(f"{name} must rise, not {list(numbers)}")
        if self.pairs[-1] > self.keys:
            raise ValueError(f"{self.pairs[-1]} pairs need as many different keys, not {self.keys}")
        return self

    @property
    def conditions(self) -> list[tuple[int, int]]:
        """Pairs and gap of each combination."""
        return [(pairs, gap) for gap in self.gaps for pairs in self.pairs]

    @property
    def length(self) -> int:
        """Tokens of the longest sequence."""
        return 2 * self.pairs[-1] + self.gaps[-1] + 1

    @property
    def vocabulary(self) -> int:
        return self.keys + self.values + 1


class MemoryOptions(Strict):
    """What is measured of a network. Without `recall` nothing is trained."""

    recall: RecallOptions | None = None
    path: tuple[Positive, Positive] = Field((4, 64), description="smallest and largest distance of the fitted factor")
    sequences: Positive = Field(4, description="random inputs over which the path's logarithm is averaged")
    counted: Positive = Field(16, description="length at which operations and state are counted, and at twice of it")
    speed_length: Positive | None = Field(None, description="length of a timed training step; None: none is timed")

    @model_validator(mode="after")
    def _rising(self) -> "MemoryOptions":
        if self.path[0] >= self.path[1]:
            raise ValueError(f"path: distances must rise, not {list(self.path)}")
        return self
