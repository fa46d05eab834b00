"""The checkerboard of images: what repeats every two pixels (Odena et al., Distill 2016)."""

import torch
from torch import Tensor


def nyquist_share(images: Tensor) -> float:
    """Return the share of the energy, means of images taken out, of patterns that repeat every two pixels.

    These are three of the frequencies: the highest of x, of y, and of both. White noise of n pixels has 3 / (n - 1).
    """
    centred = images - images.mean((-2, -1), keepdim=True)
    energy = torch.fft.fft2(centred).abs().square()
    rows, columns = (size // 2 for size in images.shape[-2:])
    highest = energy[..., rows, 0] + energy[..., 0, columns] + energy[..., rows, columns]
    return float(highest.sum() / energy.sum())
