"""Options of the gradient estimation task, typed. No torch: the planner checks them."""

from typing import Annotated

from pydantic import Field, model_validator

from replications.spec import Strict

MOST_ENUMERATED = 65536
Positive = Annotated[int, Field(gt=0, le=100_000_000)]
Several = Annotated[int, Field(ge=2, le=100_000_000)]
Temperature = Annotated[float, Field(gt=0, le=1000)]


class NetworkOptions(Strict):
    """The categorical autoencoder, and how its bound and its gradients are measured."""

    shrink: Positive = Field(1, description="pixels of a side whose mean is one pixel, before it is binarised at half")
    variables: Positive = Field(description="one-hot latents of an image")
    categories: Several
    hidden: Positive = Field(description="units of the hidden layer of encoder and decoder")
    start_at_mean: bool = Field(False, description="the decoder's output starts at the pixels' means, not at a half")
    bound_draws: Positive = Field(10, description="hard draws of each image for the bound")
    checkpoint_steps: Positive = Field(description="of the training by leave-one-out that gradients are measured after")
    checkpoint_lr: float = Field(gt=0, le=1e3, description="of the same, whatever rate the method has")
    variance_draws: Several = Field(100, description="gradients whose variance is that of the encoder")


class GradientOptions(Strict):
    """Problems whose gradient is known, drawn anew for each seed, and the network that an estimator trains."""

    problems: Positive = Field(5, description="of each kind")
    variables: Positive = Field(1, description="one-hot variables of a problem")
    categories: Several = 8
    outputs: Positive = Field(8, description="length of t in f(y) = |tanh(y W) - t|^2")
    dimensions: tuple[Positive, ...] = Field((1, 10, 100), description="of the Gaussians")
    temperatures: tuple[Temperature, ...] = Field((0.1, 0.3, 1.0, 3.0), description="of relaxations, rising")
    samples: Several = Field(description="estimates of each gradient")
    network: NetworkOptions | None = Field(None, description="None: nothing is trained")

    @model_validator(mode="after")
    def _consistent(self) -> "GradientOptions":
        if self.categories**self.variables > MOST_ENUMERATED:
            raise ValueError(
                f"{self.variables} variables of {self.categories} categories have too many values to enumerate "
                f"(at most {MOST_ENUMERATED})"
            )
        if list(self.temperatures) != sorted(set(self.temperatures)):
            raise ValueError(f"temperatures must rise, not {list(self.temperatures)}")
        return self
