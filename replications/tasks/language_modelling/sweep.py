"""What length costs: a training step of one sequence at each length, beside softmax attention of the same size.

The method and the two references are timed in turn, in one process a length, so that what else the machine does falls
on all of them alike; the fastest step counts, since the rest of the machine only ever adds. Of the runs that share a
machine one sweeps at a time: two would want its memory at once. The references are this task's own: a pre-norm
Transformer of the tier's width, depth and heads, its attention fused (`sdpa`) or materialised (`naive`). Out of memory
is an answer: that length is missing, and said so.
"""

import gc
import multiprocessing
import os
import pickle
import signal
import statistics
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from replications.layers.text.attention import SoftmaxAttention
from replications.layers.text.blocks import FeedForward
from replications.layers.text.model import SequenceModel, residual_model
from replications.measurement.lease import in_turn
from replications.measurement.memory import is_out_of_memory, peak_memory, reset_peak_memory
from replications.measurement.process import die_with_parent
from replications.measurement.sweep import crossover, fit_power_law
from replications.tasks.language_modelling.data import BYTES
from replications.tasks.language_modelling.options import SweepOptions
from replications.tasks.run import Context
from replications.training.determinism import deterministic, float32_precision

PAGE = 4096
WARM_UP = 32
DECODE_BATCH = 8
DECODE_STEPS = 16
SECONDS_A_LENGTH = 0.8  # of timed steps; short ones are repeated, up to MOST_STAMPS times
MOST_STAMPS = 20
REFERENCES = ("sdpa", "naive")


@dataclass
class Sweep:
    """Metrics, and in `extra` their intervals and the figures by model and length."""

    metrics: dict[str, float] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)


def reference_model(attention: str, vocabulary: int, width: int, depth: int, heads: int) -> SequenceModel:
    """Return the Transformer that methods are timed against."""
    return residual_model(
        lambda: SoftmaxAttention(width, heads, True, attention), depth, vocabulary, None,
        width=width, norm="layer", feed_forward=lambda: FeedForward(width),
    )  # fmt: skip


def length_sweep(context: Context, options: SweepOptions) -> Sweep:
    """Measure the method of a run and the references at each length; see `summarise` for what comes of it."""
    shared = context.spec.options
    size = {name: shared[name] for name in ("width", "depth", "heads")}
    points: dict[str, dict[int, dict[str, float | None]]] = {"method": {}, **{name: {} for name in REFERENCES}}
    for n in options.lengths:
        # as a run would build it for that length: what depends on the training length is right at every point
        models = {"method": context.build("sweep", vocabulary=BYTES + 1, length=n, causal=True, num_classes=None)}
        for name in REFERENCES:
            if name == "sdpa" or n <= options.naive_up_to:
                models[name] = reference_model(name, BYTES + 1, **size)
        precision = context.spec.recipe.precision
        arguments = (models, n, options.stamps, context.device.type, precision)
        if options.isolated:
            with in_turn("sweep", "the length sweep of another run to end"):
                found = _in_fresh_process(*arguments, memory=options.memory_limit_gib)
        else:
            gc.freeze()  # each look at the memory collects garbage, which takes long where much else is alive
            found = _measure(*arguments)
            gc.unfreeze()
        for name, point in found.items():
            points[name][n] = point
    swept = summarise(points)
    swept.extra["settings"] = {"deterministic": True, "precision": context.spec.recipe.precision}
    return swept


def summarise(points: dict[str, dict[int, dict[str, float | None]]]) -> Sweep:
    """Fit exponents, speed-ups and crossovers to points ``model -> length -> {seconds, bytes, token_seconds}``.

    A crossover is a metric only where the fit tells one; its interval, open ends as None, is in `extra`.
    """
    found = Sweep(extra={"points": points})
    method = points["method"]
    for metric, quantity in (
        ("step_exponent", "seconds"), ("memory_exponent", "bytes"), ("decode_exponent", "token_seconds"),
    ):  # fmt: skip
        known = {n: point[quantity] for n, point in method.items() if point.get(quantity)}
        if len(known) >= 3:
            fit = fit_power_law(list(known), list(known.values()))
            found.metrics[metric] = fit.exponent
            found.extra[metric] = {"low": fit.low, "high": fit.high}
    timed = {n: point["seconds"] for n, point in method.items() if point["seconds"]}
    if timed:
        found.metrics["step_tokens_per_second"] = max(timed) / timed[max(timed)]
    for name in REFERENCES:
        other = {n: point["seconds"] for n, point in points[name].items() if point["seconds"] and n in timed}
        if not other:
            continue
        longest = max(other)
        found.metrics[f"speedup_{name}"] = other[longest] / timed[longest]
        if name == "sdpa":
            found.metrics["memory_ratio_sdpa"] = method[longest]["bytes"] / points[name][longest]["bytes"]
        if len(other) >= 3:
            lengths = list(other)
            meeting = crossover(lengths, [timed[n] for n in lengths], list(other.values()))
            if meeting is not None and min(lengths) / 16 < meeting.size < 64 * max(lengths):
                found.metrics[f"crossover_{name}"] = meeting.size
                bounds = {"low": meeting.low, "high": meeting.high if meeting.high < 1e12 else None}
                found.extra[f"crossover_{name}"] = bounds
    return found


