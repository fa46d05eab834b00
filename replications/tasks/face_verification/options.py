"""Options of the face verification task, typed. No torch: the planner checks them."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from replications.spec import Strict

FOLDS = tuple(range(1, 11))
Fraction = Annotated[float, Field(ge=0, lt=1)]


class FaceOptions(Strict):
    """What is trained on, what is held out of it, and how features and scores are made.

    Identities are held out of the training identities in this order: for validation (model selection; and the
    threshold, in the category without outside data), then for the verifier, both from those with two images
    or more. They stay the same whatever `train_identities` and `verifier_fraction` are.
    """

    protocol: Literal["outside_data", "no_outside_data"] = "outside_data"
    folds: tuple[int, ...] = Field(FOLDS, description="no_outside_data: the folds to train for and to test")
    resolution: int = Field(gt=0, description="image side in pixels, averaged down from the prepared size")
    train_identities: int | float | None = Field(
        None, description="an int is a number, a float a fraction; smaller subsets are contained in larger ones"
    )
    min_images_per_identity: int = Field(1, ge=1, description="people with fewer are not trained on")
    validation_fraction: Fraction = Field(0.0, description="of the identities with two images or more")
    validation_pairs: int = Field(2000, ge=2, description="at most; half of them matched")
    verifier_fraction: Fraction = Field(0.0, description="of the same, for verifiers that learn")
    fit: Literal["held_out", "folds"] = Field(
        "held_out",
        description="verifiers learn from held-out training identities or from the other nine folds",
    )
    flip: Literal["sum", "concat", "none"] = Field(
        "sum",
        description="feature = embedding of image and mirror image, added (insightface) or side by side",
    )
    embed_batch_size: int = Field(256, gt=0)
    angle_images: int = Field(10_000, gt=0, description="training images, about, that the angles are taken from")

    @model_validator(mode="after")
    def _consistent(self) -> "FaceOptions":
        if not self.folds or sorted(set(self.folds)) != sorted(self.folds) or not set(self.folds) <= set(FOLDS):
            raise ValueError(f"folds must be different numbers of 1..10, not {list(self.folds)}")
        amount = self.train_identities
        if amount is not None and not (amount >= 2 if isinstance(amount, int) else 0 < amount <= 1):
            raise ValueError(f"train_identities must be a number from 2 on or a fraction up to 1.0, not {amount}")
        if self.protocol == "no_outside_data":
            if self.fit == "folds":
                raise ValueError("fit 'folds' would fit on the identities that the network was trained on")
            if not self.validation_fraction:
                raise ValueError("validation_fraction must be above 0: the threshold is fitted on those identities")
        elif set(self.folds) != set(FOLDS):
            raise ValueError("with protocol 'outside_data' all ten folds are scored: leave 'folds' out")
        return self
