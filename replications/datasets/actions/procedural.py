"""Streams whose frames do not tell the action: its opener does, which only a network with a memory still has.

An action begins with an opener of its own; the frames after it, its body, are the same for two actions. In some of the
gaps between actions there is an opener without a body, a distractor, which is background. The next action is the
next one in a cycle with a probability, else any. All frames have normal noise of standard deviation 1.
"""

from pathlib import Path

import numpy as np
from pydantic import Field, model_validator

from replications.datasets.actions.form import write_labels
from replications.parsing import parse
from replications.spec import Strict


class Options(Strict):
    """Options of a set. Lengths are frames, both ends of a range included."""

    train: int = Field(ge=1, le=1_000_000, description="streams")
    validation: int = Field(ge=1, le=1_000_000)
    test: int = Field(ge=1, le=1_000_000)
    frames: int = Field(ge=1, le=1_000_000, description="of a stream")
    pairs: int = Field(3, ge=1, le=1000, description="of actions that share a body")
    features: int = Field(16, ge=2, le=100_000)
    opener: int = Field(2, ge=1, description="frames of an opener")
    opener_norm: float = Field(2.5, gt=0)
    body_norm: float = Field(0.7, ge=0)
    action: tuple[int, int] = Field((8, 23), description="frames of an action, with its opener")
    gap: tuple[int, int] = (4, 11)
    distractors: float = Field(0.5, ge=0, le=1, description="share of the gaps with an opener that nothing follows")
    cycle: float = Field(0.8, ge=0, le=1, description="probability that the next action is the next in the cycle")
    seed: int = Field(0, ge=0, lt=1 << 63)

    @model_validator(mode="after")
    def _consistent(self) -> "Options":
        for name, (least, most) in (("action", self.action), ("gap", self.gap)):
            if not self.opener <= least <= most:
                raise ValueError(f"{name}: {least} to {most} frames must hold an opener of {self.opener}, and rise")
        return self


def prepare(target: Path, options: dict, files: dict[str, Path], workers: int) -> dict:
    """Write a set of streams (see `form`)."""
    wanted = parse(Options, options, "options of the streams")
    rng = np.random.default_rng(wanted.seed)
    count, actions = wanted.train + wanted.validation + wanted.test, 2 * wanted.pairs
    means = _directions(rng, actions, wanted.features, wanted.opener_norm)
    bodies = _directions(rng, wanted.pairs, wanted.features, wanted.body_norm)
    features = rng.standard_normal((count, wanted.frames, wanted.features)).astype(np.float32)
    labels = np.zeros((count, wanted.frames), np.int64)
    for stream in range(count):
        label, opener = draw(wanted, rng)
        labels[stream] = label
        features[stream] += np.where(
            opener[:, None] > 0, means[opener - 1], np.where(label[:, None] > 0, bodies[(label - 1) // 2], 0)
        ).astype(np.float32)
    np.save(target / "features.npy", features.reshape(-1, wanted.features))
    split = np.repeat(np.arange(3, dtype=np.int8), [wanted.train, wanted.validation, wanted.test])
    classes = ["background", *(f"{letter}{which}" for letter in _letters(wanted.pairs) for which in (1, 2))]
    hot = np.eye(actions + 1, dtype=np.uint8)[labels]
    return write_labels(target, list(hot), [np.ones(wanted.frames, bool)] * count, split, classes)


def draw(options: Options, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return action (0: background) and opener (0: none) of each frame of a stream, int64 [frames].

    Actions count from 1; 1 and 2 share a body, 3 and 4, and so on. The cycle is 1, 3, 5, ..., 2, 4, ...
    """
    actions = 2 * options.pairs
    cycle = [*range(1, actions + 1, 2), *range(2, actions + 1, 2)]
    label, opener = np.zeros((2, options.frames), np.int64)
    start, place = 0, int(rng.integers(actions))
    while start < options.frames:
        gap = int(rng.integers(options.gap[0], options.gap[1] + 1))
        if rng.random() < options.distractors:
            first = start + int(rng.integers(gap - options.opener + 1))
            opener[first : min(first + options.opener, start + gap)] = rng.integers(1, actions + 1)
        start += gap
        length = int(rng.integers(options.action[0], options.action[1] + 1))
        follows = rng.random() < options.cycle
        place = (place + 1) % actions if follows else int(rng.integers(actions))
        label[start : start + length] = cycle[place]
        opener[start : start + options.opener] = cycle[place]
        start += length
    return label, opener


def _directions(rng: np.random.Generator, count: int, width: int, norm: float) -> np.ndarray:
    drawn = rng.standard_normal((count, width))
    return norm * drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def _letters(count: int) -> list[str]:
    return [chr(ord("A") + i) if i < 26 else f"P{i}" for i in range(count)]
