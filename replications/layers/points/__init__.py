"""Operations on point sets ``[batch, points, 3]``: sampling, neighbours, interpolation, distances, PointNet++ layers.

Neighbours are decided in float32, exactly as the naive rule decides (nearest first, ties by the lower index), on every
device and by every algorithm behind a function, so that a faster one changes no number. Coordinates must be finite:
that is checked when a data set is prepared, not in every layer.
"""

from replications.layers.points.chamfer import chamfer_distance
from replications.layers.points.interpolation import interpolate, three_nearest
from replications.layers.points.neighbours import ball_query, gather, knn
from replications.layers.points.pointnet2 import (
    FeaturePropagation,
    MultiScaleSetAbstraction,
    SetAbstraction,
    SharedMLP,
    he_normal_,
)
from replications.layers.points.sampling import farthest_point_sample

__all__ = [
    "FeaturePropagation",
    "MultiScaleSetAbstraction",
    "SetAbstraction",
    "SharedMLP",
    "ball_query",
    "chamfer_distance",
    "farthest_point_sample",
    "gather",
    "he_normal_",
    "interpolate",
    "knn",
    "three_nearest",
]
