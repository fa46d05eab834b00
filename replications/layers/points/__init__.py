"""Operations on point sets ``[batch, points, 3]``: sampling, neighbours, interpolation, distances, PointNet++ layers.

Import from the submodules: a run depends on each module that it imports, and on nothing else.

Neighbours are decided in float32, exactly as the naive rule decides (nearest first, ties by the lower index), on every
device and by every algorithm behind a function, so that a faster one changes no number. Coordinates must be finite:
that is checked when a data set is prepared, not in every layer.
"""
