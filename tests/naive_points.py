"""Networks on points in float64, point by point and loop by loop: what the tests hold the models against."""

import numpy as np
import torch
from torch import Tensor, nn


def settled(module: nn.Module) -> nn.Module:
    """In eval mode, with weights that keep the size of what passes, norms not the identity and biases not 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean, -0.2, 0.2)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.2, 0.2)
        elif getattr(layer, "bias", None) is not None:
            nn.init.uniform_(layer.bias, -0.3, 0.3)
    return module.eval()


def array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def layers(module: nn.Module) -> list[tuple]:
    """The linear layers of a module in order, each with the norm after it (or None) and whether a ReLU follows."""
    found: list[list] = []
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            found.append([layer, None, False])
        elif isinstance(layer, nn.BatchNorm1d):
            found[-1][1] = layer
        elif isinstance(layer, nn.ReLU):
            found[-1][2] = True
    return [tuple(own) for own in found]


def normed(y: np.ndarray, norm: nn.Module | None, axis: int = -1) -> np.ndarray:
    if norm is None:
        return y
    shape = [1] * y.ndim
    shape[axis] = -1
    mean, variance, weight, bias = (
        array(t).reshape(shape) for t in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    return (y - mean) / np.sqrt(variance + 1e-5) * weight + bias


def apply(x: np.ndarray, linear: nn.Linear, norm: nn.Module | None, relu: bool) -> np.ndarray:
    y = normed(x @ array(linear.weight).T + (0 if linear.bias is None else array(linear.bias)), norm)
    return np.maximum(y, 0) if relu else y


def chain(x: np.ndarray, module: nn.Module | list[tuple]) -> np.ndarray:
    """The linear layers of a module one after the other."""
    for own in module if isinstance(module, list) else layers(module):
        x = apply(x, *own)
    return x


def farthest(points: np.ndarray, count: int) -> list[int]:
    taken = [0]
    while len(taken) < count:
        taken.append(int(((points[:, None] - points[taken]) ** 2).sum(-1).min(1).argmax()))
    return taken


def nearest(centre: np.ndarray, points: np.ndarray, k: int) -> np.ndarray:
    return ((points - centre) ** 2).sum(-1).argsort(kind="stable")[:k]


def ball(centre: np.ndarray, points: np.ndarray, radius: float, k: int) -> np.ndarray:
    """The first k points within the radius, in the order of their numbers; filled up with the first."""
    inside = np.flatnonzero(((points - centre) ** 2).sum(-1) < radius**2)[:k]
    return np.concatenate([inside, np.repeat(inside[:1], k - len(inside))])


def interpolated(fine: np.ndarray, coarse: np.ndarray, features: np.ndarray, power: int) -> np.ndarray:
    """Three nearest coarse points (or all, where there are fewer), weighed by 1 / distance to a power."""
    rows = []
    for point in fine:
        near = nearest(point, coarse, 3)
        weight = 1 / (np.linalg.norm(coarse[near] - point, axis=-1) ** power + 1e-8)
        rows.append(weight / weight.sum() @ features[near])
    return np.stack(rows)


def uneven(count: int, seed: int = 0) -> Tensor:
    """A cloud of which half lies in a corner: density differs by far more than a factor of ten."""
    random = torch.Generator().manual_seed(seed)
    points = torch.rand(count, 3, generator=random) * 2 - 1
    points[::2] = 0.15 * points[::2] + 0.7
    return points
