"""Metrics of samples from the arrays that a run kept. numpy only."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

DIRECTIONS = 64
CELLS = 24
RARE = 1e-6  # least share of a cell: a lost sample counts with at most 14 nats


def rescore(arrays: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics of ``samples`` and ``samples_<sampler>`` [N, 2], and what log-densities give."""
    found = {}
    for name in arrays:
        if name.startswith("samples"):
            suffix = name.removeprefix("samples")
            found |= {metric + suffix: value for metric, value in judge(arrays[name], arrays).items()}
    true = float(np.mean(arrays["log_prob"]))
    found["true_log_prob"] = true
    if "log_prob_elbo" in arrays:
        found["elbo"] = float(np.mean(arrays["log_prob_elbo"]))
    if "log_prob_ode" in arrays:
        found["ode_log_prob"] = float(np.mean(arrays["log_prob_ode"]))
        found["flow_gap"] = true - found["ode_log_prob"]
    return found


def judge(samples: np.ndarray, truth: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics of samples [N, 2]; `truth` has ``real`` [N, 2] and what describes the density."""
    samples = np.asarray(samples, np.float64)
    distance = np.linalg.norm(samples[:, None] - truth["centres"], axis=-1)
    shares = np.bincount(distance.argmin(1), minlength=len(truth["centres"])) / len(samples)
    radius = float(truth["radius"])
    away = np.abs(np.linalg.norm(samples, axis=1) - radius) if radius else distance.min(1)
    return {
        "sliced_wasserstein": sliced_wasserstein(samples, np.asarray(truth["real"], np.float64)),
        "bad_share": 100 * float(np.mean(away > 3 * float(truth["deviation"]))),
        "mode_error": 0.5 * float(np.abs(shares - truth["weights"]).sum()),
        "kl": cell_divergence(samples, truth["cells"], float(truth["reach"])),
    }


def sliced_wasserstein(one: np.ndarray, other: np.ndarray) -> float:
    """Return the mean over even directions of the W1 distance of two sets of equally many points [N, 2]."""
    angle = math.pi * np.arange(DIRECTIONS) / DIRECTIONS
    directions = np.stack([np.cos(angle), np.sin(angle)])
    return float(np.abs(np.sort(one @ directions, 0) - np.sort(other @ directions, 0)).mean())


def cell_divergence(samples: np.ndarray, cells: np.ndarray, reach: float) -> float:
    """Return KL(samples || truth) over the cells of a square from -reach to reach, and what lies outside of it."""
    edges = np.linspace(-reach, reach, CELLS + 1)
    counts = np.histogram2d(*samples.T, bins=(edges, edges))[0].ravel()
    shares = np.append(counts, len(samples) - counts.sum()) / len(samples)
    true = np.maximum(np.append(cells.ravel(), max(0.0, 1 - cells.sum())), RARE)
    filled = shares > 0
    return float((shares[filled] * np.log(shares[filled] / true[filled])).sum())
