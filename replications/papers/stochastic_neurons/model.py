"""Straight-through (Bengio, Léonard, Courville, 2013): forward the draw, backward as if it were its probabilities."""

from torch import Generator, Tensor

from replications.layers.gradients.distributions import OneHot
from replications.layers.gradients.model import Estimator, Function


class StraightThrough(Estimator):
    """f at a hard draw; its derivative there goes on through the softmax."""

    def surrogate(self, f: Function, q: OneHot, generator: Generator | None = None) -> Tensor:
        probabilities = q.probabilities
        return f(q.sample(generator) + (probabilities - probabilities.detach()))


def build() -> StraightThrough:
    return StraightThrough()
