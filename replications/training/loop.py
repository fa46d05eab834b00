"""The training loop: the only one, for every task."""

import json
import math
import resource
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import nn

from replications.errors import RunFailure, UserError, nearest
from replications.progress import Progress, progress
from replications.records import HistoryPoint
from replications.spec import Recipe
from replications.training.batches import part_of
from replications.training.checkpoint import Checkpoints, State
from replications.training.determinism import (
    deterministic,
    float32_precision,
    preserved_rng,
    rng_state,
    seed_everything,
    set_rng_state,
)
from replications.training.distribution import Distribution
from replications.training.interruption import Interruption
from replications.training.meter import Meter
from replications.training.moves import norm_names
from replications.training.stage import Stage, StageResult
from replications.training.update import Updater

HISTORY_POINTS = 100  # of the training losses, at most
CHECK_STEPS = 10  # steps between waits for an accelerator, to look at losses, signals and the clock
BAR_SECONDS = 0.1


def train(
    stage: Stage,
    *,
    work: Path,
    seed: int,
    device: torch.device | str,
    distribution: Distribution | None = None,
    on_progress: Callable[[HistoryPoint, int], None] | None = None,
) -> StageResult:
    """Train a stage; or continue it from its checkpoint in `work`; or load it, where it is finished.

    Killed at any step and called again with the same arguments (and an equally built module), it ends with the same
    bits: weights, history and what `validate` returned. Everything random starts from (`seed`, stage name), and the
    caller's random generators are left as they were, so it makes no difference to what follows whether the stage
    was trained, continued or loaded. What a module changes as it trains must be in its ``state_dict`` (or be set by
    ``on_step``).

    At the end the module is on `device`, in eval mode, with the best weights (``recipe.select``), else the averaged
    ones (``recipe.ema``), else the last. `on_progress` gets each `HistoryPoint` and the number of all steps.

    Raises RunFailure: ``diverged`` (a loss, a gradient norm, a validation metric or a weight is not finite),
    ``out of memory``, ``interrupted`` (SIGINT or SIGTERM; a checkpoint is written first). Raises UserError for a recipe
    that does not fit the data and for a checkpoint that cannot be written or belongs to another recipe.
    """
    distribution = distribution or Distribution()
    device = torch.device(device)
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    with ExitStack() as settings:
        settings.enter_context(deterministic(not stage.nondeterministic))
        settings.enter_context(float32_precision(stage.recipe.precision))
        settings.enter_context(preserved_rng(device))
        seed_everything(seed, "train", stage.name, distribution.rank)
        return _Training(stage, Path(work), seed, device, distribution, on_progress).run()


