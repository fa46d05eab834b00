"""Time, memory, FLOPs and energy of a method's training step and of its inference, measured in this process.

A training step is the loop's own (`replications.training.update`) on one fixed batch on the device: loading
and augmentation are not in it, and what data costs, each run records.
"""

import math
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from replications.measurement.energy import EnergyMeter
from replications.measurement.flops import FlopCount, count_flops
from replications.measurement.load import BackgroundLoad
from replications.measurement.memory import peak_memory, reset_peak_memory
from replications.measurement.protocol import Effort, Measurement
from replications.spec import Recipe
from replications.training.batches import part_of
from replications.training.determinism import deterministic, float32_precision
from replications.training.distribution import Distribution
from replications.training.meter import Meter
from replications.training.moves import norm_names
from replications.training.stage import Batch, Stage, Workload
from replications.training.update import Updater

STAMP_SECONDS = 0.01  # shorter steps share a stamp: the clock and the synchronisation would show in them
STILL = 1e-6  # factor on the rate: a batch seen a thousand times must neither diverge nor be memorised
UNENDING = 10**9
FLUSH_STEPS = 10  # between looks at the losses, as in the loop on an accelerator


def measure(workload: Workload, effort: Effort, halvings: int = 0, *, gpu_load: float | None = None) -> Measurement:
    """Measure a workload, alone in its process and on its device. Afterwards its module is of no further use.

    `halvings` cuts the batches in half so many times. Determinism and precision are the loop's. `gpu_load` is how busy
    others kept the GPU before this process used it. Raises RunFailure ``diverged``, and what memory and model raise.
    """
    device, halved = workload.device, _halved(workload.stage.recipe, halvings)
    size = halved.batch_size
    batch = {name: value[:size].to(device) for name, value in workload.batch.items()}
    stage = replace(workload.stage, recipe=halved, batches=_FixedBatch(batch, size))
    module = stage.module.to(device)
    if halved.channels_last:
        module.to(memory_format=torch.channels_last)
    with deterministic(not stage.nondeterministic), float32_precision(halved.precision), BackgroundLoad() as load:
        train_flops = _count_training(stage, batch, device)
        reset_peak_memory(device)
        training = Stopwatch(effort, device)
        _train(stage, training, device)
        train_memory = peak_memory(device)

        module.eval()
        samples = max(1, workload.inference_batch_size >> halvings)
        reset_peak_memory(device)
        with torch.no_grad():
            inference_flops = count_flops(lambda: workload.infer(module, samples))
            inference = Stopwatch(effort, device)
            while not inference.lap():
                workload.infer(module, samples)
        inference_memory = peak_memory(device)
    return Measurement(
        batch_size=size,
        inference_batch_size=samples,
        train_step_seconds=training.seconds,
        inference_step_seconds=inference.seconds,
        train_memory=train_memory,
        inference_memory=inference_memory,
        train_flops=train_flops.total / size,
        inference_flops=inference_flops.total / samples,
        uncounted=tuple(sorted({*train_flops.uncounted, *inference_flops.uncounted})),
        train_joules=None if training.joules is None else training.joules / training.steps / size,
        background_load=load.share if gpu_load is None else max(gpu_load, load.share or 0.0),
    )


def _halved(recipe: Recipe, halvings: int) -> Recipe:
    """Return the recipe with a smaller batch, still a multiple of the micro-batches, and weights that stay in place."""
    batch_size = max(1, recipe.batch_size // recipe.accumulate >> halvings) * recipe.accumulate
    return recipe.model_copy(update={"batch_size": batch_size, "lr": recipe.lr * STILL})


def _count_training(stage: Stage, batch: Batch, device: torch.device) -> FlopCount:
    """Count the forward and backward passes of one step's moves; the optimisers work element by element."""
    module = stage.module.train()
    if hasattr(module, "on_step"):
        module.on_step(0, UNENDING)
    updater = _updater(replace(stage, recipe=stage.recipe.model_copy(update={"compile": False})), device)

    def forward_and_backward() -> None:
        for move in updater.moves:
            for _ in range(move.times):
                updater.losses(batch, move)["loss"].backward()

    count = count_flops(forward_and_backward)
    updater.release()
    return count


def _train(stage: Stage, watch: "Stopwatch", device: torch.device) -> None:
    updater = _updater(stage, device)
    step = 0
    while not watch.lap():
        updater.take(step)
        step += 1
        if step % FLUSH_STEPS == 0:
            updater.meter.flush(step, stage.name)


def _updater(stage: Stage, device: torch.device) -> Updater:
    meter = Meter(FLUSH_STEPS, device, Distribution(), norm_names(stage))
    return Updater(stage, device, Distribution(), UNENDING, meter)


class _FixedBatch:
    """One batch for every step (`replications.training.stage.Batches`)."""

    def __init__(self, batch: Batch, batch_size: int):
        self.samples = self.batch_size = batch_size
        self._batch = batch

    def batch(self, step: int, part: int = 0, parts: int = 1) -> Batch:
        own = part_of(self.batch_size, part, parts)
        return {name: value[own] for name, value in self._batch.items()}


class Stopwatch:
    """Stamps repeated steps: `seconds` has one value a stamp, the time of one step.

    The device is synchronised before every stamp. Steps shorter than `STAMP_SECONDS` are stamped in groups, each giving
    their mean. `steps` counts the stamped ones and `joules` is their energy, None where the device does not report it.
    """

    def __init__(self, effort: Effort, device: torch.device, clock: Callable[[], float] = time.perf_counter):
        self.seconds: list[float] = []
        self.steps = 0
        self.joules: float | None = None
        self._effort, self._device, self._clock = effort, device, clock
        self._meter = EnergyMeter(device)
        self._warm_up_left = max(1, effort.warmup)  # the first step allocates, and tells how long a step is
        self._group, self._since_stamp = 1, -1
        self._stamp = 0.0

    def lap(self) -> bool:
        """Note that a step begins, and with it that the one before is over; true when enough are measured."""
        self._since_stamp += 1
        if 0 < self._since_stamp < self._group:
            return False
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = self._clock()
        if self._since_stamp > 0 and self._close_group((now - self._stamp) / self._since_stamp):
            self._meter.stop()
            self.joules = self._meter.joules
            return True
        self._since_stamp = 0
        self._stamp = self._clock()
        return False

    def _close_group(self, seconds: float) -> bool:
        if self._warm_up_left:
            self._warm_up_left -= 1
            if not self._warm_up_left:
                self._group = max(1, math.ceil(STAMP_SECONDS / max(seconds, 1e-9)))
                self._meter.start()
            return False
        self.seconds.append(seconds)
        self.steps += self._group
        return len(self.seconds) >= self._effort.stamps and sum(self.seconds) * self._group >= self._effort.seconds
