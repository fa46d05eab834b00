"""The machine: its processor and accelerators, their peak arithmetic rate, and the choice of a device.

Counting and naming accelerators goes through NVML, so the planner can do it without importing torch and without
creating a CUDA context.
"""

import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from replications.errors import UserError

if TYPE_CHECKING:
    import torch

# Peak dense rates in TFLOP/s: bf16 and tf32 on the tensor cores with float32 accumulation, float32 on the CUDA cores.
# Vendors print the rate with 2:4 sparsity first, which is twice the dense one; the dense one is what a training step
# can reach. None: the device has no such mode. Sources are NVIDIA's data sheets unless a whitepaper is named. A name
# matches as a whole, so that a laptop part, a cut-down "D" or a MIG slice does not pass for the full device.
PEAK_TFLOPS: dict[str, tuple[float | None, float | None, float | None]] = {
    # pattern on the name without vendor and brand: (bf16, tf32, float32)
    r"B200": (2250, 1125, 75),  # HGX B200: a board of eight has 36 PFLOP/s bf16 with sparsity, 600 TFLOP/s float32
    r"GH200 .*": (990, 494, 67),
    r"H200": (989.4, 494.7, 66.9),  # SXM; the chip is the H100's
    r"H200 NVL": (835.5, 417.7, 60),
    r"H100 \d+GB HBM[23]": (989.4, 494.7, 66.9),  # SXM5; H100 architecture whitepaper, table 2
    r"H100 PCIe": (756.5, 378, 51.2),
    r"H100 NVL": (835.5, 417.7, 60),
    r"A100[- ].*": (312, 156, 19.5),  # SXM4 and PCIe have the same peak
    r"A800[- ].*": (312, 156, 19.5),
    r"A40": (149.7, 74.8, 37.4),
    r"A30": (165, 82, 10.3),
    r"A10": (125, 62.5, 31.2),
    r"L40S": (362.05, 183, 91.6),
    r"L40": (181.05, 90.5, 90.5),
    r"L4": (121, 60, 30.3),
    r"T4": (None, None, 8.1),
    r"V100-SXM[23]-.*": (None, None, 15.7),
    r"V100-PCIE-.*": (None, None, 14),
    r"V100S-PCIE-.*": (None, None, 16.4),
    r"RTX A6000": (154.8, 77.4, 38.7),
    r"RTX 6000 Ada Generation": (364.2, 182.1, 91.1),
    r"RTX 5090": (209.5, 104.8, 104.8),  # RTX Blackwell whitepaper
    r"RTX 4090": (165.2, 82.6, 82.6),  # Ada whitepaper, appendix A
    r"RTX 4080": (97.5, 48.7, 48.7),
    r"RTX 3090 Ti": (80, 40, 40),
    r"RTX 3090": (71, 35.6, 35.6),  # GA102 whitepaper, appendix A
    r"RTX 3080": (59.5, 29.8, 29.8),
    r"RTX 2080 Ti": (None, None, 13.4),  # Turing whitepaper, reference clock
}
PRECISIONS = ("bf16", "tf32", "float32")


@dataclass(frozen=True)
class DeviceDescription:
    """A device as a record names it. `memory_bytes` is the accelerator's own memory, or the machine's for 'cpu'."""

    kind: str
    name: str
    memory_bytes: int
    capability: str | None = None


def peak_flops(device_name: str, precision: str) -> float | None:
    """Return the peak dense rate of a device in FLOP/s (one multiply-add is two), or None where it is not known.

    `precision` is a recipe's: ``float32``, ``tf32`` or ``bf16``. CPUs are never known: their clock under load is not.
    """
    column = PRECISIONS.index(precision)
    model = re.sub(r"^(NVIDIA |Tesla |GeForce )+", "", device_name)
    for pattern, rates in PEAK_TFLOPS.items():
        rate = rates[column]
        if "MIG" not in model and re.fullmatch(pattern, model):
            return None if rate is None else rate * 1e12
    return None


@cache
def cpu_model() -> str:
    """Return the processor's name, 'unknown' where the system does not report it."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found.group(1).strip() if found else platform.processor() or platform.machine() or "unknown"


def cpu_count() -> int:
    """Return how many logical processors this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_bytes() -> int:
    """Return the machine's memory in bytes."""
    import psutil

    return psutil.virtual_memory().total


