"""The reparameterised (pathwise) gradient: a draw is a differentiable function of mean and noise (Kingma, Welling)."""

from torch import Generator, Tensor

from replications.layers.gradients.distributions import Gaussian
from replications.layers.gradients.model import Estimator, Function


class Pathwise(Estimator):
    """``d f(mu + eps)``, eps standard normal (section 2.4). One-hot draws are no such function of their logits."""

    families = (Gaussian,)

    def surrogate(self, f: Function, q: Gaussian, generator: Generator | None = None) -> Tensor:
        return f(q.rsample(generator))


def build() -> Pathwise:
    return Pathwise()
