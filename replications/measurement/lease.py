"""Sharing the machine: one GPU for one run, or for a few that agree to it, and the device alone to measure speed.

Locks are advisory file locks of the kernel (flock), so they fall when their process ends, however it ends, even if a
process that it forked lives on. They are in a folder of this machine, not of the checkout: two checkouts share the
GPUs, and a work folder on a network file system is seen by machines that do not. The folder is where others may
write, so it is used only if it is a folder of this user's own that nobody else can write into.
"""

import contextlib
import fcntl
import os
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from replications.errors import UserError, disk_error, user_name
from replications.measurement.hardware import gpu_uuid, visible_gpus

POLL_SECONDS = 0.5
CUDA_CHOICE = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")

_held: set[int] = set()  # descriptors of this process's locks


def _let_go_in_child() -> None:
    """A forked process shares the open file and with it the lock, which would outlast the owner: close its copy."""
    for descriptor in _held:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_let_go_in_child)


def lock_folder() -> Path:
    """Return the folder of the locks: one for each user of this machine."""
    return Path(tempfile.gettempdir()) / f"replications-{os.getuid()}"


@contextlib.contextmanager
def reserve_device(
    choice: str, *, alone: bool = False, runs_per_gpu: int = 1, folder: Path | None = None
) -> Iterator[str]:
    """Reserve what a person's choice of device asks for; yields the name for `hardware.resolve_device`.

    A GPU (``cuda``, ``cuda:1``, and ``auto`` where there is one) is leased: no other run is on it either way, unless
    both are among `runs_per_gpu`, and it is ``cuda:0`` then. The CPU is shared, or taken alone to measure speed. Raises
    UserError for a GPU that is not there.
    """
    gpus = visible_gpus()
    if not choice.startswith("cuda") and not (choice == "auto" and gpus):
        with (device_alone if alone else device_shared)("cpu", folder):
            yield "cpu" if choice == "auto" else choice
        return
    _, _, index = choice.partition(":")
    if index and not (index.isdecimal() and int(index) < len(gpus)):
        raise UserError(f"device '{choice}': GPUs visible here: {len(gpus)} (use device=cpu, or a lower index)")
    among = [gpus[int(index)]] if index else gpus
    with lease_gpus(1, among, folder, runs_per_gpu=1 if alone else runs_per_gpu):
        yield "cuda:0"


@contextlib.contextmanager
def lease_gpus(
    count: int = 1, among: list[str] | None = None, folder: Path | None = None, *, runs_per_gpu: int = 1
) -> Iterator[list[str]]:
    """Reserve GPUs for a block and show only them to CUDA; waits, with a message, until so many are free.

    Takes them from `among` (entries as in CUDA_VISIBLE_DEVICES; all visible ones unless given), sets
    CUDA_VISIBLE_DEVICES to the leased ones, so that ``cuda:0`` is the first of them, and puts it back at the end. Must
    come before this process asks CUDA anything. A process started within the block inherits the choice and must not
    lease again. Where `runs_per_gpu` is more than 1, so many leases that say so share a GPU; a lease that does not has
    it alone. Yields the leased entries. Raises UserError where there are fewer than `count`.
    """
    _refuse_late_lease()
    gpus = visible_gpus() if among is None else among
    if count > len(gpus):
        raise UserError(
            f"GPUs needed: {count}, visible here: {len(gpus)}; use device=cpu, or check CUDA_VISIBLE_DEVICES"
        )
    folder = folder or lock_folder()
    with contextlib.ExitStack() as stack:
        leased = _try_lease(gpus, count, folder, stack, runs_per_gpu)
        if not leased:
            print(f"waiting for {count} of the GPUs {', '.join(gpus)}: all are leased", file=sys.stderr, flush=True)
        while not leased:
            time.sleep(POLL_SECONDS)
            leased = _try_lease(gpus, count, folder, stack, runs_per_gpu)
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


def free_leases(gpus: list[str], runs_per_gpu: int, folder: Path | None = None) -> int:
    """Return how many more leases of one of `gpus` would be granted at once."""
    count = 0
    with contextlib.ExitStack() as stack:
        while _try_lease(gpus, 1, folder or lock_folder(), stack, runs_per_gpu):
            count += 1
    return count


def _refuse_late_lease() -> None:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        raise RuntimeError("CUDA is in use already: a lease would come too late to choose the GPU")


def _try_lease(
    gpus: list[str], count: int, folder: Path, stack: contextlib.ExitStack, runs_per_gpu: int = 1
) -> list[str]:
    """Lease `count` of the GPUs into `stack`, or none: a process that waits holds nothing others wait for.

    Slot by slot, so that runs spread over the GPUs before they share one.
    """
    leased: list[str] = []
    with contextlib.ExitStack() as attempt:
        for slot in range(runs_per_gpu):
            for gpu in gpus:
                card = folder / f"gpu-{gpu_uuid(gpu)}.lock"
                if len(leased) < count and gpu not in leased and _take(attempt, card, slot, runs_per_gpu > 1):
                    leased.append(gpu)
        if len(leased) < count:
            return []
        stack.enter_context(attempt.pop_all())
    return leased


def _take(stack: contextlib.ExitStack, card: Path, slot: int, shared: bool) -> bool:
    """Take a GPU's lock alone; or share it, and take one of its slots alone."""
    with contextlib.ExitStack() as attempt:
        if not _locked(attempt, card, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB):
            return False
        slot_lock = card.with_name(f"{card.stem}-slot{slot}.lock")
        if shared and not _locked(attempt, slot_lock, fcntl.LOCK_EX | fcntl.LOCK_NB):
            return False
        stack.enter_context(attempt.pop_all())
    return True


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
        _check_own(path.parent, os.lstat(path.parent), stat.S_ISDIR)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    except OSError as error:
        if path.is_symlink() or (path.exists() and path.stat().st_uid != os.getuid()):
            _check_own(path, path.lstat(), stat.S_ISREG)
        raise disk_error(error, "lock", path, "or set TMPDIR to a folder of your own") from error
    _held.add(descriptor)
    try:
        _check_own(path, os.fstat(descriptor), stat.S_ISREG)
        fcntl.flock(descriptor, mode)
    except BaseException as error:
        _let_go(descriptor)
        if isinstance(error, BlockingIOError):
            return False
        if isinstance(error, OSError):
            raise disk_error(error, "lock", path, "or set TMPDIR to a folder of your own") from error
        raise
    stack.callback(_let_go, descriptor)
    return True


def _let_go(descriptor: int) -> None:
    if descriptor in _held:  # not in a forked process, which has closed its own
        _held.remove(descriptor)
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # by name, too: a process that is just being forked has it open
        os.close(descriptor)


def _check_own(path: Path, status: os.stat_result, is_kind: Callable[[int], bool]) -> None:
    """Raise UserError where a folder or lock file is not what this process, or another of its user, made."""
    if status.st_uid != os.getuid():
        fault = f"belongs to {user_name(status.st_uid)}"
    elif not is_kind(status.st_mode):
        fault = "is a link" if stat.S_ISLNK(status.st_mode) else "is something else than was made there"
    elif status.st_mode & 0o022:
        fault = f"can be written by other users (mode {stat.S_IMODE(status.st_mode):o})"
    else:
        return
    raise UserError(f"{path} {fault}, so no lock is taken there: remove it, or set TMPDIR to a folder of your own")
