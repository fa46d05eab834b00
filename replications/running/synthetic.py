"""A method's workload on random data: the unchanged task opens sets of random values, written to its data root."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from replications.errors import UserError
from replications.running.context import make_workload
from replications.spec import RunSpec
from replications.tasks.base import find_task

if TYPE_CHECKING:
    import torch

    from replications.training.stage import Workload

BUILT = 128  # samples generated; a larger training batch repeats them


def make_synthetic_workload(spec: RunSpec, data_root: Path, device: "torch.device") -> "Workload":
    """Return the same as `make_workload`, on random data with the shapes of the run's data; `data_root` is not used.

    The training batch has the recipe's size, inference at most `BUILT` samples unless the task has a size for it.
    Raises UserError for a task that does not declare the shapes of its data.
    """
    from replications.datasets.synthetic import write_synthetic

    recipe = spec.recipe
    built = recipe.model_copy(update={"batch_size": min(recipe.batch_size, _multiple(BUILT, recipe.accumulate))})
    sets = find_task(spec.task).synthetic_sets(spec, built.batch_size)
    if sets is None:
        raise UserError(f"{spec.address}: the task {spec.task} has no random data (tasks/{spec.task}/synthetic.py)")
    data = {role: key for role, key in spec.data.items() if key in sets}
    with tempfile.TemporaryDirectory(prefix="replications-synthetic-") as folder:
        for key, found in sets.items():
            write_synthetic(key, found, Path(folder))
        made = make_workload(spec.model_copy(update={"recipe": built, "data": data}), Path(folder), device)
    size = made.stage.recipe.batch_size  # stages may have their own
    wanted = recipe.batch_size if size == built.batch_size else size
    batch = {name: _repeated(value, wanted) for name, value in made.batch.items()}
    # The batches are released: data on the device would count into the memory of the step.
    stage = replace(made.stage, batches=None, recipe=made.stage.recipe.model_copy(update={"batch_size": wanted}))
    return replace(made, stage=stage, batch=batch)


def _multiple(most: int, of: int) -> int:
    return max(1, most // of) * of


def _repeated(value: "torch.Tensor", count: int) -> "torch.Tensor":
    if len(value) == count:
        return value
    return value.repeat(-(-count // len(value)), *[1] * (value.ndim - 1))[:count]
