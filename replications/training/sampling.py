"""Drawing samples from a trained model, as a part of a run that can be stopped and continued."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from replications.errors import UserError
from replications.progress import progress
from replications.training.checkpoint import Checkpoints
from replications.training.determinism import preserved_rng, seed_everything
from replications.training.interruption import Interruption

CHECKPOINT_SECONDS = 60.0


@dataclass(frozen=True)
class Samples:
    """What was drawn, on the CPU, and the wall seconds that drawing took, over all starts."""

    values: Tensor
    seconds: float


def sample(
    name: str,
    count: int,
    draw: Callable[[int], Tensor],
    *,
    batch: int,
    work: Path,
    seed: int,
    device: torch.device,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> Samples:
    """Draw `count` samples in chunks of `batch` by ``draw(n) -> [n, ...]``; or continue, or load what was drawn.

    Each chunk starts from random generators seeded by (`seed`, `name`, chunk), so the samples do not depend on where
    drawing was stopped; the caller's generators are left as they were. Raises RunFailure ``interrupted`` (a checkpoint
    is written first) and UserError for a checkpoint of other samples.
    """
    checkpoints = Checkpoints(work, f"samples-{name}")
    identity = {"count": count, "batch": batch, "seed": seed}
    state = checkpoints.read() or {"identity": identity, "chunks": [], "seconds": 0.0}
    if state["identity"] != identity:
        raise UserError(f"checkpoint {checkpoints.latest} is of other samples: delete its folder to draw them again")
    chunks: list[Tensor] = state["chunks"]
    number = -(-count // batch)
    saved_at = time.monotonic()
    with Interruption() as interruption, torch.no_grad(), progress(name, count, "samples", len(chunks) * batch) as bar:
        while len(chunks) < number:
            size = min(batch, count - len(chunks) * batch)
            started = time.perf_counter()
            with preserved_rng(device):
                seed_everything(seed, "sample", name, len(chunks))
                chunks.append(draw(size).detach().cpu())  # the copy waits for the device
            state["seconds"] += time.perf_counter() - started
            bar.advance(size)
            due = time.monotonic() - saved_at >= checkpoint_seconds or len(chunks) == number
            if due or interruption.requested:
                checkpoints.write(state, keep_previous=False)
                saved_at = time.monotonic()
            if interruption.requested and len(chunks) < number:
                raise interruption.failure(f"{name}: {len(chunks) * batch} of {count} samples")
    return Samples(torch.cat(chunks), state["seconds"])
