"""Scores of a trained model: bits per byte by window length, masked bytes, asked tokens, classes of sequences.

Every number is a sum over the test part in float64, taken once, at the end of a run.
"""

import copy
import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from replications.errors import UserError
from replications.layers.text.model import IGNORED, SequenceModel
from replications.tasks.language_modelling.data import BYTES, Sequences, asked_targets, mask_bytes
from replications.training.batches import split_batch
from replications.training.determinism import generator_for
from replications.training.stage import Batch

LN2 = math.log(2)


def scored_bytes(text: np.ndarray, lengths: list[int], most: int | None) -> int:
    """Return how many bytes of a text are scored: whole windows of every one of `lengths`, so all score the same.

    Raises UserError where the text is too short for one.
    """
    longest = math.lcm(*lengths)
    available = min(max(len(text) - 1, 0), most or len(text))
    if available < longest:
        raise UserError(f"the text to be scored has {available} bytes, too few for a window of {longest}")
    return available // longest * longest


@torch.no_grad()
def bits_per_byte(model: SequenceModel, text: np.ndarray, length: int, count: int, batch_bytes: int) -> float:
    """Score bytes 1 to `count` of a text in windows side by side: each is predicted from the 1 to `length` before it.

    A window's bytes know nothing of the window before it, so a short length costs context; no byte counts twice.
    """
    device = next(model.parameters()).device
    inputs = torch.from_numpy(np.array(text[:count])).to(device).view(-1, length)
    targets = torch.from_numpy(np.array(text[1 : count + 1])).to(device).view(-1, length)
    total = torch.zeros((), dtype=torch.float64)
    for rows in torch.arange(len(inputs), device=device).split(max(1, batch_bytes // length)):
        logits = model.logits(inputs[rows]).float().flatten(0, 1)
        total += F.cross_entropy(logits, targets[rows].long().flatten(), reduction="sum").double().cpu()
    return total.item() / count / LN2


@torch.no_grad()
def recurrence_gap(model: SequenceModel, tokens: Tensor) -> float:
    """Return how far apart the logits of tokens ``[n]`` are, at most, when read one by one and when read at once.

    Both are computed in float64: any difference is rounding or a fault.
    """
    wide = copy.deepcopy(model).double()
    states = wide.start(1, len(tokens))
    one_by_one = torch.cat([wide.step(token[None].long(), i, states) for i, token in enumerate(tokens)])
    return (one_by_one - wide.logits(tokens[None])[0]).abs().max().item()


@torch.no_grad()
def masked_bytes(
    model: SequenceModel, text: np.ndarray, length: int, count: int, fraction: float, batch_bytes: int
) -> dict[str, float]:
    """Return bits and accuracy (%) of the masked bytes; which they are depends on nothing but the text's length."""
    device = next(model.parameters()).device
    windows = torch.from_numpy(np.array(text[:count])).view(-1, length)
    generator = generator_for("test", "masks", count, length)
    chosen, fate = (torch.rand(windows.shape, generator=generator) for _ in range(2))
    other = torch.randint(BYTES, windows.shape, generator=generator)
    batch = mask_bytes(windows, chosen, fate, other, fraction)
    bits, accuracy = _asked(model, split_batch(batch, max(1, batch_bytes // length)), device)
    return {"masked_bits": bits, "masked_accuracy": accuracy}


@torch.no_grad()
def asked_tokens(model: SequenceModel, sequences: Sequences, split: str, batch_bytes: int) -> tuple[float, float]:
    """Return bits per asked token and how many of them, in %, the model tells exactly."""
    device = next(model.parameters()).device
    rows = sequences.rows(split)
    tokens, asked = (torch.from_numpy(np.array(array[rows])) for array in (sequences.tokens, sequences.asked))
    batch = asked_targets(tokens, asked)
    return _asked(model, split_batch(batch, max(1, batch_bytes // tokens.shape[1])), device)


def _asked(model: SequenceModel, batches: Iterator[Batch], device: torch.device) -> tuple[float, float]:
    nats, right, count = 0.0, 0, 0
    for batch in batches:
        target = batch["target"].to(device).flatten()
        logits = model.logits(batch["tokens"].to(device)).float().flatten(0, 1)
        nats += F.cross_entropy(logits, target, reduction="sum", ignore_index=IGNORED).item()
        right += (logits.argmax(dim=-1) == target).sum().item()
        count += (target != IGNORED).sum().item()
    return nats / count / LN2, 100.0 * right / count


@torch.no_grad()
def class_accuracy(model: SequenceModel, sequences: Sequences, split: str, length: int, batch_bytes: int) -> float:
    """Return how many sequences, in %, get their own class; longer ones are cut to `length`."""
    device = next(model.parameters()).device
    rows = sequences.rows(split)
    right = 0
    for part in np.array_split(rows, max(1, math.ceil(len(rows) * length / batch_bytes))):
        batch = {name: value.to(device) for name, value in class_batch(sequences, part, length).items()}
        logits = model.class_logits(batch["tokens"], batch["length"])
        right += (logits.argmax(dim=-1) == batch["label"]).sum().item()
    return 100.0 * right / len(rows)


def class_batch(sequences: Sequences, rows: np.ndarray, length: int) -> dict[str, Tensor]:
    """Return ``tokens`` ``[rows, length]``, ``length`` and ``label`` of rows of a set with classes."""
    return {
        "tokens": torch.from_numpy(np.array(sequences.tokens[rows, :length])),
        "length": torch.from_numpy(np.minimum(sequences.length[rows], length).astype(np.int64)),
        "label": torch.from_numpy(np.asarray(sequences.label[rows]).astype(np.int64)),
    }
