"""Times of several functions, measured in turn, so that what else the machine does falls on all of them alike."""

import statistics
from collections.abc import Callable, Mapping
from typing import Any

import torch

from replications.measurement.protocol import Effort
from replications.measurement.timing import Stopwatch

ROUNDS = 3


def seconds_in_turn(functions: Mapping[str, Callable[[], Any]], effort: Effort) -> dict[str, float]:
    """Return the seconds of a call by name: the least over `ROUNDS` turns of the median of a turn's stamps.

    A turn is measured as throughput is (`Stopwatch`): warm-up, calls shorter than a stamp in groups. The `effort`'s
    seconds are those of all turns together.
    """
    each = Effort(effort.warmup, effort.stamps, effort.seconds / ROUNDS)
    medians: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(ROUNDS):
        for name, function in functions.items():
            watch = Stopwatch(each, torch.device("cpu"))
            while not watch.lap():
                function()
            medians[name].append(statistics.median(watch.seconds))
    return {name: min(values) for name, values in medians.items()}
