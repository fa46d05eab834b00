"""What a margin head costs over plain softmax in a training step: ``python -m benchmarks.face_heads [--size 112]``.

All heads train the same IResNet-18 on the same batch in one process, turn by turn, so that a slow minute of the machine
falls on all of them. Reported: processor milliseconds a step (the median over turns) and the median over turns of the
quotient to plain softmax.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from replications.papers.arcface.model import build as build_arcface
from replications.papers.arcface.model import build_norm_softmax, build_softmax
from replications.papers.cosface.model import build as build_cosface
from replications.papers.normface.model import build as build_normface
from replications.papers.sphereface.model import build as build_sphereface

BUILDS = {
    "softmax": build_softmax,
    "norm_softmax": build_norm_softmax,
    "normface": build_normface,
    "sphereface": build_sphereface,
    "cosface": build_cosface,
    "arcface": build_arcface,
}


def training_step(build: Callable, size: int, batch_size: int, identities: int) -> Callable[[], None]:
    """Return a function that makes one step of SGD on a fixed batch."""
    torch.manual_seed(0)
    model = build(identities, size, backbone={"depth": 18}).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    image = torch.randn(batch_size, 3, size, size).contiguous(memory_format=torch.channels_last)
    batch = {"image": image, "label": torch.randint(identities, (batch_size,))}

    def step() -> None:
        optimizer.zero_grad()
        model(batch)["loss"].backward()
        optimizer.step()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=112, help="image side in pixels")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--identities", type=int, default=5749, help="classes; LFW has 5,749 people")
    parser.add_argument("--turns", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(1)
    steps = {
        name: training_step(build, options.size, options.batch_size, options.identities)
        for name, build in BUILDS.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(options.turns + 1):
        for name, step in steps.items():
            started = time.process_time()
            step()
            if turn:  # the first warms up
                seconds[name].append(time.process_time() - started)
    print(f"{'head':<14}{'ms a step':>10}{'to softmax':>12}")
    for name, own in seconds.items():
        quotient = statistics.median(a / b for a, b in zip(own, seconds["softmax"], strict=True))
        print(f"{name:<14}{1000 * statistics.median(own):>10.1f}{quotient:>12.3f}")


if __name__ == "__main__":
    main()
