"""What a pretraining saves, at the size that its paper gives: FLOPs counted at full size, time on a part of its blocks.

Cost is linear in the number of blocks, so a part of them, the same of encoder and decoder, has the full size's
quotient; and fits into a small machine's memory.
"""

import time

import torch
from torch import nn

from replications.layers.images.model import Pretrainer

SHARE = 0.125  # of the blocks
IMAGES = {"cpu": 1, "cuda": 64}


def speed_metrics(pretrainer: Pretrainer, turns: int, device: torch.device) -> dict[str, float]:
    """Return ``flops_ratio`` (forward) and, with `turns`, ``speedup`` (least seconds of a step of each in so many).

    Return nothing for a pretrainer that has no size of its paper.
    """
    if pretrainer.at_paper_size(True, SHARE) is None:
        return {}
    metrics = {"flops_ratio": _forward(pretrainer, saving=False) / _forward(pretrainer, saving=True)}
    return metrics | ({"speedup": _speedup(pretrainer, turns, device)} if turns else {})


def _speedup(pretrainer: Pretrainer, turns: int, device: torch.device) -> float:
    pair = {saving: pretrainer.at_paper_size(saving, SHARE).to(device) for saving in (True, False)}
    size = pair[True].image_size
    batch = {"image": torch.randn(IMAGES.get(device.type, 1), 3, size, size, device=device)}
    least = dict.fromkeys(pair, float("inf"))
    for turn in range(turns + 1):
        for saving, module in pair.items():
            seconds = _timed(module, batch, device)
            if turn:  # the first turn warms up
                least[saving] = min(least[saving], seconds)
    return least[False] / least[True]


def _timed(module: nn.Module, batch: dict, device: torch.device) -> float:
    _wait(device)
    started = time.perf_counter()
    module(batch)["loss"].backward()
    _wait(device)
    seconds = time.perf_counter() - started
    module.zero_grad(set_to_none=True)
    return seconds


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _forward(pretrainer: Pretrainer, saving: bool) -> float:
    """Count a forward pass of the full size on torch's meta device: no memory, no arithmetic."""
    from replications.measurement.flops import forward_flops

    with torch.device("meta"):
        whole = pretrainer.at_paper_size(saving, 1.0)
        image = torch.empty(1, 3, whole.image_size, whole.image_size)
        return forward_flops(lambda: whole({"image": image}))
