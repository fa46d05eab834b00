"""The task's data: text as bytes, sequences with marked positions, sequences with a class; and their batches.

A text set has ``text`` uint8 [N] and ``splits`` int64 [4], the bounds of train, validation and test by position. A
sequence set has ``tokens`` uint8 [S, n], ``asked`` bool [S, n] (tokens to predict from those before)
or ``label`` uint8 [S] with ``length`` int32 [S], and ``split`` int8 [S] (0 train, 1 validation, 2 test).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from replications.errors import UserError
from replications.layers.text.model import IGNORED
from replications.tasks.data import SPLITS, Splits, open_prepared
from replications.training.batches import part_of
from replications.training.determinism import generator_for
from replications.training.stage import Batch
from replications.training.windows import WindowBatches

BYTES = 256
MASK = BYTES  # the token of a masked byte


@dataclass(frozen=True)
class Text:
    """A text set; see above."""

    key: str
    text: np.ndarray
    splits: np.ndarray

    def part(self, split: str) -> np.ndarray:
        """Return the bytes of a split, uint8."""
        start, stop = self.splits[SPLITS.index(split) :][:2]
        return self.text[start:stop]


@dataclass(frozen=True)
class Sequences(Splits):
    """A sequence set; either `asked`, or `label` and `length` are None. Tokens are below `vocabulary`."""

    key: str
    tokens: np.ndarray
    split: np.ndarray
    asked: np.ndarray | None
    label: np.ndarray | None
    length: np.ndarray | None
    vocabulary: int
    classes: int | None


def open_text(key: str, data_root: Path) -> Text:
    """Open a text set; raises UserError where it is something else."""
    prepared = open_prepared(key, data_root, "bytes of text", ("text", "splits"))
    return Text(key, prepared.arrays["text"], np.asarray(prepared.arrays["splits"]))


def open_sequences(key: str, data_root: Path) -> Sequences:
    """Open a sequence set; raises UserError where it is something else."""
    prepared = open_prepared(key, data_root, "sequences", ("tokens", "split"))
    arrays = prepared.arrays
    if "asked" not in arrays and not {"label", "length"} <= set(arrays):
        raise UserError(f"data set '{key}' has sequences without questions: it needs 'asked', or 'label' and 'length'")
    facts = prepared.meta["facts"]
    optional = {name: arrays.get(name) for name in ("asked", "label", "length")}
    return Sequences(
        key, arrays["tokens"], np.asarray(arrays["split"]), **optional,
        vocabulary=facts["vocabulary"], classes=facts.get("classes"),
    )  # fmt: skip


class MaskedBatches(WindowBatches):
    """Windows in which bytes are asked for, as in BERT: 80 % of them masked, 10 % random, 10 % as they were."""

    def __init__(self, *arguments, fraction: float):
        super().__init__(*arguments)
        self.fraction = fraction

    def batch(self, step: int, part: int = 0, parts: int = 1) -> Batch:
        windows = self.windows(step, part, parts)[:, :-1]
        generator = generator_for(self.seed, "masks", step)
        shape = (self.batch_size, self.length)
        own = part_of(self.batch_size, part, parts)
        drawn = [torch.rand(shape, generator=generator) for _ in range(2)] + [
            torch.randint(BYTES, shape, generator=generator)
        ]
        return mask_bytes(windows, *(d[own].to(windows.device) for d in drawn), self.fraction)


def mask_bytes(windows: Tensor, chosen: Tensor, fate: Tensor, other: Tensor, fraction: float) -> Batch:
    """Ask for the bytes where `chosen` (uniform) is below `fraction`; `fate` (uniform) says what is put there."""
    windows = windows.long()
    asked = chosen < fraction
    shown = torch.where(fate < 0.8, MASK, torch.where(fate < 0.9, other, windows))
    return {"tokens": torch.where(asked, shown, windows), "target": torch.where(asked, windows, IGNORED)}


def asked_targets(tokens: Tensor, asked: Tensor) -> Batch:
    """Turn sequences into inputs and the targets one ahead, of which only the asked ones count."""
    target = torch.where(asked[:, 1:], tokens[:, 1:].long(), IGNORED)
    return {"tokens": tokens[:, :-1], "target": target}


class AskedTargets:
    """`asked_targets` as the augmentation of `DeviceBatches`: there is nothing to draw."""

    def draw(self, n: int, generator: torch.Generator) -> dict[str, Tensor]:
        return {}

    def apply(self, batch: Batch, draws: dict[str, Tensor]) -> Batch:
        return asked_targets(batch["tokens"], batch["asked"])
