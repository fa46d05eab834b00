"""Seeds, deterministic algorithms and the state of every random generator.

All randomness of the suite comes from `derive_seed`: a seed for a purpose is a hash of words such as
``(seed, "order", epoch)``, so streams do not depend on one another or on what ran before.
"""

import hashlib
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from replications.errors import UserError


def derive_seed(*words: int | str) -> int:
    """Hash strings and numbers into a seed of 63 bits. The same on every machine and Python version."""
    text = "\x1f".join(f"{type(word).__name__}:{word}" for word in words)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator_for(*words: int | str) -> torch.Generator:
    """Return a CPU generator seeded by words: its numbers do not depend on the training device."""
    return torch.Generator().manual_seed(derive_seed(*words))


def seed_everything(*words: int | str) -> None:
    """Seed Python, numpy and torch (CPU and every CUDA device) from words, usually the run's seed and a purpose."""
    seed = derive_seed(*words)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def set_threads(threads: int) -> None:
    """Set the CPU threads of torch's operations. Bits may differ between thread counts, so a tier fixes it."""
    if threads < 1:
        raise UserError(f"threads must be at least 1, not {threads}")
    torch.set_num_threads(threads)


class deterministic:
    """Make torch choose deterministic algorithms, from the call on; as a context, only inside it.

    An operation that has no deterministic CUDA version raises: a stage that needs one declares it in
    `Stage.nondeterministic`, and trains under ``deterministic(False)``. Call it before the first CUDA operation:
    cuBLAS reads its workspace setting once.
    """

    def __init__(self, enabled: bool = True):
        # torch.use_deterministic_algorithms does the same, but imports the whole compiler (3 s of start-up).
        self._before = (
            torch.get_deterministic_debug_mode(),
            torch.backends.cudnn.deterministic,
            torch.backends.cudnn.benchmark,
            torch.utils.deterministic.fill_uninitialized_memory,
        )
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        self._set("error" if enabled else "default", enabled, False, False)

    @staticmethod
    def _set(mode: int | str, cudnn: bool, benchmark: bool, fill: bool) -> None:
        torch.set_deterministic_debug_mode(mode)
        torch.backends.cudnn.deterministic = cudnn
        torch.backends.cudnn.benchmark = benchmark
        # Filling every new tensor with NaN finds reads of unset memory, and costs a write of each tensor.
        torch.utils.deterministic.fill_uninitialized_memory = fill

    def __enter__(self) -> "deterministic":
        return self

    def __exit__(self, *_: object) -> None:
        self._set(*self._before)


@contextmanager
def float32_precision(precision: str) -> Iterator[None]:
    """Compute float32 products with TF32 where `precision` is ``tf32``, else exactly in float32.

    torch's default mixes them (convolutions in TF32, matrix products not); a record must mean one thing.
    """
    matmul, convolution = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    tf32 = precision == "tf32"
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(matmul)
        torch.backends.cudnn.allow_tf32 = convolution


@contextmanager
def scoring(precision: str, device: torch.device) -> Iterator[None]:
    """Compute without gradients and in a recipe's precision, so that a test means what its training meant."""
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
    with torch.no_grad(), float32_precision(precision), autocast:
        yield


def rng_state(device: torch.device) -> dict[str, Any]:
    """Return the state of Python's, numpy's and torch's global generators, loadable with ``weights_only``."""
    name, keys, position, has_gauss, gauss = np.random.get_state()
    state = {
        "python": random.getstate(),
        "numpy": (
            str(name),
            torch.from_numpy(keys.astype(np.int64)),
            int(position),
            int(has_gauss),
            float(gauss),
        ),
        "torch": torch.get_rng_state(),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_rng_state(state: dict[str, Any], device: torch.device) -> None:
    """Put the generators back to a state of `rng_state`."""
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)


@contextmanager
def preserved_rng(device: torch.device) -> Iterator[None]:
    """Leave the global generators after the block as they were before it."""
    before = rng_state(device)
    try:
        yield
    finally:
        set_rng_state(before, device)