def _measure(
    models: dict[str, SequenceModel], n: int, stamps: int, device_type: str, precision: str
) -> dict[str, dict[str, float | None]]:
    """Time training steps of the models in turn, and decoding of the first; what does not fit is None.

    Algorithms and precision are those that the loop trains with, so a table holds one choice of attention kernels.
    """
    with deterministic(), float32_precision(precision):
        return _timed(models, n, stamps, device_type, precision)


def _timed(
    models: dict[str, SequenceModel], n: int, stamps: int, device_type: str, precision: str
) -> dict[str, dict[str, float | None]]:
    device = torch.device(device_type)
    tokens = (torch.arange(n + 1, device=device) * 7919 % BYTES)[None]
    batch = {"tokens": tokens[:, :-1], "target": tokens[:, 1:].clone()}
    points: dict[str, dict[str, float | None]] = {}
    seconds: dict[str, list[float]] = {}
    for name, model in models.items():
        model.to(device).train()
        points[name] = {"seconds": None, "bytes": None}
        try:
            _step(model, {key: value[:, :WARM_UP] for key, value in batch.items()}, precision, device)
            before = _held(device)  # after what the first step of a process loads once
            _step(model, batch, precision, device)
            points[name]["bytes"] = max(peak_memory(device) - before, PAGE)
            seconds[name] = []
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            model.zero_grad(set_to_none=True)
    while seconds and not _enough(seconds.values(), stamps):
        for name in seconds:
            seconds[name].append(_step(models[name], batch, precision, device))
    for name, taken in seconds.items():
        points[name]["seconds"] = min(taken)
    if models["method"].decodes:
        points["method"]["token_seconds"] = _decode(models["method"].eval(), n, device)
    return points


def _enough(taken: Collection[Sequence[float]], stamps: int) -> bool:
    count, spent = len(next(iter(taken))), sum(map(sum, taken))
    return count >= stamps and (spent >= SECONDS_A_LENGTH or count >= MOST_STAMPS)


def _held(device: torch.device) -> int:
    reset_peak_memory(device)
    return peak_memory(device)


def _step(model: SequenceModel, batch: dict[str, torch.Tensor], precision: str, device: torch.device) -> float:
    _synchronise(device)
    started = time.perf_counter()
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        loss = model(batch)["loss"]
    loss.backward()
    model.zero_grad(set_to_none=True)
    _synchronise(device)
    return time.perf_counter() - started


@torch.no_grad()
def _decode(model: SequenceModel, n: int, device: torch.device) -> float:
    """Return the median seconds of a decoded token at the end of `n` (the time depends on the position, not on what
    came before it, so the states before it may stay empty)."""
    states = model.start(DECODE_BATCH, n)
    token = torch.zeros(DECODE_BATCH, dtype=torch.long, device=device)
    taken = []
    for position in range(max(0, n - DECODE_STEPS), n):
        _synchronise(device)
        started = time.perf_counter()
        model.step(token, position, states)
        _synchronise(device)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _in_fresh_process(models: dict[str, SequenceModel], n: int, *arguments, memory: float) -> dict:
    """Run `_measure` in a process that has torch imported and nothing else done; without an answer all is None.

    torch takes large pages there, where the system has them: with small ones a step that writes ``n x n`` weights is
    spent on page faults for more than half, and how many depends on what the allocator has seen before.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch's own knob; read once, when a process first allocates
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", __name__])
    receiver, sender = context.Pipe(duplex=False)
    packed = pickle.dumps({name: model.cpu() for name, model in models.items()})
    process = context.Process(target=_work, args=(sender, packed, torch.get_num_threads(), n, *arguments, memory))
    process.start()
    sender.close()
    try:
        answer = receiver.recv()
    except EOFError:
        process.join()
        if process.exitcode != -signal.SIGKILL:  # as the system does when memory runs out
            raise RuntimeError(f"the sweep's process at length {n} ended with exit code {process.exitcode}") from None
        answer = {name: {"seconds": None, "bytes": None} for name in models}
    finally:
        process.kill()
        process.join()
        receiver.close()
    if isinstance(answer, str):
        raise RuntimeError(f"the sweep failed at length {n}: {answer}")
    return answer


def _work(sender, packed: bytes, threads: int, n: int, stamps: int, device: str, precision: str, memory: float) -> None:
    die_with_parent(signal.SIGKILL)
    torch.set_num_threads(threads)
    try:
        if device == "cpu":
            _limit_memory(memory)
        sender.send(_measure(pickle.loads(packed), n, stamps, device, precision))
    except Exception as error:
        sender.send(f"{type(error).__name__}: {error}")


def _limit_memory(gib: float) -> None:
    """Let allocations beyond what is held now plus `gib` fail, so that running out is an answer and not a kill."""
    import resource

    status = Path("/proc/self/status")
    if status.exists():
        held = next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmData"))
        resource.setrlimit(resource.RLIMIT_DATA, (1024 * held + int(gib * 2**30),) * 2)
