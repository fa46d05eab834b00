"""Energy over a block, where the hardware reports it.

CUDA: NVML's energy counter of that GPU (Volta and later), else its power integrated over time. CPU: RAPL, whole
packages and, where counted apart, their memory. Both cover everything that ran on the device meanwhile, not this
process alone, and neither covers fans, power supplies or the rest of the machine. None where the device does not tell:
most virtual machines, and systems that let only root read RAPL.
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import torch

POWERCAP = Path("/sys/class/powercap")
POWER_SECONDS = 0.1  # between power readings; NVML itself averages or samples at about this rate
COUNTER_SECONDS = 20.0  # between RAPL readings: the counter wraps in minutes under load


class EnergyMeter:
    """Joules that a device uses within a ``with`` block, or between `start` and `stop`.

    `joules` is None before the end, and where the device has none. Reading the counter costs under a millisecond.
    """

    def __init__(self, device: "torch.device", powercap: Path = POWERCAP):
        self._device, self._powercap = device, powercap
        self._source: EnergySource | None = None
        self.joules: float | None = None

    def start(self) -> None:
        if self._device.type == "cuda":
            self._source = nvml_source(self._device)
        elif self._device.type == "cpu":
            self._source = rapl_source(self._powercap)
        if self._source is not None:
            self._source.start()

    def stop(self) -> None:
        if self._source is not None:
            self.joules = self._source.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self.stop()


class EnergySource:
    """Adds up what `joules_since_last` gives: at the end, and every `interval` seconds where one is needed."""

    def __init__(self, joules_since_last: Callable[[], float], interval: float | None):
        self._read, self._interval = joules_since_last, interval
        self._total, self._failed = 0.0, False
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._add()
        self._total = 0.0
        if self._interval is not None:
            self._thread = threading.Thread(target=self._sample, name="energy", daemon=True)
            self._thread.start()

    def stop(self) -> float | None:
        """Return the joules since `start`, or None where the device stopped telling on the way."""
        self._done.set()
        if self._thread is not None:
            self._thread.join()
        self._add()
        return None if self._failed else self._total

    def _sample(self) -> None:
        while not self._done.wait(self._interval):
            self._add()

    def _add(self) -> None:
        try:
            self._total += self._read()
        except Exception:  # NVML and sysfs raise their own kinds, and a lost reading must not end a run of hours
            self._failed = True


def counter_reader(read: Callable[[], float], wraps_at: float | None = None) -> Callable[[], float]:
    """Return a reader of a counter's growth since its last call; `wraps_at` is where the counter starts again."""
    last: float | None = None

    def growth() -> float:
        nonlocal last
        now = read()
        before, last = now if last is None else last, now
        return now - before + (wraps_at if now < before and wraps_at else 0.0)

    return growth


def power_reader(watts: Callable[[], float], clock: Callable[[], float] = time.monotonic) -> Callable[[], float]:
    """Return a reader of the energy since its last call by the trapezoid rule over `watts`."""
    last: tuple[float, float] | None = None

    def energy() -> float:
        nonlocal last
        now = (clock(), watts())
        before, last = last or now, now
        return (now[0] - before[0]) * (now[1] + before[1]) / 2

    return energy


def rapl_source(powercap: Path = POWERCAP) -> EnergySource | None:
    """Return the energy of all processor packages, or None where no counter can be read.

    A zone ``intel-rapl:0`` is a package (AMD's too), ``intel-rapl:0:1`` a part of it, of which only memory is not
    counted in the package. ``psys`` covers the packages again and is left out.
    """
    readers = []
    for zone in sorted(powercap.glob("intel-rapl:*")):
        try:
            name, depth = (zone / "name").read_text().strip(), zone.name.count(":")
            if not ((depth == 1 and name.startswith("package")) or (depth == 2 and name == "dram")):
                continue
            wraps_at = 1e-6 * int((zone / "max_energy_range_uj").read_text())
            reader = counter_reader(lambda zone=zone: 1e-6 * int((zone / "energy_uj").read_text()), wraps_at)
            reader()
        except (OSError, ValueError):
            return None
        readers.append(reader)
    return EnergySource(lambda: sum(read() for read in readers), COUNTER_SECONDS) if readers else None


def nvml_source(device: "torch.device") -> EnergySource | None:
    """Return the energy of a GPU: its counter where it has one, else its power sampled; None without NVML."""
    import pynvml

    from replications.measurement.hardware import gpu_of, nvml_handle

    try:
        pynvml.nvmlInit()  # stays initialised: the reader is used until the process ends
        handle = nvml_handle(pynvml, gpu_of(device))
        return nvml_reader(pynvml, handle)
    except pynvml.NVMLError:
        return None


def nvml_reader(library, handle) -> EnergySource:
    """Return the source for a GPU handle; raises NVMLError where it reports neither energy nor power."""
    try:
        library.nvmlDeviceGetTotalEnergyConsumption(handle)
    except library.NVMLError:
        library.nvmlDeviceGetPowerUsage(handle)
        return EnergySource(power_reader(lambda: 1e-3 * library.nvmlDeviceGetPowerUsage(handle)), POWER_SECONDS)
    return EnergySource(counter_reader(lambda: 1e-3 * library.nvmlDeviceGetTotalEnergyConsumption(handle)), None)
