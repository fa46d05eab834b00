"""Point operations against what else does them on a CPU, at two sizes, ratios from one run.

    python -m benchmarks.points [--threads 1] [--repeat 5]

Farthest point sampling has no counterpart in scikit-learn or scipy, and torch_geometric's lies in a compiled extension
that is not installed with it: it is compared with the loop of public PyTorch code. Ball query and k nearest neighbours
are compared with scikit-learn's and scipy's trees, with torch.cdist and a sort, and, where it is installed with its
pure-torch parts, with torch_geometric. Every competitor gives indices; trees are built within the measured time.
Times are CPU seconds of the process.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from replications.layers.points.neighbours import ball_query, knn
from replications.layers.points.sampling import farthest_point_sample

SIZES = (
    # batch, points, centres, radius, k
    (16, 1024, 512, 0.2, 32),
    (8, 16384, 1024, 0.1, 32),
)


def public_fps(points: Tensor, count: int) -> Tensor:
    """Distances to the last point over all coordinates at once, as public PyTorch code has it, from index 0."""
    batch, n, _ = points.shape
    taken = torch.zeros(batch, count, dtype=torch.long)
    distance = torch.full((batch, n), 1e10)
    farthest = torch.zeros(batch, dtype=torch.long)
    rows = torch.arange(batch)
    for i in range(count):
        taken[:, i] = farthest
        centre = points[rows, farthest].view(batch, 1, 3)
        squared = ((points - centre) ** 2).sum(-1)
        mask = squared < distance
        distance[mask] = squared[mask]
        farthest = distance.max(-1)[1]
    return taken


def sklearn_ball(centres: np.ndarray, points: np.ndarray, radius: float) -> list:
    from sklearn.neighbors import KDTree

    return [KDTree(p).query_radius(c, radius) for c, p in zip(centres, points, strict=True)]


def scipy_ball(centres: np.ndarray, points: np.ndarray, radius: float) -> list:
    from scipy.spatial import cKDTree

    trees = zip(centres, points, strict=True)
    return [cKDTree(p).query_ball_point(c, radius, return_sorted=True) for c, p in trees]


def public_ball(centres: Tensor, points: Tensor, radius: float, k: int) -> Tensor:
    """All distances, a sort of all indices, the first k: public PyTorch code."""
    batch, n, _ = points.shape
    index = torch.arange(n).repeat(batch, centres.shape[1], 1)
    index[torch.cdist(centres, points) ** 2 > radius**2] = n
    index = index.sort(dim=-1)[0][:, :, :k]
    first = index[:, :, :1].expand_as(index)
    return torch.where(index == n, first, index)


def sklearn_knn(queries: np.ndarray, points: np.ndarray, k: int) -> list:
    from sklearn.neighbors import NearestNeighbors

    fitted = (NearestNeighbors(n_neighbors=k, algorithm="kd_tree").fit(p) for p in points)
    return [f.kneighbors(q) for f, q in zip(fitted, queries, strict=True)]


def scipy_knn(queries: np.ndarray, points: np.ndarray, k: int) -> list:
    from scipy.spatial import cKDTree

    return [cKDTree(p).query(q, k) for q, p in zip(queries, points, strict=True)]


def torch_knn(queries: Tensor, points: Tensor, k: int) -> Tensor:
    parts = [torch.cdist(q, p).topk(k, largest=False)[1] for q, p in zip(queries, points, strict=True)]
    return torch.stack(parts)


def geometric_knn(queries: Tensor, points: Tensor, k: int) -> list:
    """torch_geometric's own search, which needs no extension."""
    from torch_geometric.nn.pool import L2KNNIndex

    return [L2KNNIndex(p).search(q, k) for q, p in zip(queries, points, strict=True)]


def best(call: Callable[[], object], repeat: int) -> float:
    """Return the least CPU seconds of some calls, after one that does not count: what else runs does not matter."""
    call()
    seconds = []
    for _ in range(repeat):
        started = time.process_time()
        call()
        seconds.append(time.process_time() - started)
    return min(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"torch {torch.__version__}, {arguments.threads} thread(s); CPU milliseconds, and times ours")
    for batch, n, count, radius, k in SIZES:
        points = torch.rand(batch, n, 3, generator=torch.Generator().manual_seed(0))
        centres = points[:, :count].contiguous()
        plain, plain_centres = points.numpy(), centres.numpy()
        found = {
            f"farthest points, {count}": {
                "ours": lambda: farthest_point_sample(points, count),  # noqa: B023
                "public PyTorch": lambda: public_fps(points, count),  # noqa: B023
            },
            f"ball of {radius}, {k}": {
                "ours": lambda: ball_query(centres, points, radius, k),  # noqa: B023
                "scikit-learn": lambda: sklearn_ball(plain_centres, plain, radius),  # noqa: B023
                "scipy": lambda: scipy_ball(plain_centres, plain, radius),  # noqa: B023
            },
            f"{k} nearest": {
                "ours": lambda: knn(centres, points, k),  # noqa: B023
                "scikit-learn": lambda: sklearn_knn(plain_centres, plain, k),  # noqa: B023
                "scipy": lambda: scipy_knn(plain_centres, plain, k),  # noqa: B023
                "torch.cdist": lambda: torch_knn(centres, points, k),  # noqa: B023
                "torch_geometric": lambda: geometric_knn(centres, points, k),  # noqa: B023
            },
        }
        if n <= 1024:  # 8 x 1,024 x 16,384 indices would be sorted
            found[f"ball of {radius}, {k}"]["public PyTorch"] = lambda: public_ball(centres, points, radius, k)  # noqa: B023
        for name, calls in found.items():
            ours = best(calls["ours"], arguments.repeat)
            line = [f"({batch}, {n}) {name}: {1000 * ours:.1f}"]
            for other, call in calls.items():
                if other != "ours":
                    try:
                        line.append(f"{other} {best(call, arguments.repeat) / ours:.2f}x")
                    except ImportError as error:
                        line.append(f"{other} not installed ({error.name})")
            print("; ".join(line), flush=True)


if __name__ == "__main__":
    main()
