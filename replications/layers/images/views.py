"""Random views of images for contrastive learning: crop, mirror, colour (SimCLR, section 3 and appendix A).

They are drawn within a module's forward pass, by torch's generators on the images' device, which the training loop
keeps in its checkpoints. Images are float ``[n, 3, H, W]`` in [-1, 1]; each gets its own random numbers.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from replications.errors import UserError, nearest

ASPECT = 4 / 3  # of a crop, at most, either way
JITTER, HUE = 0.8, 0.2  # of SimCLR's colour jitter at strength 1: factors 1 ± 0.8, hue by up to 0.2 of a turn
JITTERED = 0.8  # of the images
# Luma and two axes of chroma: saturation scales the latter, hue turns them.
YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


class Views:
    """Draws a view of each image: cropped, mirrored with probability 1/2, changed in colour.

    `crop` is the least and greatest share of the area, `colour` the strength of the jitter (SimCLR's is 1), `grey` the
    probability of a grey image.

    Raises UserError for shares and probabilities that are none.
    """

    def __init__(self, crop: tuple[float, float] = (0.08, 1.0), colour: float = 1.0, grey: float = 0.2):
        if not 0 < crop[0] <= crop[1] <= 1:
            raise UserError(f"option views.crop must be two rising shares of the area, at most 1, not {list(crop)}")
        if grey > 1:
            raise UserError(f"option views.grey is a probability, not {grey:g}")
        self.crop, self.colour, self.grey = crop, colour, grey

    @torch.no_grad()
    def __call__(self, image: Tensor) -> Tensor:
        with torch.autocast(image.device.type, enabled=False):
            view = random_crops(image.float(), self.crop)
            return random_colours(view, self.colour, self.grey) if self.colour or self.grey else view


def make_views(options: dict) -> Views:
    """Return the views of an option; raises UserError for a name that it does not have."""
    known = ("crop", "colour", "grey")
    for name in options:
        if name not in known:
            raise UserError(f"option views has no '{name}'{nearest(name, known)}")
    return Views(**options)


def random_crops(image: Tensor, scale: tuple[float, float]) -> Tensor:
    """Crop and enlarge to the old size (bilinear), and mirror half of them.

    The area is uniform in `scale`, the aspect ratio log-uniform; what would not fit is cut to the image.
    """
    n = len(image)
    area, ratio, x, y, side = torch.rand(5, n, device=image.device)
    area = scale[0] + area * (scale[1] - scale[0])
    ratio = (math.log(ASPECT) * (2 * ratio - 1)).exp()
    height, width = (area / ratio).sqrt().clamp(max=1), (area * ratio).sqrt().clamp(max=1)
    mirror = 1 - 2 * (side < 0.5).float()
    nought = torch.zeros_like(area)
    rows = [width * mirror, nought, (2 * x - 1) * (1 - width)], [nought, height, (2 * y - 1) * (1 - height)]
    theta = torch.stack([torch.stack(row, 1) for row in rows], 1)
    grid = F.affine_grid(theta, list(image.shape), align_corners=False)
    return F.grid_sample(image, grid, padding_mode="border", align_corners=False)


def random_colours(image: Tensor, strength: float, grey: float) -> Tensor:
    """Jitter brightness, contrast, saturation and hue, in this order; then make some images grey."""
    n, device = len(image), image.device
    draw = torch.rand(6, n, device=device)
    jittered = (draw[4] < JITTERED).float()
    amount = min(1.0, JITTER * strength)
    brightness, contrast, saturation = 1 + amount * jittered * (2 * draw[:3] - 1)
    turn = 2 * math.pi * min(0.5, HUE * strength) * jittered * (2 * draw[3] - 1)
    saturation = saturation * (draw[5] >= grey)
    pixel = ((image + 1) / 2 * brightness.view(n, 1, 1, 1)).clamp(0, 1)
    luma = (pixel * YIQ[0].to(device).view(1, 3, 1, 1)).sum(1, keepdim=True).mean((2, 3), keepdim=True)
    pixel = (luma + contrast.view(n, 1, 1, 1) * (pixel - luma)).clamp(0, 1)
    pixel = torch.einsum("nij,njhw->nihw", colour_matrix(saturation, turn), pixel).clamp(0, 1)
    return 2 * pixel - 1


def colour_matrix(saturation: Tensor, turn: Tensor) -> Tensor:
    """Return the matrices ``[n, 3, 3]`` that scale the chroma of RGB by `saturation` and turn it by `turn` radians."""
    yiq = YIQ.to(turn.device)
    one, nought = torch.ones_like(turn), torch.zeros_like(turn)
    cos, sin = saturation * turn.cos(), saturation * turn.sin()
    rows = [one, nought, nought], [nought, cos, -sin], [nought, sin, cos]
    return torch.linalg.inv(yiq) @ torch.stack([torch.stack(row, 1) for row in rows], 1) @ yiq
