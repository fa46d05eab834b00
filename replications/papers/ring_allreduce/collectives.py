"""All-reduce by messages between two ranks at a time, each byte counted.

``ring`` is the paper's algorithm: a reduce-scatter on a ring, then an all-gather. ``gather_broadcast`` sends all arrays
to a root, which sends the sum back. Both replace a vector by the sum over the ranks.
"""

import torch
import torch.distributed as dist
from torch import Tensor


class Link:
    """This rank's messages. `sent` and `received` count payload bytes, `messages` those that were sent."""

    def __init__(self):
        self.rank, self.ranks = dist.get_rank(), dist.get_world_size()
        self.sent = self.received = self.messages = 0

    def send(self, values: Tensor, to: int) -> dist.Work:
        self.sent += values.nbytes
        self.messages += 1
        return dist.isend(values, to)

    def receive(self, into: Tensor, source: int) -> dist.Work:
        self.received += into.nbytes
        return dist.irecv(into, source)


def ring(values: Tensor, link: Link) -> None:
    """Sum a vector over the ranks in place, in 2 (n - 1) steps with one of n parts a step.

    In step s of the reduce-scatter a rank sends part ``rank - s`` to the next rank and adds what it gets from the one
    before to part ``rank - s - 1``; then part ``rank + 1`` is complete, and complete parts go round.
    """
    rank, n = link.rank, link.ranks
    parts = values.tensor_split(n)
    following, before = (rank + 1) % n, (rank - 1) % n
    arrived = torch.empty_like(parts[0])  # the longest
    for step in range(n - 1):
        outgoing, own = parts[(rank - step) % n], parts[(rank - step - 1) % n]
        _exchange(link, outgoing, following, arrived[: len(own)], before)
        own += arrived[: len(own)]
    for step in range(n - 1):
        _exchange(link, parts[(rank + 1 - step) % n], following, parts[(rank - step) % n], before)


def gather_broadcast(values: Tensor, link: Link, root: int = 0) -> None:
    """Sum a vector over the ranks in place: the root receives, adds in the order of ranks, and sends the sum to all."""
    others = [rank for rank in range(link.ranks) if rank != root]
    if link.rank == root:
        arrived = torch.empty_like(values)
        for rank in others:
            link.receive(arrived, rank).wait()
            values += arrived
        for work in [link.send(values, rank) for rank in others]:
            work.wait()
    else:
        link.send(values, root).wait()
        link.receive(values, root).wait()


def _exchange(link: Link, outgoing: Tensor, to: int, into: Tensor, source: int) -> None:
    """Send and receive at the same time; a part without values is no message."""
    works = [link.send(outgoing, to)] if len(outgoing) else []
    works += [link.receive(into, source)] if len(into) else []
    for work in works:
        work.wait()
