"""Ring all-reduce between local processes: bytes, bits, times (Patarasuk and Yuan, 2009)."""

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from replications.errors import UserError
from replications.layers.systems.measured import Measured
from replications.papers.ring_allreduce.collectives import Link, gather_broadcast, ring
from replications.papers.ring_allreduce.ranks import cores, run_ranks
from replications.records import Curve

LARGEST_WHOLE = 1000  # whole numbers below it add up without rounding in float32
BYTES_A_SIZE = 2**24  # about so much is reduced at each size, within the limits of `repeats`
TILE = 997  # whole numbers that are drawn; larger arrays repeat them, at no multiple of a part
ROUNDED = 30011  # values whose rounding is looked at
EPSILON = torch.finfo(torch.float32).eps / 2


def build(ranks: int, sizes: Sequence[int], repeats: Sequence[int]) -> Measured:
    """Count, check and time all-reduce of float32 arrays of `sizes` bytes between `ranks` processes.

    The statement: each rank sends 2 (n - 1) / n S bytes (arrays that n divides), and the sum of whole numbers is exact.
    `repeats` are the least and the most timings of a size. Where there are more ranks than cores they would be times
    of the scheduler, and none is taken. Raises UserError for no sizes, and for one without a value for each rank.
    """
    if not sizes or min(sizes) < 4 * ranks:
        raise UserError(
            f"sizes: {list(sizes)} bytes: each array needs a float32 for each rank, {4 * ranks} bytes or more"
        )
    seed = int(torch.randint(2**31, ()))
    counts = [size // 4 // ranks * ranks for size in sizes]  # values, a multiple of the ranks
    timed = ranks <= cores()
    answers = run_ranks(_rank, ranks, seed, counts, tuple(repeats) if timed else None)

    found, stated = [], []
    for place, count in enumerate(counts):
        formula = 2 * (ranks - 1) / ranks * 4 * count
        found += [answer["sent"][place] for answer in answers] + [answer["whole_error"][place] for answer in answers]
        stated += [formula] * ranks + [0.0] * ranks
    largest = max(range(len(counts)), key=counts.__getitem__)
    formula = 2 * (ranks - 1) / ranks * 4 * counts[largest]
    metrics = {
        "bytes_ratio": max(answer["sent"][largest] for answer in answers) / formula,
        "busiest_ratio": max(answer["naive_bytes"][largest] for answer in answers)
        / max(answer["ring_bytes"][largest] for answer in answers),
        "ranks_differ": float(sum(not np.array_equal(answer["bits"], answers[0]["bits"]) for answer in answers)),
        "rounding_share": max(answer["rounding_share"] for answer in answers),
    }
    row = Measured(f"sums over {ranks} processes", found, stated, metrics)
    row.arrays["sent"] = np.array([answer["sent"] for answer in answers])
    if timed:
        add_times(row, ranks, [4 * count for count in counts], [answer["seconds"] for answer in answers])
    else:
        row.told["not timed"] = f"{ranks} processes on {cores()} cores: times would be the scheduler's"
    return row


def add_times(row: Measured, ranks: int, sizes: Sequence[int], seconds: Sequence[dict[str, list]]) -> None:
    """Add times to a row: ``seconds[rank][algorithm][size][repeat]``.

    A call lasts until its last rank is done, and of the repeats the shortest counts: what else the machine does only
    adds to a time.
    """
    least = {
        name: [min(map(max, zip(*of_ranks, strict=True))) for of_ranks in zip(*by_rank, strict=True)]
        for name, by_rank in ((name, [rank[name] for rank in seconds]) for name in seconds[0])
    }
    large, small = (choose(range(len(sizes)), key=sizes.__getitem__) for choose in (max, min))
    latency, per_byte, error = fit(ranks, sizes, least["ring"])
    row.metrics |= {
        "speedup_large": least["gather_broadcast"][large] / least["ring"][large],
        "speedup_small": least["gather_broadcast"][small] / least["ring"][small],
        "library_speedup": least["ring"][large] / least["torch"][large],
        "latency_us": 1e6 * latency,
        "bandwidth": 1 / per_byte / 2**30,
        "fit_error": 100 * error,
    }
    for name, values in least.items():
        row.curves[f"time_{name}"] = Curve(
            x_label="bytes", y_label="ms", x=list(map(float, sizes)), y=[1e3 * value for value in values]
        )


def fit(ranks: int, sizes: Sequence[int], seconds: Sequence[float]) -> tuple[float, float, float]:
    """Fit ``t = 2 (n - 1) latency + 2 (n - 1) / n S per_byte``; return both and the median relative error.

    Least squares on relative errors, neither below a thousandth of what it would be alone.
    """
    sizes, seconds = np.asarray(sizes, float), np.asarray(seconds, float)
    terms = np.stack([np.full(len(sizes), 2.0 * (ranks - 1)), 2 * (ranks - 1) / ranks * sizes], axis=1)
    scaled = terms / seconds[:, None]
    solution = np.linalg.lstsq(scaled, np.ones(len(sizes)), rcond=None)[0]
    solution = np.maximum(solution, 1e-3 / scaled.max(0))
    return float(solution[0]), float(solution[1]), float(np.median(np.abs(scaled @ solution - 1)))


def _rank(seed: int, counts: Sequence[int], repeats: tuple[int, int] | None) -> dict:
    """What one rank does and finds."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    answer = {name: [] for name in ("sent", "ring_bytes", "naive_bytes", "whole_error")}
    draws = torch.Generator().manual_seed(seed)
    tile = torch.randint(LARGEST_WHOLE, (ranks, TILE), generator=draws).float()
    for count in counts:
        whole = tile.repeat(1, count // TILE + 1)[:, :count]
        link, naive = Link(), Link()
        for algorithm, used in ((ring, link), (gather_broadcast, naive)):
            values = whole[rank].clone()
            algorithm(values, used)
            error = float((values - whole.sum(0)).abs().max())
            answer["whole_error"] += [error] if algorithm is ring else []
        answer["sent"].append(link.sent)
        answer["ring_bytes"].append(link.sent + link.received)
        answer["naive_bytes"].append(naive.sent + naive.received)
    all_values = torch.randn(ranks, ROUNDED, generator=draws)
    values = all_values[rank].clone()
    ring(values, Link())
    exact, sizes = all_values.double().sum(0), all_values.double().abs().sum(0)
    answer["rounding_share"] = float(((values - exact).abs() / ((ranks - 1) * EPSILON * sizes)).max())
    answer["bits"] = values.numpy().view(np.int32)
    if repeats:
        answer["seconds"] = _times(counts, *repeats)
    return answer


def _times(counts: Sequence[int], least: int, most: int) -> dict[str, list[list[float]]]:
    """Return seconds by algorithm, size and repeat. Algorithms take turns; the first turn is not counted."""
    link = Link()
    algorithms: dict[str, Callable[[Tensor], None]] = {
        "ring": lambda values: ring(values, link),
        "gather_broadcast": lambda values: gather_broadcast(values, link),
        "torch": dist.all_reduce,
    }
    seconds: dict[str, list[list[float]]] = {name: [] for name in algorithms}
    for count in counts:
        turns = min(most, max(least, BYTES_A_SIZE // max(4 * count, 1)))
        for of_size in seconds.values():
            of_size.append([])
        for turn in range(turns + 1):
            for name, algorithm in algorithms.items():
                values = torch.ones(count)
                dist.barrier()
                started = time.perf_counter()
                algorithm(values)
                if turn:
                    seconds[name][-1].append(time.perf_counter() - started)
    return seconds
