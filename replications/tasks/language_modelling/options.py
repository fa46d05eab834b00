"""Options of the language modelling task, typed. No torch: the planner checks them."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from replications.errors import UserError, nearest
from replications.spec import Strict

StageName = Literal["text", "masked", "recall", "brackets", "listops", "reviews"]
Positive = Annotated[int, Field(gt=0)]


class StageOptions(Strict):
    """One stage. What is None is the task's `length` or the recipe's own. `length` is in bytes or tokens."""

    length: Positive | None = None
    steps: Positive | None = None
    batch_size: Positive | None = None
    lr: float | None = Field(None, gt=0)


class SweepOptions(Strict):
    """The length sweep: a training step of one sequence at each length, and one decoded token at each position."""

    lengths: tuple[Positive, ...]
    naive_up_to: Positive = Field(4096, description="longest length for the materialised softmax, which needs n^2")
    stamps: Positive = Field(3, description="timed steps a length; the median counts")
    isolated: bool = Field(True, description="a fresh process for each length")
    memory_limit_gib: float = Field(2.0, gt=0, description="of a fresh process on the CPU; beyond it: out of memory")

    @model_validator(mode="after")
    def _enough(self) -> "SweepOptions":
        if len(set(self.lengths)) < 3 or list(self.lengths) != sorted(set(self.lengths)):
            raise ValueError(f"sweep lengths must be three or more, rising, not {list(self.lengths)}")
        return self


class LanguageOptions(Strict):
    """Which stages a run has and how they are scored. The stage ``text`` is always there: it has the primary metric.

    Stages, with the data role of the same name: ``text`` next byte; ``masked`` masked bytes, bidirectional, on the text
    of ``text``; ``recall`` the value of a key seen before; ``brackets`` the closing bracket that is due; ``listops``
    and ``reviews`` classes of a whole sequence, bidirectional.
    """

    length: Positive = Field(description="training window in bytes, and the most positions the model is told of")
    stages: dict[StageName, StageOptions]
    transfer: tuple[float, ...] = Field((), description="test windows of so many times the training length, too")
    test_bytes: Positive | None = Field(None, description="at most so many bytes of the test text are scored")
    evaluation_batch_bytes: Positive = Field(16384, description="bytes that are scored at once")
    masked_fraction: float = Field(0.15, gt=0, lt=1)
    sweep: SweepOptions | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "LanguageOptions":
        if "text" not in self.stages:
            raise ValueError("stages must have 'text': it gives the primary metric")
        for factor in self.transfer:
            if factor == 1 or factor <= 0 or not (self.length * factor).is_integer():
                raise ValueError(f"transfer {factor}: {factor} x {self.length} is not another whole length")
        return self


def parse_options(options: Mapping[str, Any]) -> LanguageOptions:
    """Return the typed options; raises UserError that names the first wrong one and, for a typo, the nearest name."""
    try:
        return LanguageOptions.model_validate(dict(options))
    except ValidationError as error:
        errors = error.errors()
        first = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
        where = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            near = nearest(str(first["loc"][-1]), LanguageOptions.model_fields) if len(first["loc"]) == 1 else ""
            raise UserError(f"language_modelling: unknown task option '{where}'{near}") from None
        what = f"task option '{where}': " if where else "task options: "
        raise UserError(f"language_modelling: {what}{first['msg'].removeprefix('Value error, ')}") from None