def count_steps(recipe: Recipe, samples: int) -> int:
    """Return how many steps a recipe has on a training set; an epoch is ``samples // batch_size`` of them."""
    return recipe.steps or max(1, round(recipe.epochs * (samples // recipe.batch_size)))


class _Training:
    """A stage on its way: what a checkpoint holds, and what a step needs."""

    def __init__(
        self,
        stage: Stage,
        work: Path,
        seed: int,
        device: torch.device,
        distribution: Distribution,
        on_progress: Callable[[HistoryPoint, int], None] | None,
    ):
        recipe = stage.recipe
        self.stage, self.recipe, self.seed, self.device = stage, recipe, seed, device
        self.distribution, self.on_progress = distribution, on_progress
        self.parts = distribution.world_size * recipe.accumulate
        _check_stage(stage, self.parts)
        self.steps_per_epoch = stage.batches.samples // recipe.batch_size
        self.total_steps = count_steps(recipe, stage.batches.samples)
        self.log_steps = math.ceil(self.total_steps / HISTORY_POINTS)
        self.validate_steps = (
            max(1, round(recipe.validate_every * self.steps_per_epoch)) if recipe.validate_every else self.total_steps
        )
        every_step = device.type == "cpu" or recipe.checkpoint_seconds == 0
        self.check_steps = 1 if every_step else CHECK_STEPS
        self.where = f"stage '{stage.name}'"
        self.checkpoints = Checkpoints(work, stage.name)
        self.module = stage.module.to(device)
        if recipe.channels_last:
            self.module.to(memory_format=torch.channels_last)

        self.step = self.validated_step = 0
        self.seconds = self.data_wait_seconds = 0.0
        self.peak_memory: int | None = None
        self.resumed = 0
        self.history: list[HistoryPoint] = []
        self.best: dict[str, Any] | None = None  # value, step, weights

    def run(self) -> StageResult:
        saved = self.checkpoints.read()
        if saved is not None:
            self._load_progress(saved)
        if saved is None or not saved["finished"]:
            try:
                with Interruption() as interruption:
                    self._prepare(saved)
                    self._train(interruption)
                    self._finish()
                    # Since the last look: at the last step, in its checkpoint, or in the one of the finished stage.
                    if self.distribution.any(interruption.requested is not None)[0]:
                        raise interruption.failure(f"{self.where}, finished")
            except (MemoryError, RuntimeError) as error:
                if not _is_out_of_memory(error):
                    raise
                raise self._out_of_memory() from error
        else:
            self.module.load_state_dict(saved["module"])
        self.module.eval()
        return StageResult(
            steps=self.total_steps,
            samples=self.total_steps * self.recipe.batch_size,
            seconds=self.seconds,
            data_wait_seconds=self.data_wait_seconds,
            peak_memory_bytes=self.peak_memory,
            resumed=self.resumed,
            history=self.history,
        )

    def _prepare(self, saved: State | None) -> None:
        rows = min(self.check_steps, self.log_steps)
        self.meter = Meter(rows, self.device, self.distribution, norm_names(self.stage))
        self.updater = Updater(self.stage, self.device, self.distribution, self.total_steps, self.meter)
        if saved is not None:
            self.resumed += 1
            self.best = saved["best"]
            self.updater.load_state_dict(saved["training"])
            set_rng_state(saved["rng"][self.distribution.rank], self.device)

    def _train(self, interruption: Interruption) -> None:
        self.module.train()
        batches = self.stage.batches
        with ExitStack() as around:
            self.bar: Progress | None = None
            if self.distribution.is_first:
                self.bar = around.enter_context(progress(self.stage.name, self.total_steps, "steps", self.step))
            if hasattr(batches, "begin"):
                batches.begin(self.total_steps * self.updater.batches_per_step, self.updater.own_parts)
                around.callback(batches.end)
            self.shown_step = self.logged_step = self.step
            self.shown_at = self.logged_at = self.clock = time.perf_counter()
            self.saved_at = time.monotonic()
            while True:
                if self._validation_due():
                    self._validate(interruption)
                if self.step == self.total_steps:
                    break
                self.updater.take(self.step)
                self.step += 1
                if self._check_due(interruption):
                    self._check(interruption)

    # Between steps

    def _check_due(self, interruption: Interruption) -> bool:
        # A process of several must not look on its own account: the others would not join it.
        alone = self.distribution.world_size == 1
        return (
            self.step % self.check_steps == 0
            or self.step % self.log_steps == 0
            or self.step == self.total_steps
            or self._validation_due()
            or (alone and interruption.requested is not None)
        )

    def _check(self, interruption: Interruption) -> None:
        """Look at the losses, log, move the bar, write a checkpoint where one is due, and stop where asked to."""
        self.meter.flush(self.step, self.where)  # waits for the device, so the clock is right after it
        now = time.perf_counter()
        self.seconds += now - self.clock
        if self.step % self.log_steps == 0 or self.step == self.total_steps:
            self._log(now)
        if self.bar is not None and (now - self.shown_at > BAR_SECONDS or self.step == self.total_steps):
            self.bar.advance(self.step - self.shown_step)
            self.shown_at, self.shown_step = now, self.step
        due = time.monotonic() - self.saved_at >= self.recipe.checkpoint_seconds
        stop, due = self.distribution.any(interruption.requested is not None, due)
        if stop or due:
            self._save()
        if stop:
            raise interruption.failure(f"{self.where}, step {self.step} of {self.total_steps}")
        self.clock = time.perf_counter()

    def _log(self, now: float) -> None:
        values = {**self.meter.take_means(), "lr": self.updater.learning_rate}
        self._add_point("train", values)
        if self.bar is not None:
            samples = (self.step - self.logged_step) * self.recipe.batch_size
            rate = samples / (now - self.logged_at)
            self.bar.describe(f"loss {values['loss']:.4g} lr {values['lr']:.3g} {rate:.0f} samples/s")
        self.logged_at, self.logged_step = now, self.step

    def _add_point(self, split: str, values: dict[str, float]) -> None:
        epoch = self.step / self.steps_per_epoch
        point = HistoryPoint(stage=self.stage.name, step=self.step, epoch=epoch, split=split, values=values)
        self.history.append(point)
        if self.on_progress is not None and self.distribution.is_first:
            self.on_progress(point, self.total_steps)

    def _validation_due(self) -> bool:
        return (
            self.stage.validate is not None
            and self.step > self.validated_step
            and (self.step % self.validate_steps == 0 or self.step == self.total_steps)
        )

    def _validate(self, interruption: Interruption) -> None:
        module = self.updater.evaluated.eval()
        try:
            interruption.immediate = self.distribution.world_size == 1
            if interruption.immediate and interruption.requested is not None:
                raise KeyboardInterrupt  # since the last look, in a checkpoint perhaps
            # Its own seed, and the training's generators untouched: how often one validates changes nothing else.
            with preserved_rng(self.device), torch.no_grad():
                seed_everything(self.seed, "validate", self.stage.name, self.step)
                values = {name: float(value) for name, value in self.stage.validate(module).items()}
        except KeyboardInterrupt:
            interruption.immediate = False
            self._save()
            raise interruption.failure(f"{self.where}, validation at step {self.step}") from None
        interruption.immediate = False
        self.module.train()
        values = self.distribution.from_first(values)
        for name, value in values.items():
            if not math.isfinite(value):
                raise RunFailure("diverged", f"{self.where}: validation {name} is {value} at step {self.step}")
        self._add_point("validation", values)
        if self.recipe.select == "best":
            self._keep_best(module, values)
        self.validated_step = self.step
        self.clock = time.perf_counter()

    def _keep_best(self, module: nn.Module, values: dict[str, float]) -> None:
        metric = self.stage.select_metric
        if metric not in values:
            raise UserError(f"{self.where}: validation returns no '{metric}' to select by{nearest(metric, values)}")
        sign = 1 if self.stage.higher_is_better else -1
        if self.best is None or sign * values[metric] > sign * self.best["value"]:
            weights = {name: tensor.to("cpu", copy=True) for name, tensor in module.state_dict().items()}
            self.best = {"value": values[metric], "step": self.step, "weights": weights}

    def _finish(self) -> None:
        if self.best is not None:
            self.module.load_state_dict(self.best["weights"])
        elif self.updater.averaged is not None:
            self.module.load_state_dict(self.updater.averaged.module.state_dict())
        self.distribution.share_buffers(self.module)
        norms = torch.stack(torch._foreach_norm([p.detach() for p in self.module.parameters()]))
        if not norms.isfinite().all():
            raise RunFailure("diverged", f"{self.where}: weights are not finite after step {self.step}")
        state = {**self._progress_state(), "finished": True, "module": self.module.state_dict()}
        if self.distribution.is_first:
            self.checkpoints.write(state, keep_previous=False)

    # Checkpoints

    def _save(self) -> None:
        generators = self.distribution.gather(rng_state(self.device))
        if self.distribution.is_first:
            self.checkpoints.write(
                {
                    **self._progress_state(),
                    "finished": False,
                    "training": self.updater.state_dict(),
                    "best": self.best,
                    "rng": generators,
                }
            )
        self.saved_at = time.monotonic()

    def _progress_state(self) -> State:
        self.peak_memory = max(self.peak_memory or 0, _peak_memory(self.device))
        self.data_wait_seconds = self.updater.data_wait_seconds
        return {
            "identity": self._identity(),
            "step": self.step,
            "validated_step": self.validated_step,
            "seconds": self.seconds,
            "data_wait_seconds": self.data_wait_seconds,
            "peak_memory": self.peak_memory,
            "resumed": self.resumed,
            "history": [point.model_dump() for point in self.history],
        }

    def _load_progress(self, saved: State) -> None:
        for key, value in self._identity().items():
            if saved["identity"].get(key) != value:
                raise UserError(
                    f"checkpoint {self.checkpoints.latest} is of another training ({key} was "
                    f"{saved['identity'].get(key)}, now {value}): delete its folder to train from scratch"
                )
        self.step, self.validated_step = saved["step"], saved["validated_step"]
        self.seconds, self.data_wait_seconds = saved["seconds"], saved["data_wait_seconds"]
        self.peak_memory, self.resumed = saved["peak_memory"], saved["resumed"]
        self.history = [HistoryPoint(**point) for point in saved["history"]]

    def _identity(self) -> dict[str, str]:
        """Return what must be the same for a checkpoint to be continued."""
        shapes = {name: list(parameter.shape) for name, parameter in self.module.named_parameters()}
        identity = {
            "seed": self.seed,
            "steps": self.total_steps,
            "samples": self.stage.batches.samples,
            "processes": self.distribution.world_size,
            "device": self.device.type,
            **self.recipe.model_dump(mode="json", exclude={"checkpoint_seconds"}),
            "parameters": shapes,
            "turns": [[turn.name, turn.part, dict(turn.recipe), turn.times] for turn in self.stage.turns],
        }
        return {key: json.dumps(value, sort_keys=True) for key, value in identity.items()}

    def _out_of_memory(self) -> RunFailure:
        recipe, peak = self.recipe, _peak_memory(self.device) / 2**30
        return RunFailure(
            "out of memory",
            f"{self.where}: out of {self.device.type} memory at step {self.step + 1} (batch of {recipe.batch_size} in "
            f"{self.parts} parts, {peak:.1f} GiB at the peak); set the recipe's accumulate to {2 * recipe.accumulate}, "
            "or a smaller batch_size",
        )


def _check_stage(stage: Stage, parts: int) -> None:
    recipe, batches = stage.recipe, stage.batches
    if batches.batch_size != recipe.batch_size:
        raise UserError(
            f"stage '{stage.name}': batches of {batches.batch_size}, but the recipe says {recipe.batch_size}"
        )
    if batches.samples < recipe.batch_size:
        raise UserError(f"stage '{stage.name}': batch_size {recipe.batch_size}, but only {batches.samples} samples")
    part_of(recipe.batch_size, 0, parts)
    if recipe.select == "best" and (stage.validate is None or stage.select_metric is None):
        raise UserError(f"stage '{stage.name}': 'select: best' needs a validation and the metric to select by")


def _is_out_of_memory(error: BaseException) -> bool:
    text = str(error)
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "DefaultCPUAllocator: can't allocate" in text


def _peak_memory(device: torch.device) -> int:
    """Return the most bytes allocated on a CUDA device so far, or the process's largest resident set."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
