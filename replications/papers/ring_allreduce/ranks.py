"""Ranks as processes of this machine, joined by gloo; one that dies ends them all.

A fresh process imports torch and forks the ranks, so that torch is imported once and nothing has run in any of them. It
is a child of the run, and the ranks are its: what they use counts as the run's own.
"""

import contextlib
import datetime
import functools
import multiprocessing
import multiprocessing.connection
import os
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from replications.errors import RunFailure, UserError
from replications.measurement.process import die_with_parent

TIMEOUT = datetime.timedelta(seconds=60)  # of one message
MOST_RANKS = 64
GRACE = 1.0


def run_ranks(function: Callable[..., Any], ranks: int, *arguments: Any) -> list[Any]:
    """Return what ``function(*arguments)`` returns in each of `ranks` processes that torch.distributed joins, by rank.

    `function` is a module's own, and arguments and answers must pickle. Raises UserError for fewer than two ranks or
    more than `MOST_RANKS`, and RunFailure ``rank ended``, naming the rank and why, within seconds of the first that
    ends without an answer; the others are stopped.
    """
    if not 2 <= ranks <= MOST_RANKS:
        raise UserError(f"ranks: {ranks} processes cannot reduce an array: give 2 to {MOST_RANKS}")
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    leader = context.Process(target=_lead, args=(sender, os.getpid(), function, ranks, arguments), name="leader")
    leader.start()
    sender.close()
    try:
        answers = receiver.recv()
    except EOFError:
        leader.join()
        answers = f"the process that started the ranks ended with {_ending(leader.exitcode)}"
    finally:
        leader.kill()
        leader.join()
        receiver.close()
    if isinstance(answers, str):
        raise RunFailure("rank ended", answers)
    return answers


def _lead(sender, parent: int, function: Callable[..., Any], ranks: int, arguments: tuple) -> None:
    """Fork the ranks, and send their answers, or what went wrong as one line."""
    die_with_parent(signal.SIGKILL, parent=parent, follow=False)
    import torch.distributed  # noqa: F401  once, before the ranks are forked

    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory(prefix="ranks-") as folder:
        pipes = [context.Pipe(duplex=False) for _ in range(ranks)]
        processes = [
            context.Process(
                target=_work, args=(pipe[1], os.getpid(), rank, ranks, folder, function, arguments), name=f"rank {rank}"
            )
            for rank, pipe in enumerate(pipes)
        ]
        for process, pipe in zip(processes, pipes, strict=True):
            process.start()
            pipe[1].close()  # before the next is forked: a pipe's end tells that its rank ended
        try:
            sender.send(_answers([pipe[0] for pipe in pipes], processes))
        finally:
            for process in processes:
                process.kill()
                process.join()


def _answers(receivers: list, processes: list) -> list[Any] | str:
    """Wait for every rank's answer, or for the first rank that ends without one."""
    waiting, answers = dict(zip(receivers, range(len(receivers)), strict=True)), {}
    while waiting:
        for receiver in multiprocessing.connection.wait(list(waiting)):
            rank = waiting.pop(receiver)
            try:
                good, answers[rank] = receiver.recv()
            except EOFError:
                processes[rank].join()
                good, answers[rank] = False, _ending(processes[rank].exitcode)
            if not good:
                killed = _killed(processes)
                if killed is not None:
                    rank, answers[killed] = killed, _ending(processes[killed].exitcode)
                return f"rank {rank} of {len(processes)} ended: {answers[rank]}; the others were stopped"
    return [answers[rank] for rank in range(len(processes))]


def _killed(processes: list) -> int | None:
    """Return the first rank that a signal ended; None where there is none within `GRACE` seconds.

    The others fail because of it, and may be heard before the kernel tells of its end.
    """
    until = time.monotonic() + GRACE
    while True:
        for rank, process in enumerate(processes):
            if (process.exitcode or 0) < 0:
                return rank
        if time.monotonic() > until:
            return None
        time.sleep(0.02)


def _work(
    sender, leader: int, rank: int, ranks: int, folder: str, function: Callable[..., Any], arguments: tuple
) -> None:
    die_with_parent(signal.SIGKILL, parent=leader, follow=False)
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    loopback = "lo" if Path("/sys/class/net/lo").exists() else "lo0"
    os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)  # else gloo asks for the host's name, which may lead nowhere
    try:
        # A file takes a server's place, and gloo's own sockets take ports that are free.
        store = dist.FileStore(str(Path(folder, "store")), ranks)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=ranks, timeout=TIMEOUT)
        sender.send((True, function(*arguments)))
        dist.barrier()  # no rank closes its connections before all have answered
    except Exception as error:
        with contextlib.suppress(OSError):
            sender.send((False, f"{type(error).__name__}: {error}".partition("\n")[0]))


@functools.cache
def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _ending(code: int | None) -> str:
    """Say an exit code in words: negative ones are signals."""
    with contextlib.suppress(ValueError, TypeError):
        if code < 0:
            return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"
