"""Of a network as it stands: the path of the gradient over distance, operations in sequence, the state of decoding.

All in float64 on the CPU, where no norm underflows and torch runs a recurrent layer position by position, so that its
graph can be read.
"""

import copy

import numpy as np
import torch
from torch import Tensor

from replications.layers.text.blocks import Mixer
from replications.layers.text.model import SequenceModel


def gradient_path(mixer: Mixer, width: int, distance: int, sequences: int, generator: torch.Generator) -> np.ndarray:
    """Return the geometric mean over inputs of ``|dy_T/dx_t|_F`` at the distances ``T - t`` from 0, ``[distance + 1]``.

    Exact, by one backward pass: each of `width` copies of a sequence asks for another channel of its last output.
    Inputs are standard normal, as an embedding is at the start.
    """
    mixer = copy.deepcopy(mixer).double().cpu()
    logs = []
    for _ in range(sequences):
        x = torch.randn(distance + 1, width, generator=generator, dtype=torch.float64)
        copies = x.expand(width, -1, -1).clone().requires_grad_()
        mixer(copies)[:, -1].diagonal().sum().backward()
        logs.append(copies.grad.square().sum(dim=(0, 2)).sqrt().flip(0).log())
    return torch.stack(logs).mean(0).exp().numpy()


def path_factor(path: np.ndarray, near: int, far: int) -> float:
    """Return the factor a position: exp of the least-squares slope of the path's logarithm over near to far."""
    distance = np.arange(near, far + 1)
    return float(np.exp(np.polyfit(distance, np.log(path[near : far + 1]), 1)[0]))


def sequential_operations(model: SequenceModel, tokens: Tensor) -> float:
    """Return how many more operations wait for one another for each further position of ``[1, 2n]``, against its half.

    Operations are those of the backward graph, which mirror the forward ones; what a kernel does inside is not seen.
    """
    model = copy.deepcopy(model).double().cpu()
    half = tokens.shape[1] // 2
    depth = [_depth(model.logits(part).sum()) for part in (tokens[:, :half], tokens)]
    return (depth[1] - depth[0]) / (tokens.shape[1] - half)


def _depth(output: Tensor) -> int:
    """Return the nodes of the longest way through the graph behind a tensor."""
    depth: dict = {}
    waiting = [output.grad_fn]
    while waiting:
        node = waiting[-1]
        before = [found for found, _ in node.next_functions if found is not None]
        missing = [found for found in before if found not in depth]
        if missing:
            waiting += missing
        else:
            depth[node] = 1 + max((depth[found] for found in before), default=0)
            waiting.pop()
    return depth[output.grad_fn]


def state_bytes(model: SequenceModel, length: int) -> float:
    """Return the bytes that decoding one sequence keeps more for each position from `length` to twice of it."""
    kept = [sum(part.nbytes for state in model.start(1, n) for part in state.values()) for n in (length, 2 * length)]
    return (kept[1] - kept[0]) / length
