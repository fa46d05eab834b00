"""Options of the image classification task, typed. No torch: the planner checks them."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from replications.spec import RecipeChanges, Strict

Share = Annotated[float, Field(ge=0, le=1)]
Fraction = Annotated[float, Field(gt=0, le=1)]


class Augmentation(Strict):
    """What happens to a training image, in this order. Zero and null leave a step out."""

    crop_scale: tuple[Fraction, Fraction] | None = Field(
        None, description="random resized crop: its area as a share of the image's"
    )
    shift: int = Field(0, ge=0, description="pad by so many pixels and cut at random to the old size")
    flip: bool = True
    colour: Share = Field(0.0, description="brightness, contrast and saturation change by up to this share")
    erasing: Share = Field(0.0, description="probability that a random rectangle is painted over")
    mixup: float = Field(0.0, ge=0, le=1000, description="alpha of mixup's Beta distribution")
    cutmix: float = Field(0.0, ge=0, le=1000, description="alpha of cutmix's Beta distribution")
    smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="label smoothing")

    @property
    def softens(self) -> bool:
        """Whether targets are distributions over the classes instead of classes."""
        return bool(self.mixup or self.cutmix or self.smoothing)


class StageOptions(Strict):
    """How a stage departs from the run: its recipe is merged into the run's, its augmentation replaces the run's."""

    recipe: RecipeChanges = Field({})
    augmentation: Augmentation | None = Field(None, description="in place of the run's, all of it; null: the run's")


class Probe(Strict):
    """The linear probe: batch normalisation without weights, then a linear layer, on frozen features."""

    recipe: RecipeChanges = Field({})
    views: int = Field(1, ge=1, description="views of a training image whose features are kept; the first is unchanged")
    augmentation: Augmentation = Augmentation()


class ImageOptions(Strict):
    """What is trained on, how often, and how it is probed."""

    image_size: int = Field(gt=0, description="side of what a network sees, pixels")
    classes: int | None = Field(None, ge=2, description="only the first so many classes; null: all")
    fractions: tuple[Fraction, ...] = Field((0.01, 0.1, 1.0), description="of the labels; the last one must be 1.0")
    fraction_power: float = Field(
        0.5, ge=0, le=1, description="steps at fraction f are those of all labels x f^power; 1: equal epochs"
    )
    lengthen: float = Field(
        1.0, gt=0, le=1000, description="a method's classifiers are trained for so many times the steps"
    )
    augmentation: Augmentation = Augmentation()
    pretrain: StageOptions = StageOptions()
    finetune: StageOptions = Field(StageOptions(), description="of classifiers that start from a pretraining")
    probe: Probe = Probe()
    neighbours: int = Field(20, ge=1, description="of the k-NN probe")
    temperature: float = Field(
        0.07, ge=1e-3, le=1000, description="of the k-NN probe's votes, exp(cosine / temperature)"
    )
    scored: Literal["test", "validation"] = Field(
        "test", description="the images of all metrics; validation is for trials that choose an experiment"
    )
    evaluation_batch_size: int = Field(256, gt=0)
    pictures: int = Field(6, ge=0, description="test images whose reconstructions and attention a run keeps")
    speed_turns: int = Field(0, ge=0, description="of the speed-up's measurement; 0: no time is taken")

    @model_validator(mode="after")
    def _fractions_rise_to_all(self) -> "ImageOptions":
        if list(self.fractions) != sorted(set(self.fractions)) or self.fractions[-1:] != (1.0,):
            raise ValueError(f"fractions must rise and end with 1.0, not {list(self.fractions)}")
        return self
