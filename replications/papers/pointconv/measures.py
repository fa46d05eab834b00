"""What a trained network tells of its operator: equality and memory of its two forms, and how far density acts."""

import copy
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from replications.layers.points.model import Measures
from replications.papers.pointconv.operator import PointConv
from replications.training.stage import Batch

CENTRES = 16  # that the forms are compared on: the naive one needs k c_in c_out numbers for each
SHOWN = 4


@torch.no_grad()
def measure(levels: Sequence[nn.Module], clouds: Batch) -> Measures:
    """Measure the first two levels on some clouds; see `Metric`'s descriptions in the task."""
    points, features = clouds["points"], clouds.get("features")
    first, second = levels[0], levels[1]
    found = Measures()
    group = first.group(points, features)
    if group.inverse_density is not None:
        scale = first.operator.density_net(group.inverse_density)[..., 0]
        released = first.group(points, features, options=replace(first.options, density="released"))
        found.groups = {
            "density_spread": spreads(group.inverse_density),
            "scale_spread": spreads(scale),
            "released_spread": spreads(released.inverse_density),
        }
        density = first.options.point_density(points, first.bandwidth)
        found.arrays = {
            "density_points": few(points).cpu().numpy().astype(np.float16),
            "density": few(density).cpu().numpy().astype(np.float32),
        }
    compared = []
    for level, seen in zip((first, second), (group, second.group(*first(points, features))), strict=True):
        x = level.operator.shared(seen.features)
        if level.operator.density_net is not None:
            x = x * level.operator.density_net(seen.inverse_density)
        m = level.operator.weight_net(seen.offset)
        for k in (x.shape[2], x.shape[2] // 2):
            compared.append(compare_forms(level.operator, x[:1, :CENTRES, :k], m[:1, :CENTRES, :k]))
    found.groups |= {name: [values[name] for values in compared] for name in compared[0]}
    found.metrics = {name: float(np.mean(values)) for name, values in found.groups.items()}
    found.metrics["form_difference"] = max(found.groups["form_difference"])
    return found


def few(values: Tensor) -> Tensor:
    """Return a few rows from all over the first axis."""
    return values[:: max(1, len(values) // SHOWN)][:SHOWN]


def spreads(values: Tensor) -> list[float]:
    """Return the standard deviation over the mean of each cloud's values."""
    values = values.flatten(1)
    return (values.std(1) / values.mean(1).clamp_min(1e-12)).tolist()


def compare_forms(operator: PointConv, x: Tensor, m: Tensor) -> dict[str, float]:
    """Return the difference of the two forms in float64, and their ratio of peak memory, measured and by formula."""
    exact = copy.deepcopy(operator).double()
    reordered, naive = (exact.sum(x.double(), m.double(), form) for form in ("reordered", "naive"))
    peaks = {form: peak_bytes(lambda: operator.sum(x, m, form), x.device) for form in ("reordered", "naive")}  # noqa: B023
    ratio, computed = peaks["naive"] / peaks["reordered"], x.shape[2] * operator.channels / operator.c_mid
    return {
        "form_difference": ((reordered - naive).abs().max() / naive.abs().max()).item(),
        "form_memory_ratio": ratio,
        "form_memory_computed": computed,
        "form_memory_share": ratio / computed,
    }


def peak_bytes(block: Callable[[], object], device: torch.device) -> int:
    """Return the most bytes that `block` held at once of what it allocated itself."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        block()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    held = _Held()
    with held:
        block()
    return held.peak


class _Held(TorchDispatchMode):
    """Counts the bytes of every storage that operations make, until it is freed."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.known.update(t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor))
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self.known:
                    self.known.add(storage._cdata)
                    self.now += storage.nbytes()
                    weakref.finalize(storage, self._free, storage._cdata, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return result

    def _free(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size
