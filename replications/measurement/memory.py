"""Peak memory of one run: what the device had to hold between two points in time.

On the CPU that is the resident set of this process, interpreter and libraries included (some 300 MB with torch): the
figure that decides whether a run fits into the machine. On CUDA it is what torch's allocator had given out. Several
runs may share a process, so the kernel's high-water mark is set back before each.
"""

import ctypes
import gc
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")
OUT_OF_MEMORY_SIGNS = ("DefaultCPUAllocator: can't allocate memory", "not enough memory", "STATUS_ALLOC_FAILED")
MALLOPT = {"trim threshold": -1, "mmap threshold": -3}  # the numbers of glibc's malloc.h
KEPT_BYTES = 2**30
RESET_HIGH_WATER_MARK = "5"  # proc(5): "sets the peak resident set size to the current value"


def keep_freed_memory(device: "torch.device") -> None:
    """Have glibc keep what a step on the CPU frees for the next step, instead of giving it back to the system.

    A training step frees all its activations. Where the allocator returns their pages, the next step gets them again,
    zeroed and one page fault after the other, which can be half of a step's time. It holds for the whole process; other
    C libraries are left as they are.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if device.type == "cpu" and set_option is not None:
        for option in MALLOPT.values():
            set_option(option, KEPT_BYTES)


def reset_peak_memory(device: "torch.device") -> None:
    """Begin a bracket: what was freed before it no longer counts.

    Freed memory that the allocator still holds is given back first, so a run's peak does not depend on the run before
    it in the same process. Where the kernel does not let the mark be set back (other systems, some containers),
    `peak_memory` is the peak of the whole process: an upper bound.
    """
    gc.collect()
    if device.type == "cuda":
        import torch

        torch.cuda.init()  # the allocator has no statistics to reset before
        torch.cuda.reset_peak_memory_stats(device)
        return
    _return_freed_memory()
    try:
        CLEAR_REFS.write_text(RESET_HIGH_WATER_MARK)
    except OSError:
        return


def peak_memory(device: "torch.device") -> int:
    """Return the peak since `reset_peak_memory` in bytes: resident set on the CPU, allocated on CUDA."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    try:
        return 1024 * int(re.search(r"^VmHWM:\s+(\d+) kB$", STATUS.read_text(), re.MULTILINE).group(1))
    except OSError:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak  # bytes on macOS, KiB elsewhere


def _return_freed_memory() -> None:
    """Have glibc hand the free pages of its heaps back to the system; other C libraries have no such call."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory did not suffice, on the host or on the device.

    torch has a class for it on CUDA only; libraries below it speak in their own codes.
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(sign in text for sign in OUT_OF_MEMORY_SIGNS)
