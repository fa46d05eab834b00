"""REINFORCE: the score-function estimator (Williams, 1992), without and with a baseline."""

from torch import Generator, Tensor

from replications.errors import UserError
from replications.layers.gradients.distributions import Gaussian, OneHot
from replications.layers.gradients.leave_one_out import LeaveOneOut
from replications.layers.gradients.model import Estimator, Function, along


class Reinforce(Estimator):
    """``(f(y) - b) d log q(y)``: Williams' (r - b) e, with r = f and e the characteristic eligibility.

    `baseline` makes b the mean of f over the other rows of the batch: a row's own draw is no part of its b.
    """

    families = (OneHot, Gaussian)

    def __init__(self, baseline: bool):
        super().__init__()
        self.baseline = baseline

    def surrogate(self, f: Function, q: OneHot | Gaussian, generator: Generator | None = None) -> Tensor:
        y = q.sample(generator)
        value = f(y)
        return value + along(value - self._others(value) if self.baseline else value, q.log_prob(y))

    @staticmethod
    def _others(value: Tensor) -> Tensor:
        if len(value) < 2:
            raise UserError("the mean baseline is that of a batch's other rows: it needs a batch of two or more")
        return (value.sum() - value) / (len(value) - 1)


def build(*, baseline: bool = False) -> Reinforce:
    return Reinforce(baseline)


def leave_one_out(*, draws: int = 2) -> LeaveOneOut:
    return LeaveOneOut(draws)