@contextmanager
def nvml() -> Iterator[ModuleType | None]:
    """Give NVML for a block, or None where there is no driver (or one too broken to answer)."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield None
        return
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def visible_gpus() -> list[str]:
    """Return the accelerators this process may use, as CUDA_VISIBLE_DEVICES names them: indices or UUIDs.

    Like CUDA itself, an entry of CUDA_VISIBLE_DEVICES that names no device hides what follows it.
    """
    with nvml() as library:
        count = library.nvmlDeviceGetCount() if library else 0
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None or not count:
        return [str(index) for index in range(count)]
    visible = []
    for entry in (part.strip() for part in chosen.split(",")):
        if not re.fullmatch(r"(GPU|MIG)-\S+", entry) and not (entry.isdecimal() and int(entry) < count):
            break
        visible.append(entry)
    return visible


def count_gpus() -> int:
    """Return how many CUDA devices this process may use, without importing torch. 0 without a driver."""
    return len(visible_gpus())


def gpu_name(gpu: str) -> str | None:
    """Return the name of an accelerator given as in `visible_gpus`, or None where NVML does not know it."""
    with nvml() as library:
        if library is None:
            return None
        try:
            name = library.nvmlDeviceGetName(nvml_handle(library, gpu))
        except library.NVMLError:
            return None
    return name if isinstance(name, str) else name.decode()


def gpu_uuid(gpu: str) -> str:
    """Return the UUID of an accelerator given as in `visible_gpus`: it means the same to every process of a machine.

    Two jobs may each see their own GPU as index 0, and CUDA takes the beginning of a UUID for it. What NVML does
    not know is returned as it is.
    """

    def text(name: str | bytes) -> str:
        return name if isinstance(name, str) else name.decode()

    with nvml() as library:
        if library is None or gpu.startswith("MIG-"):
            return gpu
        try:
            if gpu.isdecimal():
                return text(library.nvmlDeviceGetUUID(nvml_handle(library, gpu)))
            handles = map(library.nvmlDeviceGetHandleByIndex, range(library.nvmlDeviceGetCount()))
            found = [uuid for uuid in map(text, map(library.nvmlDeviceGetUUID, handles)) if uuid.startswith(gpu)]
        except library.NVMLError:
            return gpu
    return found[0] if len(found) == 1 else gpu


def nvml_handle(library: ModuleType, gpu: str):
    """Return NVML's handle of an accelerator given by index or UUID; raises NVMLError for an unknown one."""
    if gpu.isdecimal():
        return library.nvmlDeviceGetHandleByIndex(int(gpu))
    return library.nvmlDeviceGetHandleByUUID(gpu)


def gpu_of(device: "torch.device") -> str:
    """Return which of the machine's accelerators a CUDA device is, as NVML finds it: its UUID.

    NVML counts by PCI bus and knows nothing of CUDA_VISIBLE_DEVICES, CUDA counts the fastest first: only the UUID
    means the same to both.
    """
    import torch

    uuid = str(torch.cuda.get_device_properties(device).uuid)
    return uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"


def describe_device(device: "torch.device") -> DeviceDescription:
    """Describe the device that a run uses. For CUDA this creates a context on it."""
    if device.type == "cuda":
        import torch

        properties = torch.cuda.get_device_properties(device)
        capability = f"{properties.major}.{properties.minor}"
        return DeviceDescription("cuda", properties.name, properties.total_memory, capability)
    return DeviceDescription(device.type, cpu_model() if device.type == "cpu" else device.type, memory_bytes())


def resolve_device(name: str) -> "torch.device":
    """Turn a person's choice into a device: ``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or ``cuda:1``.

    Raises UserError for another word, and for CUDA where this machine or this build of torch has none: a run asked
    to be on a GPU never falls back to the CPU.
    """
    import torch

    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    found = re.fullmatch(r"cuda(?::(\d+))?", name)
    if not found:
        raise UserError(f"unknown device '{name}': give auto, cpu, cuda or cuda:<index>")
    if not torch.backends.cuda.is_built():
        raise UserError(f"device '{name}': this build of torch has no CUDA; install the CUDA build or use device=cpu")
    index, count = int(found.group(1) or 0), torch.cuda.device_count()
    if index >= count:
        there = f"only {count} GPU{'s are' if count > 1 else ' is'} visible" if count else "no GPU is visible"
        raise UserError(f"device '{name}': {there} here; use device=cpu, or check the driver and CUDA_VISIBLE_DEVICES")
    return torch.device("cuda", index)
