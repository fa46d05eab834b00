"""Gumbel-Softmax (Jang, Gu, Poole, ICLR 2017), relaxed and straight-through."""

from torch import Generator, Tensor

from replications.errors import UserError
from replications.layers.gradients.distributions import OneHot
from replications.layers.gradients.model import Estimator, Function


class GumbelSoftmax(Estimator):
    """``y = softmax((log pi + g) / tau)`` (equation 2); f and its derivative are taken at y.

    `hard` takes f at the one-hot of the largest entry and passes the derivative on to y.
    """

    def __init__(self, temperature: float, hard: bool):
        super().__init__()
        if temperature <= 0:
            raise UserError(f"the temperature of Gumbel-Softmax must be above 0, not {temperature:g}")
        self.temperature, self.hard = temperature, hard

    def surrogate(self, f: Function, q: OneHot, generator: Generator | None = None) -> Tensor:
        y = ((q.log_probabilities + q.gumbel(generator)) / self.temperature).softmax(-1)
        return f(q.harden(y.detach()) + (y - y.detach()) if self.hard else y)


def build(*, temperature: float = 1.0, hard: bool = False) -> GumbelSoftmax:
    return GumbelSoftmax(temperature, hard)
