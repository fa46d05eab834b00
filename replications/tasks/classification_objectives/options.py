"""Options of the task, typed. No torch: the planner checks them."""

from typing import Annotated

from pydantic import Field

from replications.spec import Strict

Positive = Annotated[int, Field(gt=0)]


class Deal(Strict):
    """How many samples a run trains on and validates with; all others are tested on."""

    train: Positive
    validation: Positive


class Attack(Strict):
    """Who changes each pixel by up to `eps`, of the range from 0 to 1, to hide the right class."""

    eps: float = Field(ge=0, le=1)
    steps: Positive = Field(10, description="of the attack in steps, each of eps / 4; the other has one, of eps")
    samples: Positive = Field(12, description="draws of the code that each gradient is a mean over")


class ObjectiveOptions(Strict):
    """What is trained on, and what is measured."""

    deal: Deal | None = Field(None, description="all samples are dealt anew by the seed; None: the set's own splits")
    rare_class: int | None = Field(None, ge=0, description="two classes: this one against the rest")
    samples: Positive = Field(12, description="draws of the code that probabilities are a mean over")
    attack: Attack | None = None
    bias_batches: tuple[Positive, ...] = Field((), description="batch sizes whose soft F1 is compared with that of all")
    evaluation_batch: Positive = 1024
    pictures: int = Field(6, ge=0, description="test images whose code is shown")
