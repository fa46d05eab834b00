"""What a density and a sample cost: passes of the network that follow one another, and time."""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from replications.layers.density.bounds import SIZES
from replications.layers.density.model import Density

IMAGES = 100
TIMED_SAMPLES = 50  # of a bound


@torch.no_grad()
def speed_metrics(density: Density, image: Tensor, runs: int) -> dict[str, float]:
    """Return the passes that one image takes, and the milliseconds of 100 images, the fastest of so many runs.

    A bound is counted with the samples of its NLL and timed with 50.
    """
    some = image.repeat(-(-IMAGES // len(image)), 1)[:IMAGES]

    def scored(images: Tensor, samples: int) -> Tensor:
        return density.log_weights(images, samples) if density.kind == "bound" else density.log_prob(images)

    return {
        "passes_density": _passes(density, lambda: scored(image[:1], SIZES[-1])),
        "passes_sample": _passes(density, lambda: density.sample(1)),
        "density_ms": _milliseconds(lambda: scored(some, TIMED_SAMPLES), runs, image.device),
        "sample_ms": _milliseconds(lambda: density.sample(IMAGES), runs, image.device),
    }


def _passes(density: Density, call: Callable[[], Tensor]) -> float:
    before = density.passes
    call()
    return float(density.passes - before)


def _milliseconds(call: Callable[[], Tensor], runs: int, device: torch.device) -> float:
    seconds = []
    for _ in range(runs + 1):  # the first warms up
        started = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - started)
    return 1000 * min(seconds[1:])
