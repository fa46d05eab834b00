"""REINFORCE with several draws, each of which has the mean of the others as its baseline (Mnih and Rezende, 2016)."""

import torch
from torch import Generator, Tensor

from replications.errors import UserError
from replications.layers.gradients.distributions import Gaussian, OneHot
from replications.layers.gradients.model import Estimator, Function, along


class LeaveOneOut(Estimator):
    """``mean_i (f(y_i) - mean_{j != i} f(y_j)) d log q(y_i)``: no bias, as y_i is no part of its own baseline."""

    families = (OneHot, Gaussian)

    def __init__(self, draws: int):
        super().__init__()
        if draws < 2:
            raise UserError(f"leave-one-out needs two draws or more, not {draws}: there is no other to compare with")
        self.evaluations = draws

    def surrogate(self, f: Function, q: OneHot | Gaussian, generator: Generator | None = None) -> Tensor:
        draws = [q.sample(generator) for _ in range(self.evaluations)]
        values = torch.stack([f(y) for y in draws])
        log_q = torch.stack([q.log_prob(y) for y in draws])
        others = (values.sum(0) - values) / (len(draws) - 1)
        return (values + along(values - others, log_q)).mean(0)
