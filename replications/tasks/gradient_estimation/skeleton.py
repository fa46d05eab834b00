"""The smallest method of the task, which ``new paper`` copies: f at a hard draw, its derivative passed on as it is."""

from torch import Generator, Tensor

from replications.layers.gradients.distributions import OneHot
from replications.layers.gradients.model import Estimator, Function


class Method(Estimator):
    """Return f at a draw; the derivative of what is returned, in the parameter of q, is the estimate."""

    def surrogate(self, f: Function, q: OneHot, generator: Generator | None = None) -> Tensor:
        return f(q.sample(generator) + (q.parameter - q.parameter.detach()))


def build() -> Method:
    """Return the method."""
    return Method()
