"""What a pretrainer makes of masked test images."""

import numpy as np
import torch
from torch import Tensor

from replications.layers.images.model import Pretrainer
from replications.tasks.image_classification.stages import ImageRun
from replications.tasks.run import chunks

PICTURED_RATIOS = {"own": None, "50": 0.5, "75": 0.75, "90": 0.9}
MOST_IMAGES = 1000


def reconstruct_rows(run: ImageRun, pretrainer: Pretrainer) -> dict[str, float]:
    """Return the mean loss over test images (`MOST_IMAGES` at most, spread over the set) under fixed masks."""
    rows = run.test_rows[:: -(-len(run.test_rows) // MOST_IMAGES)]
    generator = torch.Generator().manual_seed(0)
    loss = of_mean = 0.0
    for part in chunks(rows, run.options.evaluation_batch_size):
        found = pretrainer.reconstruct(run.plain(part), generator)
        loss += float(found.loss.double().sum())
        of_mean += float(found.mean_loss.double().sum())
    return {"reconstruction_loss": loss / len(rows), "reconstruction_gain": 100 * (1 - loss / of_mean)}


def shown(image: Tensor) -> np.ndarray:
    """Turn images ``[n, 3, H, W]`` in [-1, 1] into uint8 ``[n, H, W, 3]``."""
    return ((image.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
