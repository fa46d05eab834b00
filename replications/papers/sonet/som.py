"""The self-organising map of a cloud (SO-Net, Section 3.1): trained in batches, from fixed nodes.

A function of the set of points: the update is a sum over the points of each node, so their order is no matter.
"""

import functools

import numpy as np
import torch
from torch import Tensor

SEED = 2017
FIELD_STEPS, FIELD_RATE = 100, 0.01
SIGMA, RATE, ITERATIONS = 0.4, 0.5, 60


@functools.cache
def initial_nodes(grid: int) -> np.ndarray:
    """Return the nodes ``[grid * grid, 3]`` that every map starts from, float32, row by row.

    They repel each other (1 / r^2) and are drawn to the planes through the origin, from uniform positions of a fixed
    seed; then they are sorted by x into rows, and within a row by y.
    """
    count = grid * grid
    nodes = np.random.RandomState(SEED).rand(count, 3) * 2 - 1
    for _ in range(FIELD_STEPS):
        apart = nodes[:, None] - nodes[None]
        distance = np.linalg.norm(apart, axis=-1, keepdims=True) + 1e-5
        wall = np.where(np.abs(nodes) < 0.01, 0, nodes * count / 1.5)
        nodes = nodes + FIELD_RATE * ((apart / distance**3).sum(1) - wall)
    rows = nodes[nodes[:, 0].argsort(kind="stable")].reshape(grid, grid, 3)
    rows = np.stack([row[row[:, 1].argsort(kind="stable")] for row in rows])
    return rows.reshape(count, 3).astype(np.float32)


def neighbourhood(grid: int, sigma: float) -> Tensor:
    """Return how much each node pulls each other ``[grid * grid, grid * grid]``: a Gaussian on the grid's two axes."""
    axis = torch.arange(grid, dtype=torch.float64)
    gauss = torch.exp(-((axis[:, None] - axis) ** 2) / (2 * torch.pi * sigma**2))
    return torch.kron(gauss, gauss).float()


@torch.no_grad()
def train_som(points: Tensor, grid: int) -> Tensor:
    """Return the nodes ``[batch, grid * grid, 3]`` of the maps of clouds ``[batch, points, 3]``.

    20 steps at the first rate and width, then 60 with both falling to a third. In each, every point goes to its nearest
    node, and a node with points pulls itself and its neighbours on the grid towards the mean of its points.
    """
    nodes = torch.from_numpy(initial_nodes(grid)).to(points).expand(len(points), -1, -1)
    for iteration in [0] * (ITERATIONS // 3) + list(range(ITERATIONS)):
        decay = 1 + 2 * iteration / ITERATIONS
        mean, count = cluster_means(points, nearest_node(points, nodes), nodes.shape[1])
        pull = neighbourhood(grid, SIGMA / decay).to(points) * (RATE / decay)
        pulling = (count > 0).to(points.dtype)[..., None]
        nodes = nodes + pull.T @ (mean * pulling) - (pull.T @ pulling) * nodes
    return nodes


def nearest_node(points: Tensor, nodes: Tensor) -> Tensor:
    """Return the index of the node nearest to each point, int64 ``[batch, points]``."""
    # |p - n|^2 without |p|^2, which is the same for all nodes.
    lengths = nodes.square().sum(-1, keepdim=True)
    return torch.baddbmm(lengths, nodes, points.transpose(1, 2), alpha=-2).min(1)[1]


def cluster_means(points: Tensor, index: Tensor, nodes: int) -> tuple[Tensor, Tensor]:
    """Return the mean of each node's points ``[batch, nodes, 3]`` (0 without any) and how many ``[batch, nodes]``."""
    batch = len(points)
    place = (index + nodes * torch.arange(batch, device=index.device)[:, None]).flatten()
    total = points.new_zeros(batch * nodes, 3).index_add_(0, place, points.flatten(0, 1))
    count = points.new_zeros(batch * nodes).index_add_(0, place, torch.ones_like(points[..., 0]).flatten())
    return (total / count.clamp_min(1)[:, None]).view(batch, nodes, 3), count.view(batch, nodes)
