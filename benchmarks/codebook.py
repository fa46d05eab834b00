"""A codebook of averages beside vector-quantize-pytorch: the same codes and averages, and the time of a training step.

    python -m benchmarks.codebook [--threads 1] [--repeat 7]

Needs the extra ``peers``. Both start from one codebook and see the same vectors. The step is quantising, the commitment
loss, its backward pass and the averages' update. Times are CPU seconds of the process, the least of the repetitions,
each in turns; the last column is a ratio of one run.
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor
from vector_quantize_pytorch import VectorQuantize

from replications.layers.generation.codes import Codebook

SIZES = ((64 * 4, 64, 16), (256 * 16, 512, 64), (1024 * 16, 1024, 64))  # vectors, codes, numbers of a vector


def pair(codes: int, width: int) -> tuple[Codebook, VectorQuantize]:
    """Return ours and theirs with one codebook, decay 0.99, commitment 0.25."""
    ours = Codebook(codes, width, "average")
    theirs = VectorQuantize(
        dim=width,
        codebook_size=codes,
        decay=0.99,
        commitment_weight=0.25,
        kmeans_init=False,
        threshold_ema_dead_code=0,
        rotation_trick=False,
    )
    with torch.no_grad():
        start = torch.randn(codes, width)
        ours.sums.copy_(start)
        theirs._codebook.embed.copy_(start[None])
        theirs._codebook.embed_avg.copy_(start[None])
        theirs._codebook.cluster_size.fill_(1.0)
    return ours.train(), theirs.train()


def step_of_ours(quantiser: Codebook, vectors: Tensor) -> Tensor:
    coded = quantiser(vectors)
    (coded.loss + coded.vectors.square().mean()).backward()
    return coded.codes


def step_of_theirs(quantiser: VectorQuantize, vectors: Tensor) -> Tensor:
    chosen, codes, loss = quantiser(vectors)
    (loss.sum() + chosen.square().mean()).backward()
    return codes


def seconds(call: Callable[[], object]) -> float:
    started = time.process_time()
    call()
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"{'vectors':>8} {'codes':>6} {'numbers':>8} {'ours ms':>9} {'theirs ms':>10} {'theirs / ours':>14}")
    for count, codes, width in SIZES:
        torch.manual_seed(0)
        ours, theirs = pair(codes, width)
        vectors = torch.randn(1, count, width, requires_grad=True)
        times = {"ours": [], "theirs": []}
        for _ in range(arguments.repeat + 1):  # the first warms up
            times["ours"].append(seconds(lambda: step_of_ours(ours, vectors)))  # noqa: B023 - called at once
            times["theirs"].append(seconds(lambda: step_of_theirs(theirs, vectors)))  # noqa: B023
        mine, other = (1000 * min(found[1:]) for found in times.values())
        print(f"{count:>8,} {codes:>6,} {width:>8} {mine:>9.2f} {other:>10.2f} {other / mine:>14.2f}")


if __name__ == "__main__":
    main()
