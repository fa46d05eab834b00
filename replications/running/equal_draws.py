"""The same random numbers on every device, so that devices can be compared."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map


@contextmanager
def equal_draws() -> Iterator[None]:
    """Draw from the CPU's generator on all devices, and disable dropout in fused attention.

    Fused attention draws inside its kernel, so its dropout is the only one that is not compared.
    """
    attention = F.scaled_dot_product_attention

    def without_dropout(*args, **kwargs):
        return attention(*args, **(kwargs | {"dropout_p": 0.0} if "dropout_p" in kwargs else kwargs))

    with mock.patch.object(F, "scaled_dot_product_attention", without_dropout), _FromTheHost():
        yield


class _FromTheHost(TorchDispatchMode):
    """Runs operations that draw random numbers on the CPU and moves the results to their device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        draws = torch.Tag.nondeterministic_seeded in func.tags and "attention" not in func.name()
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
        device = tensors[0].device if tensors else torch.device(kwargs.get("device") or "cpu")
        if not draws or device.type == "cpu":
            return func(*args, **kwargs)
        return on_the_host(func, args, kwargs, device)


def on_the_host(func, args: tuple, kwargs: dict, device: torch.device):
    """Call an operation with CPU tensors and return its results on `device`; in-place ones update their argument."""
    first = args[0] if args else None
    host, named = tree_map(lambda value: value.cpu() if isinstance(value, torch.Tensor) else value, (args, kwargs))
    if "device" in named:
        named["device"] = torch.device("cpu")
    named.pop("generator", None)
    found = func(*host, **named)
    written = func._schema.arguments[0].alias_info if func._schema.arguments else None
    if written is not None and written.is_write:
        return first.copy_(found)
    return tree_map(lambda value: value.to(device) if isinstance(value, torch.Tensor) else value, found)
