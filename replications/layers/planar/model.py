"""What a method of the task toy_density must offer.

A paper's ``build`` gets ``density``, the `PlanarDensity` that the points come from. A learned method may use its
extent, an exact one everything. It returns a `PointModel`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from replications.layers.diffusion.states import last
from replications.layers.planar.denoiser import Denoiser
from replications.layers.planar.density import PlanarDensity
from replications.training.stage import Batch


@dataclass(frozen=True)
class Sampler:
    """How points are drawn: `states` of start noise ``[n, 2]`` yields the points before and after each step.

    The start is Gaussian noise of standard deviation `start`.
    """

    states: Callable[[Tensor], Iterator[Tensor]]
    start: float = 1.0

    def draw(self, noise: Tensor) -> Tensor:
        """Return the last state from standard Gaussian `noise` ``[n, 2]``."""
        return last(self.states(self.start * noise))


class PointModel(nn.Module):
    """A denoiser, how it is trained, and how points are drawn with it."""

    def __init__(self, density: PlanarDensity, denoiser: Denoiser):
        super().__init__()
        self.density, self.denoiser = density, denoiser

    def levels(self, count: int) -> tuple[Tensor, Tensor | float]:
        """Draw `count` noise levels sigma to train at, float32 ``[count]``, and the weights of their errors."""
        raise NotImplementedError

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return ``loss``; `batch` has ``x`` float32 ``[batch, 2]``."""
        sigma, weight = self.levels(len(batch["x"]))
        return {"loss": (weight * self.denoiser.errors(batch["x"], sigma)).mean()}

    def samplers(self) -> Mapping[str, Sampler]:
        """Return the samplers by name; the first is the method's own, and the metrics of the others bear their name."""
        raise NotImplementedError

    def log_probs(self, x: Tensor) -> dict[str, Tensor]:
        """Return what the model knows of log p(x) in nats, ``[batch]``: ``elbo``, ``ode``, both or nothing."""
        return {}

    def measure(self, x: Tensor) -> dict[str, float]:
        """Measure the model on the test points: metrics of the task's table."""
        return {}

    def path(self, noise: Tensor) -> Iterator[Tensor] | None:
        """Yield the states of points on the probability-flow ODE from `noise` to samples; None where there is none."""
        return None
