"""Whether a device was idle but for us while it was measured."""

import os
import time
from typing import Self

import psutil

from replications.measurement.hardware import nvml, nvml_handle


class BackgroundLoad:
    """Share of the machine's processors that others kept busy during a ``with`` block, as `share` in [0, 1].

    Time stolen by a hypervisor counts as theirs. `share` is None before the block has ended. The kernel counts in
    hundredths of a second, so a block should last a good part of a second.
    """

    def __init__(self):
        self.share: float | None = None

    def __enter__(self) -> Self:
        self._begun = self._now()
        return self

    def __exit__(self, *_) -> None:
        wall, busy, own = (after - before for after, before in zip(self._now(), self._begun, strict=True))
        self.share = min(1.0, max(0.0, (busy - own) / (wall * (os.cpu_count() or 1)))) if wall > 0 else None

    @staticmethod
    def _now() -> tuple[float, float, float]:
        """Return wall time, the machine's busy time and that of this process and its children, in seconds."""
        times = psutil.cpu_times()._asdict()
        # The kernel counts a guest's time within user time as well.
        idle = ("idle", "iowait", "guest", "guest_nice")
        busy = sum(seconds for name, seconds in times.items() if name not in idle)
        ended = os.times()  # of children that have ended, such as those that read data
        return time.perf_counter(), busy, time.process_time() + ended.children_user + ended.children_system


def gpu_load(gpu: str) -> float | None:
    """Return the share of the last moments in which a GPU ran a kernel, None where NVML does not report it.

    Ask before this process uses the GPU: then it is the others'.
    """
    with nvml() as library:
        if library is None:
            return None
        try:
            return library.nvmlDeviceGetUtilizationRates(nvml_handle(library, gpu)).gpu / 100
        except library.NVMLError:
            return None
