"""The total mass of a density, by enumeration of all images."""

import torch
from torch import Tensor

from replications.errors import UserError
from replications.layers.density.model import Density

MOST_PIXELS = 16
DRAWS = 20  # of weights


def all_images(pixels: int) -> Tensor:
    """Return all binary images of so many pixels, float64 ``[2^pixels, pixels]``; raises UserError for too many."""
    if pixels > MOST_PIXELS:
        raise UserError(f"2^{pixels} images are too many to enumerate: at most {MOST_PIXELS} pixels")
    numbers = torch.arange(2**pixels)
    return (numbers[:, None] >> torch.arange(pixels) & 1).double()


@torch.no_grad()
def mass_errors(density: Density, pixels: int) -> dict[str, float]:
    """Return how far sums over all images are from 1, in float64, the most of `DRAWS` draws of weights from N(0, 1).

    ``mass_error`` is that of p(x), ``pseudo_mass_error`` that of the model's `pseudo_log_prob`, where it has one. The
    model's own weights are lost: drawn ones, unlike those at the start, make pixels depend strongly on one another.
    One draw is not enough: where all pixels are nearly certain, a sum that is not always 1 can be close to it.
    """
    density = density.cpu().double().eval()
    images, errors = all_images(pixels), {}
    for _ in range(DRAWS):
        for parameter in density.parameters():
            parameter.normal_()
        found = {"mass_error": density.log_prob(images), "pseudo_mass_error": density.pseudo_log_prob(images)}
        for name, each in found.items():
            if each is not None:
                errors.setdefault(name, []).append((each.exp().sum() - 1).abs())
    return {name: torch.stack(of).max().item() for name, of in errors.items()}
