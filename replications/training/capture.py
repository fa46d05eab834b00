"""A step's forward and backward passes as one CUDA graph: hundreds of kernels launched at once, not one by one.

Small models wait for launches on a GPU, not for arithmetic. Follows torch's notes on CUDA graphs ("whole-network
capture"): a few steps are taken on a separate stream, then one is recorded, and from there on each step copies its
batch into the recorded one's memory and replays. Clipping, the optimiser's fused update, averaging and the meter stay
outside: they are few kernels, and the learning rate need not lie on the device. What Python decides is decided once, so
a module that changes with the step is refused.

Not yet run on a GPU; the tests put a replay that calls the function in the graph's place.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from replications.errors import UserError
from replications.training.distribution import Distribution
from replications.training.stage import Batch, Stage

WARM_UP = 3  # steps before the recorded one: libraries choose and allocate
DEVICES = ("cuda",)

Found = TypeVar("Found")


class CudaGraph:
    """What a captured step needs of torch's CUDA graphs."""

    def __init__(self, device: torch.device):
        self._device, self._stream, self._graph = device, torch.cuda.Stream(device), torch.cuda.CUDAGraph()

    def warm_up(self, function: Callable[[], Found]) -> Found:
        """Call a function on a separate stream."""
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            found = function()
        torch.cuda.current_stream(self._device).wait_stream(self._stream)
        return found

    def capture(self, function: Callable[[], Found]) -> Found:
        """Record the kernels of a function without running them; each `replay` fills its return value."""
        with torch.cuda.graph(self._graph):
            return function()

    def replay(self) -> None:
        self._graph.replay()


class CapturedStep:
    """Calls `function`, which leaves gradients in `parameters` and returns values by name, through a graph.

    After the warm-up the returned tensors, and the gradients, are the same memory at each call. Raises UserError for a
    batch of another form than the first, and for a function that cannot be recorded.
    """

    def __init__(
        self, function: Callable[[Batch], dict[str, Tensor]], parameters: Sequence[nn.Parameter], graph: CudaGraph
    ):
        self._function, self._parameters, self._graph = function, parameters, graph
        self._warm = 0
        self._batch: Batch | None = None
        self._found: dict[str, Tensor] | None = None
        self._gradients: list[Tensor | None] = []

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        self._take(batch)
        if self._found is None and self._warm < WARM_UP:
            self._warm += 1
            self._drop_gradients()
            return self._graph.warm_up(self._step)
        if self._found is None:
            self._capture()
        self._graph.replay()
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient
        return self._found

    def _step(self) -> dict[str, Tensor]:
        return self._function(self._batch)

    def _take(self, batch: Batch) -> None:
        if self._batch is None:
            self._batch = {name: tensor.clone() for name, tensor in batch.items()}
            return
        for name in self._batch.keys() | batch.keys():
            one, other = (_form(of.get(name)) for of in (self._batch, batch))
            if one != other:
                raise UserError(f"recipe.capture: '{name}' of a batch is {other}, and was {one}: leave capture out")
        for name, tensor in batch.items():
            self._batch[name].copy_(tensor)

    def _capture(self) -> None:
        self._drop_gradients()  # so that the recorded pass allocates them in the graph's memory
        try:
            found = self._graph.capture(self._step)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            why = " ".join(str(error).split())[:200]
            raise UserError(
                f"recipe.capture: the step cannot be recorded, as it waits for the device or copies from the host "
                f"({why}): leave capture out"
            ) from error
        self._found, self._gradients = found, [parameter.grad for parameter in self._parameters]

    def _drop_gradients(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None


def _form(tensor: Tensor | None) -> str:
    return "missing" if tensor is None else f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def check_capture(stage: Stage, device: torch.device, distribution: Distribution) -> None:
    """Raise UserError, naming the reason, where a stage's step cannot be captured: it is never left out in silence."""
    reasons = {
        f"needs a CUDA GPU, not {device.type}": device.type not in DEVICES,
        "is for one process": distribution.world_size > 1,
        "and compile exclude each other": stage.recipe.compile,
        "is for a step without micro-batches (accumulate: 1)": stage.recipe.accumulate > 1,
        "is for a step without turns": bool(stage.turns),
        "is not for a module that changes with the step (on_step)": hasattr(stage.module, "on_step"),
    }
    for reason, holds in reasons.items():
        if holds:
            raise UserError(f"stage '{stage.name}': recipe.capture {reason}: leave capture out")
