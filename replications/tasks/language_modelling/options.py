"""Options of the language modelling task, typed. No torch: the planner checks them."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from replications.spec import LARGEST_COUNT, Strict

StageName = Literal["text", "timed", "masked", "recall", "brackets", "listops", "reviews"]
Positive = Annotated[int, Field(gt=0)]


class StageOptions(Strict):
    """One stage. What is None is the task's `length` or the recipe's own. `length` is in bytes or tokens."""

    length: Positive | None = None
    steps: Positive | None = None
    batch_size: Positive | None = None
    lr: float | None = Field(None, gt=0)
    warmup: float | None = Field(None, ge=0, lt=1)
    seconds: float | None = Field(
        None, gt=0, le=1e7, description="of training, in place of steps; the stage `timed` alone"
    )


class SweepOptions(Strict):
    """The length sweep: a training step of one sequence at each length, and one decoded token at each position."""

    lengths: tuple[Positive, ...]
    naive_up_to: Positive = Field(4096, description="longest length for the materialised softmax, which needs n^2")
    stamps: Positive = Field(3, description="timed steps a length, at least; the fastest counts")
    isolated: bool = Field(True, description="a fresh process for each length")
    memory_limit_gib: float = Field(
        2.0, gt=0, le=1e6, description="of a fresh process on the CPU; beyond it: out of memory"
    )

    @model_validator(mode="after")
    def _enough(self) -> "SweepOptions":
        if len(set(self.lengths)) < 3 or list(self.lengths) != sorted(set(self.lengths)):
            raise ValueError(f"sweep lengths must be three or more, rising, not {list(self.lengths)}")
        return self


class LanguageOptions(Strict):
    """Which stages a run has and how they are scored. The stage ``text`` is always there: it has the primary metric.

    Stages, with the data role of the same name: ``text`` next byte; ``timed`` the same, for so many seconds at
    its own step time; ``masked`` masked bytes, bidirectional, both on the text of ``text``; ``recall`` the value of
    a key seen before; ``brackets`` the closing bracket that is due; ``listops`` and ``reviews`` classes of a whole
    sequence, bidirectional.
    """

    length: Positive = Field(description="training window in bytes, and the most positions the model knows of")
    stages: dict[StageName, StageOptions]
    transfer: tuple[float, ...] = Field((), description="test windows of so many times the training length, too")
    test_bytes: Positive | None = Field(None, description="at most so many bytes of the test text are scored")
    evaluation_batch_bytes: Positive = Field(16384, description="bytes that are scored at once")
    masked_fraction: float = Field(0.15, gt=0, lt=1)
    validations: Positive = Field(1, description="how often the text stage is scored on its validation part")
    validation_bytes: Positive | None = Field(None, description="at most so many bytes of that part are scored")
    sweep: SweepOptions | None = None
    sweep_seeds: Positive | None = Field(None, description="runs of the seeds below it sweep; None: all")

    @model_validator(mode="after")
    def _consistent(self) -> "LanguageOptions":
        if "text" not in self.stages:
            raise ValueError("stages must have 'text': it gives the primary metric")
        for name, stage in self.stages.items():
            if (stage.seconds is not None) != (name == "timed"):
                raise ValueError(f"stage '{name}': 'seconds' is for the stage 'timed', which needs it")
        for factor in self.transfer:
            longer = self.length * factor
            if factor == 1 or factor <= 0 or not longer.is_integer() or longer > LARGEST_COUNT:
                raise ValueError(f"transfer {factor}: {factor} x {self.length} is not another whole length")
        return self
