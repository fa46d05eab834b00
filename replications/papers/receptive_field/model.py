"""Receptive fields: the formula against gradients, and how the effective field grows (Luo et al., NIPS 2016)."""

import math
from collections.abc import Sequence

import numpy as np
import torch

from replications.errors import UserError, nearest
from replications.layers.systems.measured import Measured, log_slope
from replications.papers.receptive_field import effective
from replications.papers.receptive_field.fields import NETWORKS, Layer, field, path_counts
from replications.records import Curve

CHANNELS = 8
KERNEL = 3


def formula(networks: Sequence[str]) -> Measured:
    """Compare the extent of a unit's gradient with the formula's square, in networks of positive weights.

    The statement: first and last row of the gradient are the square's. Raises UserError for an unknown network.
    """
    found, stated, metrics, support = [], [], {}, 0
    for name in networks:
        if name not in NETWORKS:
            raise UserError(f"networks: unknown '{name}'{nearest(name, NETWORKS)}")
        layers = NETWORKS[name]
        square = field(layers)
        unit = math.ceil((square.padding + 1) / square.jump)  # its square lies wholly in the image
        first = square.first(unit)
        last = first + square.size - 1
        rows, columns, outside = gradient_extent(layers, unit, last + 2, first, last)
        found += [rows, columns]
        stated += [(first, last)] * 2
        support += outside
        metrics |= {f"field_{name}": float(square.size), f"padding_{name}": float(square.padding)}
    return Measured("theoretical fields", found, stated, metrics | {"support_difference": float(support)})


def gradient_extent(
    layers: Sequence[Layer], unit: int, side: int, first: int, last: int
) -> tuple[tuple[int, int], tuple[int, int], int]:
    """Return first and last row and column of the unit's gradient, and in how many pixels it differs from the square.

    With all weights 1 a gradient is a number of paths, at least 1 wherever there is one: it cannot underflow.
    """
    image = torch.zeros(1, 1, side, side, dtype=torch.float64, requires_grad=True)
    path_counts(layers, image)[0, 0, unit, unit].backward()
    reached = image.grad[0, 0] != 0
    expected = torch.zeros_like(reached)
    expected[first : last + 1, first : last + 1] = True
    rows, columns = (reached.any(axis).nonzero().flatten() for axis in (1, 0))
    ends = [(int(places[0]), int(places[-1])) for places in (rows, columns)]
    return *ends, int((reached != expected).sum())


def build(
    depths: Sequence[int], compared_depth: int, draws: int, *, weights: str = "random", relu: bool = False
) -> Measured:
    """Measure the effective field of 3x3 layers at each of `depths`, and fit its growth.

    The statement: gradients are zero outside of the theoretical square, and without `relu` nowhere within it.
    """
    rows = [_measured([Layer(KERNEL)] * depth, draws, weights=weights, relu=relu) for depth in depths]
    spreads = [row["spread"] for row in rows]
    shares = [row["area"] / row["theoretical"] for row in rows]
    distances = [row["distance"] for row in rows]
    closed = [math.sqrt(depth * (KERNEL**2 - 1) / 12) for depth in depths]
    metrics = {
        "growth_exponent": log_slope(depths, spreads),
        "area_exponent": log_slope(depths, shares),
        "shape_exponent": log_slope(depths, distances),
        "gaussian_distance": distances[-1],
        "spread": spreads[list(depths).index(compared_depth)],
        "spread_error": max(abs(a - b) for a, b in zip(spreads, closed, strict=True)),
    }
    curves = {
        name: Curve(x_label="layers", y_label=label, x=list(map(float, depths)), y=values)
        for name, label, values in (
            ("spread", "pixels", spreads),
            ("area_share", "share", shares),
            ("gaussian", "distance", distances),
        )
    }
    return _row(rows, relu, metrics, curves, [f"{depth}" for depth in depths])


def build_at_one_depth(
    compared_depth: int, draws: int, *, strides: int = 0, dilation: int = 1, skip: bool = False
) -> Measured:
    """Measure the effective field of random 3x3 layers of which some subsample, are dilated, or have a skip.

    `strides` layers, evenly spread, have stride 2; every second layer has `dilation`.
    """
    strided = {round((i + 1) * compared_depth / (2 * strides + 1)) for i in range(strides)}
    layers = [
        Layer(KERNEL, 2 if number in strided else 1, dilation=dilation if number % 2 else 1)
        for number in range(compared_depth)
    ]
    row = _measured(layers, draws, skip=skip)
    metrics = {"spread": row["spread"], "gaussian_distance": row["distance"]}
    return _row([row], False, metrics, {}, [f"{compared_depth}"])


def _measured(layers: Sequence[Layer], draws: int, *, weights: str = "random", **how: bool) -> dict:
    gradients = effective.gradient_maps(layers, draws, CHANNELS, weights=weights, **how)
    values = effective.importance(gradients, weights)
    square = effective.square(layers).numpy()
    reached = (gradients != 0).any(1).any(0).numpy()
    return {
        "map": values,
        "spread": effective.spread(values),
        "area": effective.effective_area(values),
        "theoretical": int(square.sum()),
        "distance": effective.gaussian_distance(values),
        "outside": int((reached & ~square).sum()),
        "missed": int((~reached & square).sum()),
    }


def _row(rows: Sequence[dict], relu: bool, metrics: dict, curves: dict, names: Sequence[str]) -> Measured:
    """The statement in pixels: none outside of the square, none missed within (units of a ReLU may miss some)."""
    found = [(row["outside"], 0 if relu else row["missed"]) for row in rows]
    arrays = {f"map_{name}": row["map"].astype(np.float32) for name, row in zip(names, rows, strict=True)}
    metrics = metrics | {"support_difference": float(sum(map(sum, found)))}
    return Measured("effective fields", found, np.zeros((len(rows), 2)), metrics, curves, arrays)
