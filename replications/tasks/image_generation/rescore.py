"""Metrics of drawn images from the arrays that a run kept. numpy only."""

from collections.abc import Mapping
from typing import Any

import numpy as np

DIRECTIONS = 64
NEIGHBOURS = 3
ROWS = 1000  # distances at a time


def rescore(arrays: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics of ``samples`` and ``samples_<sampler>`` uint8 [N, pixels] against ``reference``."""
    found = {}
    for name in arrays:
        if name.startswith("samples"):
            suffix = name.removeprefix("samples")
            found |= {metric + suffix: value for metric, value in judge(arrays[name], arrays).items()}
    return found


def judge(samples: np.ndarray, truth: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics of images uint8 [N, pixels]; `truth` has ``reference`` and the feature network."""
    drawn, real = (features(images, truth) for images in (samples, truth["reference"]))
    return {
        "frechet": frechet(drawn, real),
        "precision": covered(drawn, real),
        "recall": covered(real, drawn),
        "sliced_wasserstein": sliced_wasserstein(pixels(samples), pixels(truth["reference"])),
    }


def pixels(images: np.ndarray) -> np.ndarray:
    return np.asarray(images, np.float64) / 127.5 - 1


def features(images: np.ndarray, network: Mapping[str, Any]) -> np.ndarray:
    """Return the frozen features, float64 [N, F]: the second layer's outputs behind a tanh layer."""
    hidden = np.tanh(pixels(images) @ network["feature_weight_0"] + network["feature_bias_0"])
    return hidden @ network["feature_weight_1"] + network["feature_bias_1"]


def frechet(one: np.ndarray, other: np.ndarray) -> float:
    """Return ``|m - n|^2 + tr(A + B - 2 (A B)^(1/2))`` of means and covariances of two sets of features."""
    mean_a, mean_b = one.mean(0), other.mean(0)
    a, b = (np.cov(values, rowvar=False) for values in (one, other))
    values, vectors = np.linalg.eigh(a)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    # The eigenvalues of A B are those of the symmetric A^(1/2) B A^(1/2).
    overlap = np.sqrt(np.linalg.eigvalsh(root @ b @ root).clip(0)).sum()
    return max(0.0, float(np.square(mean_a - mean_b).sum() + np.trace(a) + np.trace(b) - 2 * overlap))


def covered(points: np.ndarray, by: np.ndarray) -> float:
    """Return the share of points that are at most as far from some of `by` as its third nearest neighbour is.

    Precision and recall of Kynkäänniemi et al., NeurIPS 2019.
    """
    radius = np.concatenate(
        [np.partition(_distances(part, by), NEIGHBOURS, 1)[:, NEIGHBOURS] for part in _parts(by)]
    )  # of each its own distance, 0, comes first
    return float(np.concatenate([(_distances(part, by) <= radius).any(1) for part in _parts(points)]).mean())


def _parts(rows: np.ndarray) -> list[np.ndarray]:
    return [rows[start : start + ROWS] for start in range(0, len(rows), ROWS)]


def _distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    squared = np.square(one).sum(1)[:, None] + np.square(other).sum(1) - 2 * one @ other.T
    return np.sqrt(squared.clip(0))


def sliced_wasserstein(one: np.ndarray, other: np.ndarray) -> float:
    """Return the mean over fixed random directions of the W1 distance of two sets [N, D] and [M, D]."""
    directions = np.random.default_rng(0).normal(size=(one.shape[1], DIRECTIONS))
    directions /= np.linalg.norm(directions, axis=0)
    pairs = zip((one @ directions).T, (other @ directions).T, strict=True)
    return float(np.mean([wasserstein(a, b) for a, b in pairs]))


def wasserstein(one: np.ndarray, other: np.ndarray) -> float:
    """Return the W1 distance of two sets of numbers: the area between their distribution functions."""
    edges = np.sort(np.concatenate([one, other]))
    below = [np.searchsorted(np.sort(values), edges[:-1], side="right") / len(values) for values in (one, other)]
    return float((np.abs(below[0] - below[1]) * np.diff(edges)).sum())
