"""Sharing the machine: one GPU for one run, and the device alone for a speed measurement.

Locks are advisory file locks of the kernel (flock), so they fall when their process ends, however it ends. They lie in
a folder of this machine, not of the checkout: two checkouts share the GPUs, and a work folder on a network file system
is seen by machines that do not.
"""

import contextlib
import fcntl
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from replications.errors import UserError
from replications.measurement.hardware import visible_gpus

POLL_SECONDS = 0.5
CUDA_CHOICE = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")


def lock_folder() -> Path:
    """Return the folder of the locks: one for each user of this machine."""
    return Path(tempfile.gettempdir()) / f"replications-{os.getuid()}"


@contextlib.contextmanager
def reserve_device(choice: str, *, alone: bool = False, folder: Path | None = None) -> Iterator[str]:
    """Reserve what a person's choice of device asks for; yields the name for `hardware.resolve_device`.

    A GPU (``cuda``, ``cuda:1``, and ``auto`` where there is one) is leased: no other run is on it either way, and it
    is ``cuda:0`` then. The CPU is shared, or taken alone to measure speed. Raises UserError for a GPU that is not
    there.
    """
    gpus = visible_gpus()
    if not choice.startswith("cuda") and not (choice == "auto" and gpus):
        with (device_alone if alone else device_shared)("cpu", folder):
            yield "cpu" if choice == "auto" else choice
        return
    _, _, index = choice.partition(":")
    if index and not (index.isdigit() and int(index) < len(gpus)):
        raise UserError(f"device '{choice}': GPUs visible here: {len(gpus)} (use device=cpu, or a lower index)")
    with lease_gpus(1, among=[gpus[int(index)]] if index else gpus, folder=folder):
        yield "cuda:0"


@contextlib.contextmanager
def lease_gpus(count: int = 1, among: list[str] | None = None, folder: Path | None = None) -> Iterator[list[str]]:
    """Reserve GPUs for a block and show only them to CUDA; waits, with a message, until so many are free.

    Takes them from `among` (entries as in CUDA_VISIBLE_DEVICES; all visible ones unless given), sets
    CUDA_VISIBLE_DEVICES to the leased ones, so that ``cuda:0`` is the first of them, and puts it back at the end. Must
    come before this process asks CUDA anything. A process started within the block inherits the choice and must not
    lease again. Yields the leased entries. Raises UserError where there are fewer than `count`.
    """
    _refuse_late_lease()
    gpus = visible_gpus() if among is None else among
    if count > len(gpus):
        raise UserError(
            f"GPUs needed: {count}, visible here: {len(gpus)}; use device=cpu, or check CUDA_VISIBLE_DEVICES"
        )
    folder = folder or lock_folder()
    with contextlib.ExitStack() as stack:
        leased = _try_lease(gpus, count, folder, stack)
        if not leased:
            print(f"waiting for {count} of the GPUs {', '.join(gpus)}: all are leased", file=sys.stderr, flush=True)
        while not leased:
            time.sleep(POLL_SECONDS)
            leased = _try_lease(gpus, count, folder, stack)
        before = {name: os.environ.get(name) for name in CUDA_CHOICE}
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(leased)
        os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # NVML's; CUDA's own is fastest first
        try:
            yield leased
        finally:
            for name, value in before.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value


def _refuse_late_lease() -> None:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        raise RuntimeError("CUDA is in use already: a lease would come too late to choose the GPU")


def _try_lease(gpus: list[str], count: int, folder: Path, stack: contextlib.ExitStack) -> list[str]:
    """Lease `count` of the GPUs into `stack`, or none: a process that waits holds nothing others wait for."""
    leased = []
    with contextlib.ExitStack() as attempt:
        for gpu in gpus:
            if len(leased) < count and _locked(attempt, folder / f"gpu-{gpu}.lock", fcntl.LOCK_EX | fcntl.LOCK_NB):
                leased.append(gpu)
        if len(leased) < count:
            return []
        stack.enter_context(attempt.pop_all())
    return leased


@contextlib.contextmanager
def device_shared(device: str, folder: Path | None = None) -> Iterator[None]:
    """Hold a device for work whose speed is not measured; any number of processes may. Waits for a measurement.

    `device` is ``cpu`` or a GPU's entry in CUDA_VISIBLE_DEVICES.
    """
    folder = folder or lock_folder()
    with contextlib.ExitStack() as stack:
        with contextlib.ExitStack() as gate:
            _wait(gate, folder / f"{device}-gate.lock", fcntl.LOCK_SH, f"a speed measurement on {device} to end")
            _wait(stack, folder / f"{device}-use.lock", fcntl.LOCK_SH, f"a speed measurement on {device} to end")
        yield


@contextlib.contextmanager
def device_alone(device: str, folder: Path | None = None) -> Iterator[None]:
    """Hold a device alone, for a speed measurement. Waits until those in `device_shared` have ended.

    It closes a gate first, through which others must pass: runs that keep arriving cannot hold it off for ever.
    """
    folder = folder or lock_folder()
    with contextlib.ExitStack() as stack:
        _wait(stack, folder / f"{device}-gate.lock", fcntl.LOCK_EX, f"another speed measurement on {device} to end")
        _wait(stack, folder / f"{device}-use.lock", fcntl.LOCK_EX, f"the runs on {device} to end, to measure alone")
        yield


@contextlib.contextmanager
def in_turn(name: str, what: str, folder: Path | None = None) -> Iterator[None]:
    """Let one process of this machine at a time through the block `name`; says once that it waits for `what`."""
    with contextlib.ExitStack() as stack:
        _wait(stack, (folder or lock_folder()) / f"{name}.lock", fcntl.LOCK_EX, what)
        yield


def _wait(stack: contextlib.ExitStack, path: Path, mode: int, what: str) -> None:
    if _locked(stack, path, mode | fcntl.LOCK_NB):
        return
    print(f"waiting for {what}", file=sys.stderr, flush=True)
    _locked(stack, path, mode)


def _locked(stack: contextlib.ExitStack, path: Path, mode: int) -> bool:
    """Take a lock until `stack` closes; False where it is taken and `mode` says not to wait."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UserError(f"cannot lock {path}: {error.strerror} (make the folder writable, or set TMPDIR)") from error
    try:
        fcntl.flock(descriptor, mode)
    except BlockingIOError:
        os.close(descriptor)
        return False
    except BaseException:
        os.close(descriptor)
        raise
    # Unlocked by name, not only closed: a forked worker that is still alive shares the open file and with it the lock.
    stack.callback(os.close, descriptor)
    stack.callback(fcntl.flock, descriptor, fcntl.LOCK_UN)
    return True
