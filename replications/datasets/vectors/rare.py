"""A rare class among Gaussian vectors: which ones are rare is a chance that a smooth function of the vector gives."""

from pathlib import Path

import numpy as np
from pydantic import Field

from replications.parsing import parse
from replications.spec import Strict

UNITS = 8  # of the function


class Options(Strict):
    """Options of the set. The share of the rare class is that of the chances, so labels have it but for noise."""

    samples: int = Field(ge=100)
    features: int = Field(20, ge=1)
    share: float = Field(gt=0, lt=0.5, description="of the rare class")
    strength: float = Field(gt=0, description="how far the log odds spread: with a large one the classes are apart")
    seed: int = Field(0, ge=0, lt=1 << 63)


def prepare(target: Path, options: dict, files: dict[str, Path], workers: int) -> dict:
    """Write ``inputs`` float32 [N, D], ``label`` int32 [N] (1: rare), ``split`` int8 [N] (0), ``chance`` float32 [N].

    The log odds are ``strength * g(x) + b``: g is a sum of eight tanh units of random directions, scaled to variance 1,
    and b is found by bisection.
    """
    wanted = parse(Options, options, "options of the rare class")
    rng = np.random.default_rng(wanted.seed)
    x = rng.standard_normal((wanted.samples, wanted.features))
    units = np.tanh(2 * x @ rng.standard_normal((wanted.features, UNITS)) / np.sqrt(wanted.features))
    score = units @ rng.standard_normal(UNITS)
    score = wanted.strength * (score - score.mean()) / score.std()
    low, high = -50.0, 50.0
    for _ in range(60):
        middle = (low + high) / 2
        rare = (1 / (1 + np.exp(-score - middle))).mean() > wanted.share
        low, high = (low, middle) if rare else (middle, high)
    chance = 1 / (1 + np.exp(-score - low))
    np.save(target / "inputs.npy", x.astype(np.float32))
    np.save(target / "label.npy", (rng.random(wanted.samples) < chance).astype(np.int32))
    np.save(target / "split.npy", np.zeros(wanted.samples, np.int8))
    np.save(target / "chance.npy", chance.astype(np.float32))
    return {"classes": ["common", "rare"], "samples": wanted.samples}
