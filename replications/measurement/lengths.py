"""What length costs a model of sequences: a training step of one sequence at each length, beside references.

The method and its references are timed in turn, in one process a length, so that what else the machine does falls
on all of them equally; the fastest step counts, since the rest of the machine only ever adds. Of the runs that share a
machine one sweeps at a time: two would want its memory at once. Out of memory is an answer: that length is missing.

A model is called as ``model(batch)`` with ``tokens`` and ``target`` ``[1, n]``; where it has ``decodes`` true, also as
``start(batch, capacity)`` and ``step(token, position, states)``.
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
from torch import nn

from replications.measurement.lease import in_turn
from replications.measurement.memory import is_out_of_memory, peak_memory, reset_peak_memory
from replications.measurement.process import die_with_parent
from replications.measurement.sweep import crossover, fit_power_law
from replications.training.determinism import deterministic, float32_precision

PAGE = 4096
SYMBOLS = 256  # tokens are below it
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


def measure_length(
    models: dict[str, nn.Module],
    n: int,
    stamps: int,
    device: torch.device,
    precision: str,
    memory_gib: float | None,
) -> dict[str, dict[str, float | None]]:
    """Return each model's ``seconds`` and ``bytes`` of a training step at length `n`, of the first ``token_seconds``.

    `models` has the method under ``method``. With `memory_gib` they are measured in a fresh process, which on a CPU
    may have so much.
    """
    arguments = (models, n, stamps, device.type, precision)
    if memory_gib is not None:
        with in_turn("sweep", "the length sweep of another run to end"):
            return _in_fresh_process(*arguments, memory=memory_gib)
    gc.freeze()  # each look at the memory collects garbage, which takes long where much else is alive
    found = _measure(*arguments)
    gc.unfreeze()
    return found


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
    models: dict[str, nn.Module], n: int, stamps: int, device_type: str, precision: str
) -> dict[str, dict[str, float | None]]:
    """Time training steps of the models in turn, and decoding of the first; models that do not fit give None.

    Algorithms and precision are those that the loop trains with, so a table holds one choice of attention kernels.
    """
    with deterministic(), float32_precision(precision):
        return _timed(models, n, stamps, torch.device(device_type), precision)


def _timed(
    models: dict[str, nn.Module], n: int, stamps: int, device: torch.device, precision: str
) -> dict[str, dict[str, float | None]]:
    tokens = (torch.arange(n + 1, device=device) * 7919 % SYMBOLS)[None]
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


def _step(model: nn.Module, batch: dict[str, torch.Tensor], precision: str, device: torch.device) -> float:
    _synchronise(device)
    started = time.perf_counter()
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        loss = model(batch)["loss"]
    loss.backward()
    model.zero_grad(set_to_none=True)
    _synchronise(device)
    return time.perf_counter() - started


@torch.no_grad()
def _decode(model: nn.Module, n: int, device: torch.device) -> float:
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


def _in_fresh_process(models: dict[str, nn.Module], n: int, *arguments, memory: float) -> dict:
    """Run `_measure` in a process that has torch imported and nothing else done; without an answer all is None.

    torch takes large pages there, where the system has them: with small ones a step that writes ``n x n`` weights is
    spent on page faults for more than half, and how many depends on what the allocator has seen before.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch's own knob; read once, when a process first allocates
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", __name__, *sorted({type(model).__module__ for model in models.values()})])
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
