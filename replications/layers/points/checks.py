"""What every operation on point sets asks of its input."""

from torch import Tensor

from replications.errors import UserError


def on_host(tensor: Tensor) -> bool:
    """Whether looking at a value waits for nothing: there, trees and loops over what is found pay; not on a device."""
    return tensor.device.type == "cpu"


def check_points(points: Tensor, name: str = "points") -> None:
    """Raise UserError unless `points` is ``[batch, points, 3]`` with at least one point."""
    if points.dim() != 3 or points.shape[-1] != 3:
        raise UserError(f"{name} must be [batch, points, 3], not {list(points.shape)}: features are given apart")
    if points.shape[1] == 0:
        raise UserError(f"{name} is an empty cloud: drop it from the data, or give it at least one point")
