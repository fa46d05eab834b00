"""The smallest row of the task, which ``new paper`` copies: the sum of the first n odd numbers is n squared.

Replace the statement by the paper's; metrics of its own go into ``metrics`` and the task's table.
"""

import torch

from replications.layers.systems.measured import Measured


def build(numbers: int = 8) -> Measured:
    """Return the sums of up to `numbers` odd numbers beside the squares."""
    counts = torch.arange(1, numbers + 1)
    sums = (2 * counts - 1).cumsum(0)
    return Measured("sums", found=sums.numpy(), stated=(counts**2).numpy())
