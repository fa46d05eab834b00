"""What samples are judged against: fixed real points of a density, its exact shares in cells, its parameters."""

import numpy as np
import torch

from replications.layers.planar.density import PlanarDensity
from replications.tasks.toy_density.rescore import CELLS, judge
from replications.training.determinism import generator_for

FINE = 5  # midpoints along a side of a cell


def truth_of(name: str, density: PlanarDensity, count: int) -> dict[str, np.ndarray]:
    """Return the arrays that `judge` needs, the same for all seeds; ``samples_floor`` are other real points."""
    reach = 1.25 * density.extent
    real, floor = (density.sample(count, generator_for("toy", name, use)).numpy() for use in ("real", "floor"))
    return {
        "real": real,
        "samples_floor": floor,
        "centres": density.centres.cpu().numpy(),
        "weights": density.weights.cpu().numpy(),
        "deviation": np.array(density.deviation),
        "radius": np.array(getattr(density, "radius", 0.0)),
        "reach": np.array(reach),
        "cells": cell_shares(density, reach),
    }


def cell_shares(density: PlanarDensity, reach: float) -> np.ndarray:
    """Return the exact probability of each cell [cells, cells], first axis x, by midpoints."""
    number = CELLS * FINE
    side = 2 * reach / number
    middle = torch.linspace(-reach, reach, number + 1, dtype=torch.float64)[:-1] + side / 2
    points = torch.cartesian_prod(middle, middle).to(density.centres.device)
    mass = density.log_prob(points).exp().reshape(CELLS, FINE, CELLS, FINE).sum((1, 3)) * side**2
    return mass.cpu().numpy()


def category_of(density: PlanarDensity, truth: dict[str, np.ndarray]) -> str:
    """Name the density, the count, and the floors: what as many real points reach."""
    floor = judge(truth["samples_floor"], truth)
    return (
        f"{density.title}, {len(truth['real']):,} samples; real points reach: sliced W1 "
        f"{floor['sliced_wasserstein']:.3f}, bad {floor['bad_share']:.1f} %, modes {floor['mode_error']:.3f}, "
        f"KL {floor['kl']:.2f}"
    )
