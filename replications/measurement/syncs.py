"""Where a piece of code waits for its accelerator, found without one.

A kernel is only queued; the host waits where it asks for a value (``item``, ``if tensor:``, ``tolist``), where a shape
depends on values (``nonzero``, a mask as an index) and where it copies a constant of its own to the device.
"""

from collections import Counter
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
VALUES = {
    aten._local_scalar_dense: "item", aten.is_nonzero: "item", aten.equal: "equal", aten.nonzero: "nonzero",
    aten.masked_select: "masked_select", aten.bincount: "bincount", aten.unique_dim: "unique", aten._unique2: "unique",
    aten.unique_consecutive: "unique",
}  # fmt: skip
COPIES = {
    torch.Tensor.cpu: "copy to the host", torch.Tensor.tolist: "tolist",
    torch.tensor: "constant", torch.as_tensor: "constant", torch.Tensor.new_tensor: "constant",
}  # fmt: skip


class HostWaits:
    """As a context, counts in `found` (by kind) where the block would wait for an accelerator, backwards included.

    Works on CPU tensors, so a test needs no accelerator; what only a device does (a copy of a tensor of the host by
    ``to``) is not seen. ``constant`` is a tensor made of Python numbers, which on a device is a copy.
    """

    def __init__(self):
        self.found: Counter[str] = Counter()
        self._modes = (_Dispatch(self.found), _Function(self.found))

    def __enter__(self) -> "HostWaits":
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(*error)


class _Dispatch(TorchDispatchMode):
    def __init__(self, found: Counter[str]):
        super().__init__()
        self.counts = found

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        packet = func.overloadpacket
        if packet in VALUES:
            self.counts[VALUES[packet]] += 1
        elif packet in (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_):
            masks = sum(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])
            # A single number put where a mask is set is masked_fill, which waits for nothing.
            if masks and not (packet is not aten.index and args[2].numel() == 1):
                self.counts["mask as an index"] += masks
        elif packet is aten.repeat_interleave and kwargs is not None and kwargs.get("output_size") is None:
            self.counts["repeat_interleave"] += 1
        return func(*args, **(kwargs or {}))


class _Function(TorchFunctionMode):
    def __init__(self, found: Counter[str]):
        super().__init__()
        self.counts = found

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in COPIES:
            self.counts[COPIES[func]] += 1
        elif func in (torch.prod, torch.Tensor.prod) and args[0].requires_grad:
            self.counts["gradient of prod"] += 1  # it looks for zeros, but not where a mode watches it
        return func(*args, **(kwargs or {}))
